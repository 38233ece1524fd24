"""Connections by hand: what a well-behaved client library would never do."""

import asyncio
import json
import re
import socket
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx2

from tests.client import PLAIN
from tests.service import token

WAIT_SECONDS = 30.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The envelope, which every failure has."""
        found: dict[str, Any] = json.loads(self.body)
        assert set(found) >= {"error", "message", "details", "correlation_id"}
        assert found["correlation_id"] == self.headers["x-correlation-id"]
        return found


class Wire:
    """One TCP connection. Nothing is taken out of it ahead of its reader when `is_deaf`, and little fits into it."""

    def __init__(self, url: str, *, is_deaf: bool = False) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)
        self._is_deaf = is_deaf

    async def __aenter__(self) -> Self:
        connection = socket.socket()
        connection.setblocking(False)
        if self._is_deaf:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        limit = 1 if self._is_deaf else 2**20
        self.reader, self.writer = await asyncio.open_connection(sock=connection, limit=limit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next answer with a length. Raises EOFError when the connection ends without one."""
        async with asyncio.timeout(WAIT_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
            return Answer(int(first.split()[1]), headers, body)

    async def ended(self) -> bytes:
        """What still came until the server ended the connection, politely or not."""
        rest = b""
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                while piece := await self.reader.read(65536):
                    rest += piece
            except ConnectionError:
                pass
        return rest


def head(method: str, path: str, user: str | None = None, **headers: str) -> bytes:
    """The head of a request, complete with its empty line."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if user is not None:
        lines.append(f"Authorization: Bearer {token(user)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def metric(url: str, series: str) -> float:
    """The value of this series, 0 where there is none."""
    async with httpx2.AsyncClient(verify=PLAIN) as client:
        text = (await client.get(f"{url}/metrics")).text
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0
