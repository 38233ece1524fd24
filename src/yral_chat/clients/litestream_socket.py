"""Litestream's control socket, which speaks HTTP: https://litestream.io/reference/socket/."""

import asyncio
import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import orjson

SOCKET_SECONDS: Final = 5.0


class SocketFailed(Exception):
    """Nobody answers there, or the answer is no; the text says which."""


class _Connection(HTTPConnection):
    """Of the client that comes with Python: a drill has little memory, and aiohttp takes 15 MB."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("litestream", timeout=seconds)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


async def ask(
    path: Path, method: str, target: str, body: dict[str, Any] | None = None, *, seconds: float = SOCKET_SECONDS
) -> dict[str, Any]:
    """What the socket at `path` answers, within so many seconds. Raises SocketFailed."""
    data = orjson.dumps(body or {})
    try:
        async with asyncio.timeout(seconds):
            status, found = await asyncio.to_thread(_exchange, path, method, target, data, seconds)
        answer: dict[str, Any] = orjson.loads(found)
    except (HTTPException, OSError, orjson.JSONDecodeError) as error:
        raise SocketFailed(f"Litestream does not answer ({type(error).__name__})") from error
    if status != 200:
        raise SocketFailed(str(answer.get("error", status)))
    return answer


def _exchange(path: Path, method: str, target: str, data: bytes, seconds: float) -> tuple[int, bytes]:
    with closing(_Connection(path, seconds)) as connection:
        connection.request(method, target, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
