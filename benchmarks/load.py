"""Load at little cost: requests are bytes made beforehand, answers are read no further than needed."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

C = TypeVar("C", bound="_Waiting")

LONGEST_SECONDS = 120.0

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_PING, _PONG = 0x89, 0x8A  # final frame, opcode: RFC 6455, section 5.2
_MASKED = 0x80


class Unexpected(Exception):
    """The service did not answer as it should; the figure would be worth nothing."""


def get(path: str, token: str = "", *, is_compressed: bool = False) -> bytes:
    """A GET request."""
    more = b"Accept-Encoding: gzip\r\n" if is_compressed else b""
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b%b\r\n" % (path.encode(), _authorization(token), more)


def post(path: str, body: Any, token: str = "", headers: bytes = b"") -> bytes:
    """A POST request with a JSON body; `headers` are further header lines."""
    content = msgspec.json.encode(body)
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%b%bContent-Length: %d\r\n\r\n"
    return head % (path.encode(), _authorization(token), headers, len(content)) + content


def _authorization(token: str) -> bytes:
    return b"Authorization: Bearer %b\r\n" % token.encode() if token else b""


class _Waiting(asyncio.Protocol):
    """A connection whose user waits for one thing at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or Unexpected("the connection was closed"))

    async def _send(self, request: bytes) -> Any:
        if self._transport is None or self._transport.is_closing():
            raise Unexpected("the connection was closed: the service keeps an idle one for five seconds")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def _found(self, result: Any) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(result)

    def _failed(self, message: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Unexpected(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Connection(_Waiting):
    """One kept-alive connection, one request at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""
        self._end = 0

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer. Raises Unexpected unless the status is 200 or 201."""
        self._buffer, self._end = b"", 0
        body: bytes = await self._send(request)
        return body

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._end:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            length = _LENGTH.search(self._buffer, 0, head)
            self._end = head + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) >= self._end:
            if self._buffer[9:12] in (b"200", b"201"):
                self._found(self._buffer[self._buffer.index(b"\r\n\r\n") + 4 :])
            else:
                self._failed(self._buffer[:600].decode(errors="replace"))


class StreamTimes(msgspec.Struct):
    """When the events of one stream came, in `time.perf_counter()` seconds."""

    asked_at: float
    first_at: float = 0.0
    ended_at: float = 0.0
    arrivals: list[float] = msgspec.field(default_factory=list)


class StreamConnection(_Waiting):
    """One kept-alive connection that reads event streams to their end. `marker` stands in every event with text."""

    def __init__(self, marker: bytes = b"\nevent: token\n", on_event: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._marker = marker
        self._on_event = on_event
        self._tail = b""
        self.times = StreamTimes(0.0)

    async def ask(self, request: bytes) -> StreamTimes:
        """Raises Unexpected when the stream does not begin, or ends with an error."""
        self._tail = b""
        self.times = StreamTimes(time.perf_counter())
        await self._send(request)
        return self.times

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._tail and not data.startswith(b"HTTP/1.1 200"):
            self._failed(data[:600].decode(errors="replace"))
            return
        data = self._tail + data
        if found := data.count(self._marker):
            self.times.first_at = self.times.first_at or now
            self.times.arrivals.extend([now] * found)
            if self._on_event is not None:
                self._on_event(found)
        if b"\nevent: error\n" in data:
            self._failed(data.decode(errors="replace"))
        # The last chunk of a chunked body is empty: RFC 9112, section 7.1.
        if data.endswith(b"\r\n0\r\n\r\n"):
            self.times.ended_at = now
            self._found(None)
        # Shorter than the marker, so that nothing is counted twice.
        self._tail = data[1 - len(self._marker) :]


class SocketConnection(_Waiting):
    """An idle WebSocket: shakes hands and answers pings."""

    async def shake_hands(self, path: str) -> None:
        await self._send(
            b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" % path.encode()
        )

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 101"):
            self._found(None)
        elif data[0] == _PING and self._transport is not None:
            payload = data[2 : 2 + data[1]]
            self._transport.write(bytes((_PONG, _MASKED | len(payload), 0, 0, 0, 0)) + payload)
        else:
            self._failed(data[:300].decode(errors="replace"))


@asynccontextmanager
async def connected(url: str, count: int, make: Callable[[], C]) -> AsyncIterator[list[C]]:
    """`count` connections to the server of `url`, closed at the end."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    found: list[C] = []
    try:
        for _ in range(count):
            _, protocol = await loop.create_connection(make, parts.hostname or "", parts.port or 0)
            found.append(protocol)
        yield found
    finally:
        for protocol in found:
            protocol.close()


async def spread(workers: Sequence[C], jobs: Sequence[Any], do: Callable[[C, Any], Awaitable[object]]) -> None:
    """Every worker does one job after the other until all `jobs` are done."""
    left = iter(jobs)

    async def work(worker: C) -> None:
        for job in left:
            await do(worker, job)

    async with asyncio.timeout(LONGEST_SECONDS), asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(work(worker))


async def ask_all(url: str, connections: int, requests: Sequence[bytes]) -> list[float]:
    """Asks all `requests` over so many connections at once; returns the times of the answers in seconds."""
    seconds: list[float] = []

    async def ask(connection: Connection, request: bytes) -> None:
        started = time.perf_counter()
        await connection.ask(request)
        seconds.append(time.perf_counter() - started)

    async with connected(url, connections, Connection) as workers:
        await spread(workers, requests, ask)
    return seconds
