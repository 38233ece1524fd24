"""A reader of one reply, which leaves and comes back, and joins what it gets by the ids of the events."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.history.record import Record

Json = dict[str, Any]


async def read_events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str, Json]]:
    """(event, id, data) of a stream; comments are passed over."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields["event"], fields["id"], json.loads(fields["data"])
            fields = {}


class Reading:
    """What one reader has of one reply; survives any number of connections."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.reply_id: str | None = None
        self.attempt = 0
        self.text = ""
        self.last_event_id: str | None = None
        self.end: tuple[str, Json] | None = None  # the event that ended this connection
        self._highest = 0  # attempt on this connection
        self.is_busy = False

    def connect(self) -> str | None:
        """A new connection begins; returns the id to go on from."""
        self.end, self._highest = None, 0
        return self.last_event_id

    def forget(self) -> None:
        """The next connection starts from the beginning."""
        self.attempt, self.text, self.last_event_id = 0, "", None

    def take(self, event: str, event_id: str, data: Json) -> None:
        """One event. Notes every contradiction."""
        require = self._record.require
        attempt, _, place = event_id.partition("-")
        require(self.end is None, "something came after the end of a stream", event=event, id=event_id)
        if event == "start":
            self._start(data)
            require(event_id == f"{self.attempt}-0", "a start with another id", id=event_id, attempt=self.attempt)
        require(self.attempt, "a stream of a reader without a place did not start with start", event=event)
        require(attempt == str(self.attempt), "a stream mixes attempts", id=event_id, attempt=self.attempt)
        if event == "token":
            require(data["text"], "an empty token", id=event_id)
            self.text += data["text"]
            require(place == str(len(self.text)), "a token out of place", id=event_id, have=self.text)
            self._note()
        elif event in ("done", "error"):
            self.end = (event, data)
            is_place = data.get("turn_running") and place == str(len(self.text))
            require(place == event or is_place, "an end with another id", id=event_id)
            self._finish(event, data)
        else:
            require(event == "start", "an unknown event", event=event)
        self.last_event_id = event_id if event == "token" or self.last_event_id is None else self.last_event_id

    def _start(self, data: Json) -> None:
        reply_id = data["assistant_message_id"]
        self._record.require(
            self.reply_id in (None, reply_id), "another reply on this stream", was=self.reply_id, is_=reply_id
        )
        self._record.require(
            data["attempt"] > self._highest, "a stream went back", was=self._highest, is_=data["attempt"]
        )
        self._highest = data["attempt"]
        self.reply_id, self.attempt, self.text = reply_id, data["attempt"], ""
        self.last_event_id = None

    def _note(self) -> None:
        if self.reply_id is not None:
            self._record.saw_text(self.reply_id, self.attempt, self.text)

    def _finish(self, event: str, data: Json) -> None:
        if event == "done":
            message = data["assistant_message"]
            self._record.require(message["content"] == self.text, "a stream is not its reply", has=self.text, is_=data)
            self._record.require(message["attempt"] == self.attempt, "a stream of another attempt", is_=data)
            self._record.require(data["tokens"] == (message["token_count"] or 0), "other tokens", is_=data)
            self._record.require(data["provider"], "an empty provider", is_=data)
        elif not data["turn_running"] and self.reply_id is not None:
            self._record.saw_stop(self.reply_id, self.attempt, data["code"], self.text)
