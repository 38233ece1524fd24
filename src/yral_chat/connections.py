"""Connections of clients that are slow, too many or too loud: each gets so much, and is closed then.

uvicorn reads a head of any size for any time, and leaves a connection to a reader who takes nothing. This is its
protocol with bounds; times are looked at once a second for all connections, so that a request pays for no timer.
"""

import asyncio
import resource
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from yral_chat.core.errors import AppError, BadRequest, HeadTooLarge, Overloaded, RequestTooSlow, envelope
from yral_chat.core.ids import new_id
from yral_chat.core.logging import log

# Of a head that is not complete; what the packet that completes it may add is measured in middleware/gate.py.
MAX_HEAD_BYTES: Final = 64 * 1024
# A body may come so slowly, after the first SLOW_CLIENT_SECONDS: twice the 500 of Apache's mod_reqtimeout.
MIN_BODY_BYTES_PER_SECOND: Final = 1024
# Requests that wait behind the present one of their connection. Browsers send none, few clients more than some.
MAX_PIPELINED: Final = 16
# Files beside the connections: the database, logs, uploads on their way.
RESERVED_FILES: Final = 64


class Bounds(msgspec.Struct, frozen=True):
    """`refused` is told the reason when there are too many connections."""

    most: int
    slow_seconds: float
    refused: Callable[[str], None]


class BoundedProtocol(HttpToolsProtocol):
    """One HTTP connection. A socket's goes on as another protocol once it has shaken hands."""

    bounds: Bounds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head_since: float | None = None  # a head is on its way, or the first one is waited for
        self._head_bytes = 0
        self._body_since: float | None = None  # moved on while we do not read
        self._body_bytes = 0
        self._stuck_since: float | None = None  # the client takes nothing, and more waits than may

    # what uvicorn calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if len(self.connections) > self.bounds.most:
            self.bounds.refused("connections")
            self._refuse(Overloaded("connections"))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_since = self.loop.time()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _TooManyPipelined  # ends the parsing: see `send_400_response`
        self.head_since = None
        self._body_since = self.loop.time()
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_since = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed; uvicorn would answer in plain text."""
        failure = sys.exception()
        if failure is not None and isinstance(failure.__context__, MemoryError):  # for the body, not the parser's fault
            self.bounds.refused("memory")
            self._refuse(Overloaded("memory"))
        else:
            self._refuse(BadRequest(msg.rstrip(".")))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck_since = None

    # what the sweeper calls

    def check(self, time: float, passed: float) -> None:
        """Ends the connection when it has been too slow; `passed` seconds lie between two checks."""
        slow = self.bounds.slow_seconds
        if self._stuck_since is not None and time - self._stuck_since > slow:
            log.info("connection.reader_too_slow")
            self.transport.abort()
        elif self.head_since is not None and time - self.head_since > slow:
            self._refuse(RequestTooSlow())
        elif self._body_since is not None:
            if self.flow.read_paused:
                self._body_since += passed
            elif time - self._body_since > slow + self._body_bytes / MIN_BODY_BYTES_PER_SECOND:
                self._refuse(RequestTooSlow())

    def _refuse(self, error: AppError) -> None:
        """Answers, if nothing is being answered, and closes."""
        if self.transport.is_closing():
            return
        self.head_since = self._body_since = None
        log.info("connection.refused", status=error.status, error=error.code)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(_answer(error))
        self.transport.close()
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()


class _TooManyPipelined(Exception):
    """Raised inside of the parser, which stops with it."""


def _answer(error: AppError) -> bytes:
    correlation = new_id()
    body = envelope(error.code, error.message, error.details, correlation)
    lines = [
        STATUS_LINE[error.status].rstrip(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-correlation-id: %b" % correlation.encode(),
        b"x-content-type-options: nosniff",
        b"cache-control: no-store",
        b"connection: close",
    ]
    if error.retry_after is not None:
        lines.append(b"retry-after: %d" % error.retry_after)
    return b"\r\n".join([*lines, b"", body])


def bounded_by(bounds: Bounds) -> type[BoundedProtocol]:
    """The protocol for `uvicorn.Config(http=…)`."""
    return type("BoundedProtocol", (BoundedProtocol,), {"bounds": bounds})


class Sweeper:
    """Looks at all connections of a server, sockets too."""

    def __init__(self, connections: Iterable[Any], slow_seconds: float) -> None:
        self._connections = connections  # uvicorn's own set
        self._slow_seconds = slow_seconds
        self._closing: dict[Any, float] = {}
        self._swept = 0.0

    def sweep(self, time: float) -> None:
        """`time` is the loop's."""
        passed, self._swept = time - (self._swept or time), time
        closing: dict[Any, float] = {}
        for connection in list(self._connections):
            if connection.transport.is_closing():
                # What was written before the end waits for its reader, for ever if nobody minds.
                closing[connection] = self._closing.get(connection, time)
                if time - closing[connection] > self._slow_seconds:
                    connection.transport.abort()
            elif isinstance(connection, BoundedProtocol):
                connection.check(time, passed)
        self._closing = closing


def most_connections(wanted: int) -> int:
    """How many of `wanted` the limit of open files allows, which is raised as far as it may be.

    A stream needs two: the client's and the vendor's.
    """
    needed = 2 * wanted + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    most = max(1, (soft - RESERVED_FILES) // 2)
    log.warning("connections.fewer_than_set", most=most, max_connections=wanted, open_files=soft)
    return most
