"""A TCP proxy on loopback that fails as networks do: it delays, throttles, cuts, resets, swallows and refuses.

It runs on a thread of its own, so that tests may block while others talk through it. `fault` is what goes wrong from
now on, with the connections that are open as well as with new ones; None heals, but what has been struck stays as it
is: a client has to connect anew.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from tests.ports import HeldPort

PIECE_BYTES = 64 * 1024
# SO_LINGER with no time: closing sends a reset instead of an end.
RESET = struct.pack("ii", 1, 0)

Side = Literal["client", "server"]
Kind = Literal["cut", "reset", "silence"]


class Fault(NamedTuple):
    """What happens to a connection. The first bytes of `side` that pass the condition strike it.

    cut: both ends are closed. reset: both are reset. silence: it stays open, and nothing gets through any more in
    either direction; the server is not even told when the client leaves.
    """

    kind: Kind
    side: Side = "server"  # whose bytes are looked at: those of the client's requests, or those of the answers
    after: int = 0  # so many of them pass first, counted per connection from when the fault was set
    at: bytes | None = None  # or: when these are among them, which pass with what came before them if `passes`
    passes: bool = False
    since: bytes | None = None  # and these must have been among the bytes before, on the same connection
    times: int | None = None  # connections that are struck before it is over; None: until it is taken away


class FaultProxy:
    """In front of `target`, a `host:port` or a URL."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target if "//" in target else f"//{target}")
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port or 80)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._fault: Fault | None = None
        self.struck = 0  # connections, since the fault was set
        self.accepted = 0
        self.delay_seconds = 0.0  # of each piece, in each direction
        self.bytes_per_second: int | None = None
        self._held = HeldPort()
        self.port = self._held.number

    def in_place_of(self, url: str) -> str:
        """`url` with this proxy as its host and port."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}").geturl()

    @property
    def piece_bytes(self) -> int:
        """How much is passed on at once."""
        return PIECE_BYTES if self.bytes_per_second is None else max(1, self.bytes_per_second // 20)

    @property
    def fault(self) -> Fault | None:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._do(self._set(fault))

    def heal(self) -> None:
        """Nothing goes wrong with what comes now."""
        self.delay_seconds, self.bytes_per_second = 0.0, None
        self.fault = None
        if self._server is None:
            self._do(self._listen())

    def refuse(self) -> None:
        """Nobody listens, and what was open is reset. `heal` ends it."""
        self._do(self._stop_listening())
        self.break_all()

    def break_all(self) -> None:
        """Resets what is open."""
        self._do(self._break_all())

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    # on the proxy's own thread

    async def _set(self, fault: Fault | None) -> None:
        self._fault, self.struck = fault, 0
        for connection in self._connections:
            connection.seen = {"client": 0, "server": 0}

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _break_all(self) -> None:
        await asyncio.sleep(0)  # who was just accepted is known after this
        broken = list(self._connections)  # whoever comes meanwhile is somebody new
        for connection in broken:
            connection.end(is_reset=True)
            connection.task.cancel()
        await asyncio.gather(*(connection.task for connection in broken), return_exceptions=True)
        for _ in range(5):  # what was aborted is closed some rounds later
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, (reader, writer))
        self._connections.add(connection)
        try:
            await connection.carry(*self._target)
        finally:
            self._connections.discard(connection)

    def strike(self, connection: "_Connection", side: Side, piece: bytes) -> "Strike | None":
        """What `piece`, the next bytes of `side`, brings about."""
        fault, before = self._fault, connection.seen[side]
        connection.seen[side] += len(piece)
        if fault is None or side != fault.side:
            return None
        if fault.since is not None and fault.since in piece:
            connection.armed_for = fault
        if fault.since is not None and connection.armed_for is not fault:
            return None
        passing = _place(fault, piece, before)
        if passing is None:
            return None
        self.struck += 1
        if fault.times is not None and self.struck >= fault.times:
            self._fault = None
        return Strike(fault.kind, passing)


def _place(fault: Fault, piece: bytes, before: int) -> int | None:
    """How many bytes of `piece`, after so many `before`, pass before the fault strikes; None where it does not."""
    if fault.at is None:
        passing = max(0, fault.after - before)
        return passing if passing < len(piece) else None
    place = piece.find(fault.at)
    if place < 0:
        return None
    return place + len(fault.at) if fault.passes else place


class Strike(NamedTuple):
    kind: Kind
    passing: int  # bytes of the piece that still get through


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One client with its connection to the server."""

    def __init__(self, proxy: FaultProxy, client: Stream) -> None:
        self._proxy = proxy
        self._streams = [client]
        self._is_silent = False
        self.seen: dict[Side, int] = {"client": 0, "server": 0}
        self.armed_for: Fault | None = None  # its `since` has passed here
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task

    async def carry(self, host: str, port: int) -> None:
        """Until both sides have ended, or one of them was cut."""
        with suppress(OSError, asyncio.CancelledError):  # the server is away, or `break_all`
            self._streams.append(await asyncio.open_connection(host, port))
            (client_reader, client_writer), (server_reader, server_writer) = self._streams
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump("client", client_reader, server_writer))
                pumps.create_task(self._pump("server", server_reader, client_writer))
        self.end(is_reset=False)
        for _, writer in self._streams:
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    def end(self, *, is_reset: bool) -> None:
        """Closes both sides."""
        for _, writer in self._streams:
            if is_reset and (plain := writer.get_extra_info("socket")) is not None and plain.fileno() >= 0:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            else:
                writer.close()

    async def _pump(self, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(self._proxy.piece_bytes):
                if self._is_silent:
                    continue
                strike = self._proxy.strike(self, side, piece)
                await self._pass_on(piece if strike is None else piece[: strike.passing], writer)
                if strike is None:
                    continue
                if strike.kind != "silence":
                    self.end(is_reset=strike.kind == "reset")
                    return
                self._is_silent = True
            if not self._is_silent:
                writer.write_eof()
        except OSError:
            if not self._is_silent:
                self.end(is_reset=True)

    async def _pass_on(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        if not piece:
            return
        if self._proxy.delay_seconds:
            await asyncio.sleep(self._proxy.delay_seconds)
        if self._proxy.bytes_per_second is not None:
            await asyncio.sleep(len(piece) / self._proxy.bytes_per_second)
        writer.write(piece)
        await writer.drain()
