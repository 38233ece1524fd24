"""Connections of clients that are slow, too many or too loud: each gets so much, and is closed then.

uvicorn reads a head of any size for any time, and leaves a connection to a reader who takes nothing. This is its
protocol with bounds; times are looked at once a second for all connections, so that a request pays for no timer.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from websockets import http11
from websockets.server import ServerProtocol

from yral_chat.core.errors import AppError, BadRequest, HeadTooLarge, Overloaded, RequestTooSlow
from yral_chat.core.logging import log
from yral_chat.middleware.gate import MAX_HEADER_BYTES, head_error
from yral_chat.transports import MIN_BYTES_PER_SECOND, Untaken

# Of a head that is not complete, or around and behind the pieces of a body; what the packet adds in which a head ends
# is measured in middleware/gate.py.
MAX_HEAD_BYTES: Final = 64 * 1024
# Requests that wait behind the present one of their connection. Browsers send none, few clients more than some.
MAX_PIPELINED: Final = 16


# A line may be as long as a whole head: the library's 8 KiB are less than a token (contract section 17). There is no
# other way to tell it but an environment variable.
http11.MAX_LINE_LENGTH = MAX_HEADER_BYTES

Headers = Sequence[tuple[bytes, bytes]]


class Bounds(msgspec.Struct, frozen=True):
    """`refused` is told the reason when there are too many connections.

    `answer(error, address, headers)` gives the headers and the body of a refusal, from what is known of the request.
    """

    most: int
    slow_seconds: float
    refused: Callable[[str], None]
    answer: Callable[[AppError, bytes, Headers], tuple[Headers, bytes]]


class BoundedProtocol(HttpToolsProtocol):
    """One HTTP connection. A socket's goes on as another protocol once it has shaken hands."""

    bounds: Bounds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head_since: float | None = None  # a head is on its way, or the first one is waited for
        self._body_since: float | None = None  # moved on while we do not read
        self._body_bytes = 0
        self._idle_bytes = 0  # since a head began or a piece of a body came; below 0 in the packet with that
        self._packet = b""
        self._stuck: Untaken | None = None  # more waits for the client than may
        self._running: RequestResponseCycle | None = None  # whose answer is the next
        self.url = b""

    # what uvicorn calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if len(self.connections) > self.bounds.most:
            self.bounds.refused("connections")
            self._refuse(Overloaded("connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._disconnect(self._running)  # uvicorn tells the last request that came, and this may be an earlier one

    def data_received(self, data: bytes) -> None:
        self._packet = data
        super().data_received(data)
        self._packet = b""
        if self.head_since is not None or self._body_since is not None:
            self._idle_bytes = max(0, self._idle_bytes + len(data))
            if self._idle_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge())
        elif self.timeout_keep_alive_task is None and not self._is_answering():
            self.head_since = self.loop.time()  # nothing of a request, and uvicorn has stopped its timer for it

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_since = self.loop.time()
        self._idle_bytes = -len(self._packet)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._body_since is None:  # else it stands behind the body: nobody asks for these
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _TooManyPipelined  # ends the parsing: see `send_400_response`
        self.head_since = None
        if self._is_other_upgrade():
            return
        self._body_since = self.loop.time()
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._idle_bytes = -len(self._packet)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_since = None
        if not self._is_other_upgrade():
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        if self._is_answering():
            self._refuse(BadRequest())  # a socket cannot wait for the answers before it
            return
        address, _, query = self.url.partition(b"?")
        refusal = head_error(len(address) + len(query), self.headers)
        if refusal is None and not self._is_handshake():
            refusal = BadRequest("This is no handshake for a WebSocket")
        if refusal is None:
            super().handle_websocket_upgrade()
        else:
            self._refuse(refusal)

    def _is_handshake(self) -> bool:
        """Tried out: uvicorn leaves a connection alone whose handshake cannot be parsed, and answers others in text."""
        trial = ServerProtocol()
        trial.receive_data(self._head_again(self.headers))
        requests = [event for event in trial.events_received() if isinstance(event, http11.Request)]
        return len(requests) == 1 and trial.accept(requests[0]).status_code == 101

    def _is_other_upgrade(self) -> bool:
        """Not to a WebSocket; CONNECT is one for the parser only."""
        is_upgrade: bool = self.parser.should_upgrade()
        return is_upgrade and not self._should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """RFC 9110, section 7.8: an offer may be ignored. Java's client makes one with its first request.

        The parser takes what follows for the other protocol's, so that the request is read anew without the offer.
        """
        failure = sys.exception()
        if isinstance(failure, httptools.HttpParserUpgrade) and self._is_other_upgrade():
            head = self._head_again([header for header in self.headers if header[0] != b"upgrade"])
            rest = self._packet[failure.args[0] :]
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(head + rest)

    def _head_again(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        version = self.parser.get_http_version().encode()
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        return b"".join([first, *[b"%b: %b\r\n" % header for header in headers], b"\r\n"])

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

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
        self._stuck = Untaken(self.transport, self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck = None

    # what the sweeper calls

    def check(self, time: float, passed: float) -> None:
        """Ends the connection when it has been too slow; `passed` seconds lie between two checks."""
        slow = self.bounds.slow_seconds
        if self._stuck is not None and self._stuck.is_for_too_long(time, slow):
            log.info("connection.reader_too_slow")
            self.transport.abort()
        elif self.head_since is not None and time - self.head_since > slow:
            self._refuse(RequestTooSlow())
        elif self._body_since is not None:
            if self.flow.read_paused:
                self._body_since += passed
            elif time - self._body_since > slow + self._body_bytes / MIN_BYTES_PER_SECOND:
                self._refuse(RequestTooSlow())

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _refuse(self, error: AppError) -> None:
        """Answers, where no other answer would be taken for it, and closes."""
        if self.transport.is_closing():
            return
        log.info("connection.refused", status=error.status, error=error.code)
        if self._is_next():
            self.transport.write(self._answer(error))
        self.head_since = self._body_since = None
        self.transport.close()
        self._disconnect(self._running)
        self._disconnect(self.cycle)

    def _is_next(self) -> bool:
        """Whether the next answer that the client gets is that to what is coming in."""
        running = self._running
        if self._body_since is None:
            return not self._is_answering()
        return running is not None and running is self.cycle and not running.response_started

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle | None) -> None:
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _answer(self, error: AppError) -> bytes:
        """With what is known of the request by now."""
        headers, body = self.bounds.answer(error, self.url, self.headers or ())
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        return b"".join([STATUS_LINE[error.status], *lines, b"connection: close\r\n\r\n", body])


class _TooManyPipelined(Exception):
    """Raised inside of the parser, which stops with it."""


def bounded_by(bounds: Bounds) -> type[BoundedProtocol]:
    """The protocol for `uvicorn.Config(http=…)`."""
    return type("BoundedProtocol", (BoundedProtocol,), {"bounds": bounds})


class Sweeper:
    """Looks at all connections of a server, sockets too."""

    def __init__(self, connections: Iterable[Any], slow_seconds: float) -> None:
        self._connections = connections  # uvicorn's own set
        self._slow_seconds = slow_seconds
        self._closing: dict[Any, Untaken] = {}
        self._swept = 0.0

    def sweep(self, time: float) -> None:
        """`time` is the loop's."""
        passed, self._swept = time - (self._swept or time), time
        closing: dict[Any, Untaken] = {}
        for connection in list(self._connections):
            if connection.transport.is_closing():
                # What was written before the end waits for its reader, for ever if nobody minds.
                closing[connection] = self._closing.get(connection) or Untaken(connection.transport, time)
                if closing[connection].is_for_too_long(time, self._slow_seconds):
                    connection.transport.abort()
            elif isinstance(connection, BoundedProtocol):
                connection.check(time, passed)
        self._closing = closing
