"""Who listens in this process: replies that are being written, and the sockets of people's inboxes.

An event is encoded once and the same bytes go to every listener. A reply keeps its own text, so that a slow reader
of a stream costs nothing but its place in it; a slow socket has a bounded queue and is dropped.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import orjson
from loguru import logger

from yral_chat.core.objects import Json, Message

# Contract section 10.1: what may wait for one socket.
MAX_WAITING_FRAMES = 256
MAX_WAITING_BYTES = 1024 * 1024
# How long a durable event waits for one with a smaller number that another thread has committed but not yet told. Then
# the sockets are closed, and get both by replay.
GAP_SECONDS = 1.0

TOO_SLOW = 1013
REPLACED = 4008
DRAINING = 1012


def sse_frame(event: str, event_id: str, data: Any) -> bytes:
    """One server-sent event: `id`, `event`, and `data` as one line of JSON."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), event.encode(), orjson.dumps(data))


def token_frame(attempt: int, length: int, text: str) -> bytes:
    """A token event; `length` counts the code points of the reply up to its end."""
    return sse_frame("token", f"{attempt}-{length}", {"text": text})


class ReplyStream:
    """One reply while it is written: its text so far, and how it ended.

    Readers keep their own place; the writer never waits for them. A take-over begins a new attempt with an empty
    text, and readers begin anew with it.
    """

    def __init__(self, user_message: Message | None, reply_id: str, attempt: int) -> None:
        self.user_message = user_message  # None for a picture, which is waited for and not streamed
        self.reply_id = reply_id
        self.attempt = attempt
        self.text = ""
        self.result: Any = None  # set at the end, before the readers wake
        self.end_frame: bytes | None = None
        self._frames: list[tuple[int, bytes]] = []  # (code points before the piece, frame)
        self._waiters: list[asyncio.Future[bool]] = []

    @property
    def is_ended(self) -> bool:
        return self.end_frame is not None

    def append(self, piece: str) -> None:
        """Adds a non-empty piece of text for all readers."""
        start = len(self.text)
        self.text += piece
        self._frames.append((start, token_frame(self.attempt, start + len(piece), piece)))
        self._wake()

    def restart(self, attempt: int) -> None:
        """A new attempt writes the text anew."""
        self.attempt = attempt
        self.text = ""
        self._frames = []
        self._wake()

    def end(self, frame: bytes, result: Any) -> None:
        """Ends the stream for everybody, once."""
        if self.end_frame is None:
            self.result = result
            self.end_frame = frame
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)

    async def _changed(self, seconds: float) -> bool:
        """Waits for the next change; False when `seconds` pass without one."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(seconds, _give_up, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def wait_end(self, seconds: float) -> bool:
        """True when the reply has ended within `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.is_ended:
            rest = deadline - loop.time()
            if rest <= 0:
                return False
            await self._changed(rest)
        return True

    def start_frame(self) -> bytes:
        data = {"user_message": self.user_message, "assistant_message_id": self.reply_id, "attempt": self.attempt}
        return sse_frame("start", f"{self.attempt}-0", data)

    async def follow(
        self,
        last_event_id: str | None,
        *,
        heartbeat_seconds: float,
        idle_seconds: float,
        idle_frame: Callable[[int, int], bytes],
    ) -> AsyncIterator[bytes]:
        """SSE frames from the reader's place on: missed text joined in one token, then live, then the end.

        Heartbeats are comments. When nothing comes for `idle_seconds`, `idle_frame(attempt, place)` is the last one:
        the reader's time is up, the reply goes on.
        """
        attempt, place = self.attempt, parse_event_id(last_event_id, self.attempt, len(self.text))
        loop = asyncio.get_running_loop()
        if place is None:
            place = 0
            yield self.start_frame()
        last_event_at = loop.time()
        next_frame = 0
        while True:
            if self.attempt != attempt:
                attempt, place, next_frame = self.attempt, 0, 0
                yield self.start_frame()
            if place < len(self.text):
                last_event_at = loop.time()
                frames = self._frames
                while next_frame < len(frames) and frames[next_frame][0] < place:
                    next_frame += 1
                if next_frame == len(frames) - 1 and frames[next_frame][0] == place:
                    place, frame = len(self.text), frames[next_frame][1]
                else:  # behind: everything missed in one event
                    missed = self.text[place:]
                    place, frame = len(self.text), token_frame(attempt, len(self.text), missed)
                next_frame = len(frames)
                yield frame
            elif self.end_frame is not None:
                yield self.end_frame
                return
            elif loop.time() - last_event_at >= idle_seconds:
                yield idle_frame(attempt, place)
                return
            else:
                rest = idle_seconds - (loop.time() - last_event_at)
                if not await self._changed(min(heartbeat_seconds, rest)):
                    yield b": ping\n\n"


def _give_up(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(False)


def parse_event_id(event_id: str | None, attempt: int, length: int) -> int | None:
    """The reader's place in code points; None when the id is not one of this attempt."""
    if event_id is None:
        return None
    head, _, tail = event_id.partition("-")
    if head != str(attempt):
        return None
    if tail in ("done", "error"):
        return length
    if not (tail.isascii() and tail.isdigit()) or len(tail) > 9:
        return None
    return int(tail) if int(tail) <= length else None


class SocketCounts(msgspec.Struct):
    """Totals since the start."""

    events_sent: int = 0  # once for each socket
    slow_closed: int = 0


class Listener:
    """One socket's bounded queue. The socket's task takes frames; `closed` ends it."""

    def __init__(self, user_id: str, *, wants_deltas: bool, counts: SocketCounts | None = None) -> None:
        self._counts = counts or SocketCounts()
        self.user_id = user_id
        self.wants_deltas = wants_deltas
        # Durable events up to this one were sent by replay, or are not wanted. None: the replay is being read.
        self.replayed_through: int | None = None
        self.closed: tuple[int, str] | None = None
        self._frames: deque[tuple[int, str]] = deque()  # (number of a durable event, else 0; frame)
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def put(self, frame: str, *, seq: int = 0) -> None:
        """Queues a frame; `seq` is the number of a durable event."""
        if self.closed is not None:
            return
        self._frames.append((seq, frame))
        self._bytes += _size(frame)
        if len(self._frames) > MAX_WAITING_FRAMES or self._bytes > MAX_WAITING_BYTES:
            self._frames.clear()
            self._counts.slow_closed += 1
            self.close(TOO_SLOW, "the socket cannot keep up")
            return
        self._wake()

    def close(self, code: int, reason: str) -> None:
        """Ends the socket with this code once what waits is sent."""
        if self.closed is None:
            self.closed = (code, reason)
            self._wake()

    async def take(self) -> str | None:
        """The next frame; None when the listener is closed and nothing waits."""
        while True:
            while self._frames:
                seq, frame = self._frames.popleft()
                self._bytes -= _size(frame)
                if not 0 < seq <= (self.replayed_through or 0):
                    self._counts.events_sent += 1
                    return frame
            if self.closed is not None:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Inbox:
    """The sockets of one user in this process, and the order of their durable events."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.last_seq: int | None = None  # None until the first socket has read it from the database
        self.held: dict[int, str] = {}
        self.timer: asyncio.TimerHandle | None = None


Replay = tuple[list[tuple[int, str, str]], int, bool]
"""(durable events as (seq, event, data as JSON), the newest seq, whether some are missing)."""


class Hub:
    """See the module. All methods belong to the event loop."""

    def __init__(self, *, max_sockets_per_user: int) -> None:
        self.counts = SocketCounts()
        self._max_sockets = max_sockets_per_user
        self._replies: dict[str, ReplyStream] = {}
        self._inboxes: dict[str, _Inbox] = {}

    # replies

    def open_reply(
        self, user_message: Message | None, reply_id: str, attempt: int, *, is_apart: bool = False
    ) -> ReplyStream:
        """The stream of a reply that begins, or begins anew. `is_apart`: who listens to the last attempt stays."""
        stream = self._replies.get(reply_id)
        if stream is None or stream.is_ended or is_apart:
            stream = self._replies[reply_id] = ReplyStream(user_message, reply_id, attempt)
        else:
            stream.restart(attempt)
        return stream

    def find_reply(self, reply_id: str) -> ReplyStream | None:
        return self._replies.get(reply_id)

    def close_reply(self, stream: ReplyStream, frame: bytes, result: Any) -> None:
        """Ends a reply's stream and forgets it: from now on the stored message answers."""
        if self._replies.get(stream.reply_id) is stream:
            del self._replies[stream.reply_id]
        stream.end(frame, result)

    # inboxes

    def is_listening(self, user_id: str) -> bool:
        return user_id in self._inboxes

    def publish(self, user_id: str, event: str, data: Json, *, seq: int | None = None) -> None:
        """Sends an event to the user's sockets. `seq` makes it durable: such events leave in that order."""
        inbox = self._inboxes.get(user_id)
        if inbox is None:
            return
        if seq is None:
            _publish_fleeting(inbox, inbox.listeners, event, data)
            return
        inbox.held[seq] = _frame(event, seq, data)
        self._release(user_id, inbox)

    def publish_delta(self, user_id: str, data: Callable[[], Json]) -> None:
        """Sends a piece of a reply to the sockets that asked for it."""
        inbox = self._inboxes.get(user_id)
        if inbox is None:
            return
        if listeners := [listener for listener in inbox.listeners if listener.wants_deltas]:
            _publish_fleeting(inbox, listeners, "message_delta", data())

    def _release(self, user_id: str, inbox: _Inbox) -> None:
        """Delivers the held events that are next in order."""
        if inbox.last_seq is None:
            return
        before = inbox.last_seq
        for seq in sorted(inbox.held):
            if seq > inbox.last_seq + 1:
                break
            frame = inbox.held.pop(seq)
            inbox.last_seq = max(inbox.last_seq, seq)
            for listener in inbox.listeners:
                listener.put(frame, seq=seq)
        if inbox.timer is not None and inbox.last_seq > before:  # that gap is closed; the next has its own time
            inbox.timer.cancel()
            inbox.timer = None
        if inbox.held and inbox.timer is None:
            loop = asyncio.get_running_loop()
            inbox.timer = loop.call_later(GAP_SECONDS, self._give_up_gap, user_id, inbox)

    def _give_up_gap(self, user_id: str, inbox: _Inbox) -> None:
        inbox.timer = None
        if inbox.held and inbox.last_seq is not None:
            logger.warning("inbox.gap", missing=inbox.last_seq + 1)
            inbox.last_seq = min(inbox.held) - 1
            # It may be stored all the same, as after a commit whose answer was lost: what is stored is replayed.
            for listener in inbox.listeners:
                if (listener.replayed_through or 0) < inbox.last_seq:
                    listener.close(DRAINING, "an event is missing here: reconnect with since")
            self._release(user_id, inbox)

    def connect(self, user_id: str, *, wants_deltas: bool) -> Listener:
        """Adds a socket; from now on its events wait for it. The oldest gives way above the limit."""
        listener = Listener(user_id, wants_deltas=wants_deltas, counts=self.counts)
        inbox = self._inboxes.setdefault(user_id, _Inbox())
        inbox.listeners.append(listener)
        # One that is closed already, but stuck in what it was sending, takes nobody's place.
        still_open = [other for other in inbox.listeners if other.closed is None]
        if len(still_open) > self._max_sockets:
            still_open[0].close(REPLACED, "replaced by a newer socket")
        return listener

    def begin(self, listener: Listener, newest_seq: int) -> None:
        """Tells which durable events the socket has been given by replay, or does not want."""
        inbox = self._inboxes.get(listener.user_id)
        listener.replayed_through = newest_seq
        if inbox is not None and inbox.last_seq is None:
            inbox.last_seq = newest_seq
            self._release(listener.user_id, inbox)

    def disconnect(self, listener: Listener) -> None:
        inbox = self._inboxes.get(listener.user_id)
        if inbox is None or listener not in inbox.listeners:
            return
        inbox.listeners.remove(listener)
        if not inbox.listeners:
            if inbox.timer is not None:
                inbox.timer.cancel()
            del self._inboxes[listener.user_id]

    def close_user(self, user_id: str, code: int, reason: str) -> None:
        """Ends this person's sockets."""
        inbox = self._inboxes.get(user_id)
        for listener in inbox.listeners if inbox is not None else ():
            listener.close(code, reason)

    def close_all(self, code: int = DRAINING, reason: str = "the server is draining: reconnect with since") -> None:
        """Ends every socket."""
        for inbox in self._inboxes.values():
            for listener in inbox.listeners:
                listener.close(code, reason)


def _publish_fleeting(inbox: _Inbox, listeners: list[Listener], event: str, data: Json) -> None:
    """Not for a socket that has been given no beginning yet: such an event is not worth waiting for it.

    It carries the newest number that the socket has, which a replay may have brought ahead of the others.
    """
    frames: dict[int, str] = {}
    for listener in listeners:
        if listener.replayed_through is None:
            continue
        seq = max(inbox.last_seq or 0, listener.replayed_through)
        if seq not in frames:
            frames[seq] = _frame(event, seq, data)
        listener.put(frames[seq])


def _size(frame: str) -> int:
    """In bytes, as it will be sent."""
    return len(frame) if frame.isascii() else len(frame.encode())


def _frame(event: str, seq: int, data: Json) -> str:
    return orjson.dumps({"event": event, "seq": seq, "data": data}).decode()


def replay_frame(event: str, seq: int, data: str) -> str:
    """The frame of a stored event; `data` is JSON already."""
    return orjson.dumps({"event": event, "seq": seq, "data": orjson.Fragment(data)}).decode()
