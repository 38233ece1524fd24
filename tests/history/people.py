"""Random people: they send, stream, leave in the middle, come back, stop, ask again, repeat themselves, read, delete.

Each person has several devices that act at the same time in the same conversations. Whatever an answer says goes into
the record. What they have with each other is in talks.py, what personas remember of them in remembering.py.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Protocol

import aiohttp
import orjson

from tests.history.record import Record, Sent
from tests.history.remembering import Memories
from tests.history.sse import Reading, read_events
from tests.history.talks import Talks
from tests.service import token

Json = dict[str, Any]

CONVERSATIONS = "/api/v1/chat/conversations"
# What a lost connection, a killed server or our own impatience look like.
CUT = (aiohttp.ClientError, TimeoutError, OSError)
# No answer and no event of the service may take longer than this.
REQUEST_SECONDS = 20.0
# What a person remembers to come back to.
MEMORY = 12


class Refused(Exception):
    """The service says that it cannot do this now."""


class Server(Protocol):
    """Where to send requests, and when there is somebody to hear them."""

    up: asyncio.Event

    @property
    def url(self) -> str: ...

    def output(self) -> list[str]: ...


class Answer:
    """One JSON answer."""

    def __init__(self, status: int, headers: Any, body: Json) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def error(self) -> str:
        return str(self.body.get("error", ""))


class Person:
    """One user with several devices. `influencers`: one lasting conversation with each but the last two.

    The last but one is the quiet conversation, in which one device at a time says one thing without a key until it
    has an answer; the last is deleted now and then.
    """

    def __init__(self, name: str, server: Server, record: Record, rng: random.Random, influencers: list[str]) -> None:
        self.id = name
        self.server = server
        self.record = record
        self.rng = rng
        self.lasting = influencers[:-2]
        self.quiet, self.passing = influencers[-2:]
        self.conversations: dict[str, str] = {}  # by influencer
        self.sent: list[Sent] = []
        self.readings: list[tuple[str, Reading]] = []  # (conversation, reading)
        self.replies: list[tuple[str, str]] = []  # (conversation, reply)
        self.has_deleted = False
        self.talks = Talks(self)
        self.memories = Memories(self)
        self._quiet_turn = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._number = 0
        self._choices: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (24, self.send),
            (24, self.stream),
            (5, self.send_at_once),
            (12, self.repeat),
            (4, self.misuse_key),
            (7, self.speak_quietly),
            (7, self.cancel),
            (6, self.regenerate),
            (14, self.resume),
            (4, self.mark_read),
            (5, self.look_at_history),
            (3, self.look_at_inbox),
            (2, self.open_again),
            (1, self.delete),
            (14, self.talks.talk),
            (5, self.talks.talk_again),
            (4, self.talks.read_talk),
            (3, self.talks.look_at_talk),
            (3, self.talks.look_at_everything),
            (2, self.talks.delete_talk),
            (3, self.memories.look_at_memories),
            (2, self.memories.forget),
        ]

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "not alive yet"
        return self._session

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Has connections while the block runs."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=REQUEST_SECONDS)
        headers = {"Authorization": f"Bearer {token(self.id, ttl_seconds=7200)}"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as self._session:
            yield

    async def act(self, until: float) -> None:
        """One device's life, until this time of the loop."""
        weights, choices = [weight for weight, _ in self._choices], [choice for _, choice in self._choices]
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await self.server.up.wait()
            choice = self.rng.choices(choices, weights)[0]
            self.record.operations[choice.__name__] += 1
            try:
                await choice()
            except (*CUT, Refused) as error:
                self.record.answers[type(error).__name__] += 1
            if self.rng.random() < 0.2:
                await asyncio.sleep(self.rng.uniform(0, 0.1))

    # requests

    async def request(
        self, method: str, path: str, body: Json | None = None, query: Mapping[str, str] | None = None
    ) -> Answer:
        """Raises one of CUT when there is no whole answer."""
        async with self.session.request(
            method, f"{self.server.url}{path}", json=body, params=query, timeout=aiohttp.ClientTimeout(REQUEST_SECONDS)
        ) as response:
            answer = Answer(response.status, response.headers, orjson.loads(await response.read()))
        self._check(answer, f"{method} {path}")
        return answer

    def _check(self, answer: Answer, what: str) -> None:
        self.record.answers[f"{answer.status} {answer.error}".strip()] += 1
        log = self.server.output()[-40:] if answer.status == 500 else []
        self.record.require(answer.status != 500, "an internal error", request=what, answer=answer.body, log=log)

    def patience(self, is_patient: bool = False) -> "asyncio.Timeout":
        """Now and then somebody leaves in the middle."""
        is_leaving = not is_patient and self.rng.random() < 0.25
        return asyncio.timeout(self.rng.expovariate(4) if is_leaving else REQUEST_SECONDS)

    # conversations

    async def conversation(self) -> str:
        """One of the lasting conversations or the passing one."""
        influencer = self.passing if self.rng.random() < 0.08 else self.rng.choice(self.lasting)
        return self.conversations.get(influencer) or await self._open(influencer)

    async def _open(self, influencer: str) -> str:
        begun = self.record.tick()
        answer = await self.request("POST", CONVERSATIONS, {"influencer_id": influencer})
        if answer.status == 503:
            raise Refused
        conversation: str = answer.body["id"]
        if influencer == self.passing:
            # Nothing is claimed about what somebody may delete at any moment.
            self.record.doomed.add(conversation)
        else:
            known = self.conversations.get(influencer, conversation)
            self.record.require(known == conversation, "two conversations of one pair", one=known, other=conversation)
            self.record.saw_all(answer.body["recent_messages"], begun)
        self.conversations[influencer] = conversation
        self.record.opened[conversation] = self.id
        return conversation

    async def open_again(self) -> None:
        await self._open(self.rng.choice(self.lasting))

    async def delete(self) -> None:
        conversation = self.conversations.get(self.passing)
        if conversation is None:
            return
        self.has_deleted = True
        answer = await self.request("DELETE", f"{CONVERSATIONS}/{conversation}")
        if answer.status in (200, 404):  # 404: an earlier attempt of ours arrived after all
            self.record.deleted.add(conversation)
            self.conversations.pop(self.passing, None)
            gone = await self.request("GET", f"{CONVERSATIONS}/{conversation}")
            self.record.require(gone.status in (404, 503), "a deleted conversation is there", answer=gone.body)

    # sending

    def new_sent(self, conversation: str, key: str | None) -> Sent:
        self._number += 1
        words = " ".join(
            self.rng.choice(("when", "kya", "🙂", "ठीक", "then", "é")) for _ in range(self.rng.randint(0, 5))
        )
        sent = Sent(conversation, f"{self.id}/{self._number} {words}".strip(), key, self.record.tick())
        self.record.sent.append(sent)
        return sent

    def _new(self, conversation: str, key: str | None) -> Sent:
        """To a persona."""
        self.sent.append(self.new_sent(conversation, key))
        return self.sent[-1]

    def _keyed(self, conversation: str) -> Sent:
        return self._new(
            conversation, str(uuid.UUID(int=self.rng.getrandbits(128))) if self.rng.random() < 0.9 else None
        )

    @staticmethod
    def _body(sent: Sent) -> Json:
        body = {"message_type": "text", "content": sent.content}
        return body if sent.key is None else {**body, "client_message_id": sent.key}

    async def send(self) -> None:
        await self._send(self._keyed(await self.conversation()))

    async def send_at_once(self) -> None:
        """Several devices send the same message at the same moment."""
        sent = self._new(await self.conversation(), str(uuid.uuid4()))
        ways = [self.rng.choice((self._send, self._stream)) for _ in range(self.rng.randint(2, 5))]
        outcomes = await asyncio.gather(*(way(sent) for way in ways), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, CUT):
                raise outcome

    async def repeat(self) -> None:
        """The same message with the same key, whatever became of it."""
        keyed = [sent for sent in self.sent[-4 * MEMORY :] if sent.key is not None]
        if not keyed:
            return
        sent = self.rng.choice(keyed[-MEMORY:] if self.rng.random() < 0.8 else keyed)
        await self.rng.choice((self._send, self._stream))(sent)

    async def misuse_key(self) -> None:
        """Another body with a key that is known to be taken."""
        known = [sent for sent in self.sent[-MEMORY:] if sent.key is not None and sent.ids]
        if not known:
            return
        sent = self.rng.choice(known)
        body = {**self._body(sent), "content": f"not {sent.content}"}
        answer = await self.request("POST", f"{CONVERSATIONS}/{sent.conversation_id}/messages", body)
        is_refused = (
            answer.error in ("idempotency_conflict", "service_unavailable")
            or sent.conversation_id in self.record.doomed
        )
        self.record.require(is_refused, "another body was taken under a used key", answer=answer.body)

    async def speak_quietly(self) -> None:
        """Without a key, the same words again until there is an answer: they must be there once."""
        if self._quiet_turn.locked():
            return
        async with self._quiet_turn:
            conversation = self.conversations.get(self.quiet) or await self._open(self.quiet)
            sent = self._new(conversation, None)
            tries = self.rng.randint(1, 4)
            for number in range(tries + 5):
                await self.server.up.wait()
                try:
                    # The last waits for its answer: what was cut may still wait for the database, and would come
                    # lawfully as a new message behind the next words of this person.
                    await self.rng.choice((self._send, self._stream))(sent, is_patient=number >= tries - 1)
                except CUT:
                    continue
                if number >= tries - 1:
                    return

    async def _send(self, sent: Sent, is_patient: bool = False) -> None:
        begun = self.record.tick()
        path = f"{CONVERSATIONS}/{sent.conversation_id}/messages"
        is_answered = False
        try:
            async with self.patience(is_patient):
                answer = await self.request("POST", path, self._body(sent))
            is_answered = True
        finally:
            sent.is_open |= not is_answered
        self._take_answer(sent, answer, begun)

    def _take_answer(self, sent: Sent, answer: Answer, begun: int) -> None:
        messages = answer.body if answer.status == 200 else answer.body["details"]
        if "user_message" not in messages:
            self.take_refusal(sent, answer)
            return
        user_message, reply = messages["user_message"], messages["assistant_message"]
        self.record.saw_answer(sent, user_message, reply, begun)
        if reply is None:
            self.record.violated("an answer without its reply", answer=answer.body)
            return
        self._remember(sent.conversation_id, reply["id"])
        self._check_status(answer, reply)

    def _check_status(self, answer: Answer, reply: Json) -> None:
        """The table of contract section 8.2; a failed replacement leaves a delivered text."""
        lawful = {
            200: ("delivered", "read"),
            504: ("pending", "streaming", "delivered", "read", "failed", "cancelled"),
            409: ("cancelled",),
            422: ("failed",),
            429: ("failed",),
            503: ("failed",),
        }
        is_replacement = reply["attempt"] and self.record.reply(reply).is_regenerated
        is_lawful = reply["status"] in lawful.get(answer.status, ()) or is_replacement
        self.record.require(is_lawful, "status and message disagree", status=answer.status, reply=reply)

    def take_refusal(self, sent: Sent, answer: Answer) -> None:
        """Nothing was stored, says an answer without messages."""
        is_gone = sent.conversation_id in self.record.doomed and answer.status == 404
        if answer.body["details"].get("service") == "database":
            sent.is_open = True  # the connection was lost, perhaps behind the COMMIT
        lawful = ("rate_limit_exceeded", "service_unavailable")
        self.record.require(is_gone or answer.error in lawful, "an unexpected refusal", answer=answer.body)

    def _remember(self, conversation: str, reply_id: str) -> None:
        if (conversation, reply_id) not in self.replies:
            self.replies.append((conversation, reply_id))
            del self.replies[:-MEMORY]

    # streams

    async def stream(self) -> None:
        await self._stream(self._keyed(await self.conversation()))

    async def _stream(self, sent: Sent, is_patient: bool = False) -> None:
        path = f"{CONVERSATIONS}/{sent.conversation_id}/messages/stream"
        begun = self.record.tick()
        reading = Reading(self.record)
        is_answered = False
        try:
            async with self.patience(is_patient):
                async with self._post_stream(path, self._body(sent)) as response:
                    if response.status != 200:
                        answer = Answer(response.status, response.headers, orjson.loads(await response.read()))
                        is_answered = True
                        self._check(answer, path)
                        self._take_answer(sent, answer, begun)
                        return
                    await self._read(reading, response, sent, begun)
                is_answered = True
        finally:
            sent.is_open |= not is_answered
            self._keep(sent.conversation_id, reading)

    def _post_stream(self, path: str, body: Json | None = None) -> Any:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=REQUEST_SECONDS)
        return self.session.post(f"{self.server.url}{path}", json=body, timeout=timeout)

    def _keep(self, conversation: str, reading: Reading) -> None:
        if reading.reply_id is not None:
            self._remember(conversation, reading.reply_id)
            self.readings.append((conversation, reading))
            del self.readings[:-MEMORY]

    async def _read(self, reading: Reading, response: aiohttp.ClientResponse, sent: Sent | None, begun: int) -> None:
        """To the end of the connection, or until the reader has had enough."""
        self.record.answers["200 stream"] += 1
        patience = self.rng.randint(1, 6) if self.rng.random() < 0.25 else None
        reading.connect()
        async for event, event_id, data in read_events(response):
            if event == "start" and sent is not None:
                self._take_start(sent, data, begun)
            reading.take(event, event_id, data)
            if event == "done":
                self.record.saw(data["assistant_message"], begun)
            if patience is not None:
                patience -= 1
                if not patience and reading.end is None:
                    response.close()
                    return
        self.record.require(reading.end, "a stream ended without done or error", reply=reading.reply_id)

    def _take_start(self, sent: Sent, data: Json, begun: int) -> None:
        self.record.saw_answer(sent, data["user_message"], None, begun)
        sent.reply_ids.add(data["assistant_message_id"])
        self.record.check_one(sent)
        self.record.started(data)

    async def resume(self) -> None:
        """Some reply again: from the place of an earlier reader, from a made-up place, or from the start."""
        way = self.rng.random()
        if way < 0.65 and self.readings:
            conversation, reading = self.rng.choice(self.readings)
            if reading.reply_id is None or reading.is_busy:
                return
            if self.rng.random() < 0.3:
                reading.forget()
            await self._resume(conversation, reading.reply_id, reading)
        elif self.replies:
            conversation, reply_id = self.rng.choice(self.replies)
            reading = Reading(self.record)
            await self._resume(
                conversation, reply_id, reading, wrong_id=self.rng.choice(("x", "99-1", "1-999999", None))
            )

    async def _resume(self, conversation: str, reply_id: str, reading: Reading, *, wrong_id: str | None = None) -> None:
        begun = self.record.tick()
        place = reading.last_event_id or wrong_id
        url = f"{self.server.url}{CONVERSATIONS}/{conversation}/messages/{reply_id}/stream"
        headers = {} if place is None else {"Last-Event-ID": place}
        reading.is_busy = True
        try:
            async with self.patience(), self.session.get(url, headers=headers) as response:
                if response.status == 200:
                    await self._read(reading, response, None, begun)
                    self._keep(conversation, reading)
                else:
                    answer = Answer(response.status, response.headers, orjson.loads(await response.read()))
                    self._check(answer, url)
                    is_lawful = answer.status in (503, 504) or conversation in self.record.doomed
                    self.record.require(is_lawful, "a reply cannot be read", answer=answer.body)
        finally:
            reading.is_busy = False

    # what else people do

    async def cancel(self) -> None:
        if not self.replies:
            return
        conversation, reply_id = self.rng.choice(self.replies[-4:])
        begun = self.record.tick()
        answer = await self.request("POST", f"{CONVERSATIONS}/{conversation}/messages/{reply_id}/cancel")
        if answer.status == 200:
            self.record.saw(answer.body, begun)
        else:
            is_lawful = answer.status == 503 or conversation in self.record.doomed
            self.record.require(is_lawful, "a reply cannot be stopped", answer=answer.body)

    async def regenerate(self) -> None:
        conversation = await self.conversation()
        newest = [reply for place, reply in self.replies if place == conversation][-1:]
        if not newest:
            return
        known = self.record.replies.get(newest[0])
        if known is not None:
            known.is_regenerated = True
        path = f"{CONVERSATIONS}/{conversation}/messages/{newest[0]}/regenerate"
        begun = self.record.tick()
        if self.rng.random() < 0.5:
            async with self.patience():
                answer = await self.request("POST", path)
            self._take_regenerated(answer, begun)
            return
        reading = Reading(self.record)
        async with self.patience(), self._post_stream(f"{path}?stream=true") as response:
            if response.status == 200:
                await self._read(reading, response, None, begun)
                self._keep(conversation, reading)
            else:
                answer = Answer(response.status, response.headers, orjson.loads(await response.read()))
                self._check(answer, path)
                self._take_regenerated(answer, begun)

    def _take_regenerated(self, answer: Answer, begun: int) -> None:
        messages = answer.body if answer.status == 200 else answer.body["details"]
        for name in ("user_message", "assistant_message"):
            if messages.get(name):
                self.record.saw(messages[name], begun)

    async def mark_read(self) -> None:
        conversation = await self.conversation()
        answer = await self.request("POST", f"{CONVERSATIONS}/{conversation}/read")
        if answer.status == 200:
            self.record.require(answer.body["unread_count"] == 0, "unread after reading", answer=answer.body)

    async def look_at_history(self) -> None:
        conversation = await self.conversation()
        begun = self.record.tick()
        query = {"limit": str(self.rng.randint(1, 200)), "order": self.rng.choice(("asc", "desc"))}
        if self.rng.random() < 0.5:
            query["include"] = "unfinished"
        answer = await self.request("GET", f"{CONVERSATIONS}/{conversation}/messages", query=query)
        if answer.status == 200:
            self.check_page(answer.body, query, begun, is_doomed=conversation in self.record.doomed)

    def check_page(self, page: Json, query: dict[str, str], begun: int, *, is_doomed: bool) -> None:
        messages: list[Json] = page["messages"]
        ordered = messages if query["order"] == "asc" else messages[::-1]
        for one, other in pairwise(ordered):
            is_rising = one["sequence"] < other["sequence"] and one["created_at"] < other["created_at"]
            self.record.require(is_rising, "a history out of order", one=one, other=other)
        if "include" not in query:
            for message in messages:
                is_finished = message["status"] in ("delivered", "read") or (
                    message["status"] in ("failed", "cancelled") and message["content"]
                )
                self.record.require(is_finished, "an unfinished message in the history", message=message)
        whole = len(messages) + (page["has_more"] and page["total"] - len(messages))
        self.record.require(whole == page["total"], "a history with a wrong total", page=page)
        if not is_doomed:
            self.record.saw_all(messages, begun)

    async def look_at_inbox(self) -> None:
        begun = self.record.tick()
        version = self.rng.choice(("v1", "v2"))
        answer = await self.request("GET", f"/api/{version}/chat/conversations", query={"limit": "100"})
        if answer.status != 200:
            return
        found: list[Json] = answer.body["conversations"]
        self.record.require(len(found) == answer.body["total"], "a list with a wrong total", answer=answer.body)
        for conversation in found:
            if conversation["id"] not in self.record.doomed:
                self.record.saw_all(conversation.get("recent_messages", []), begun)
