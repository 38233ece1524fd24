"""A device that listens: it loses its socket, comes back with the last number it has, and must have missed nothing."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from tests.history.people import CUT, Person
from tests.history.record import Record
from tests.service import token

Json = dict[str, Any]

DURABLE = ("new_message", "message_updated", "conversation_read", "conversation_deleted")
FLEETING = ("typing_status", "message_delta")
# Lost in a crash, left by us, drained.
LAWFUL_CLOSES = (None, 1000, 1005, 1006, 1012)


class Inbox:
    """One device's sockets, one after the other."""

    def __init__(self, person: Person, record: Record, rng: random.Random) -> None:
        self._person = person
        self._record = record
        self._rng = rng
        self.last_seq: int | None = None
        self._places: dict[tuple[str, int], int] = {}  # of this socket: (message, attempt) → characters so far
        self._newest = 0  # the highest number on this socket

    async def listen(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await self._person.server.up.wait()
            seconds = min(until - loop.time(), self._rng.expovariate(0.4))
            with suppress(*CUT):
                await self.connect(seconds, stops_at=None)

    async def connect(self, seconds: float, *, stops_at: int | None) -> None:
        """One socket for so long, or until the durable event `stops_at` is here."""
        query = {"token": token(self._person.id), "stream": self._rng.choice(("0", "1"))}
        if self.last_seq is not None:
            query["since"] = str(self.last_seq)
        self._places, self._newest = {}, self.last_seq or 0
        url = f"{self._person.server.url}/api/v1/chat/ws/inbox/{self._person.id}"
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._person.session.ws_connect(url, params=query) as socket:
                await self._receive(socket, stops_at)

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, stops_at: int | None) -> None:
        while stops_at is None or (self.last_seq or 0) < stops_at:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            self._take(orjson.loads(message.data))
        if socket.closed:
            self._record.answers[f"socket {socket.close_code}"] += 1
            self._record.require(socket.close_code in LAWFUL_CLOSES, "a socket was closed", code=socket.close_code)

    def _take(self, frame: Json) -> None:
        event, seq = frame["event"], frame["seq"]
        if event in DURABLE:
            self._take_durable(frame)
        elif event == "resync":
            self._record.require(self._person.has_deleted, "a resync without a reason", frame=frame)
            self.last_seq = seq  # what happened up to here is to be fetched; from here on nothing may be missing
        else:
            self._record.require(event in FLEETING, "an unknown event", frame=frame)
            self._record.require(seq >= self._newest, "a number that goes back", frame=frame, newest=self._newest)
        self._newest = max(self._newest, seq)
        if event == "message_delta":
            self._take_delta(frame["data"])

    def _take_durable(self, frame: Json) -> None:
        seq = frame["seq"]
        if self.last_seq is not None:
            # What a deleted conversation had to tell is not told again.
            is_next = seq == self.last_seq + 1 or (self._person.has_deleted and seq > self.last_seq)
            self._record.require(is_next, "a durable event out of order", after=self.last_seq, frame=frame)
        self.last_seq = seq
        self._record.operations["durable event"] += 1
        self._record.saw_durable(self._person.id, frame)
        message = frame["data"].get("message")
        if message is not None and message["conversation_id"] not in self._record.doomed:
            self._record.saw(message, None)

    def _take_delta(self, delta: Json) -> None:
        place, start = (delta["message_id"], delta["attempt"]), delta["offset"]
        known = self._places.get(place, start)  # a socket may come in the middle
        self._record.require(start == known, "a delta out of place", delta=delta, known=known)
        self._places[place] = start + len(delta["text"])
        self._record.operations["delta"] += 1
        reply = self._record.replies.get(delta["message_id"])
        if reply is not None:
            reply.deltas.append((delta["attempt"], start, delta["text"]))
