"""What the clients of one run saw, and the contradictions in it.

Whatever a client was told counts as acknowledged. Some contradictions show at once (two ids for one key, a delivered
reply that is pending again, a token out of place); the rest is held against the database at the end.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import count
from typing import Any, NamedTuple

Json = dict[str, Any]

FINAL = ("delivered", "read", "failed", "cancelled")
READABLE = ("delivered", "read")
# What never changes about a message, whoever shows it.
FIXED = ("conversation_id", "role", "message_type", "created_at", "sequence", "reply_to", "origin", "client_message_id")
# What an attempt that has ended left behind. `read` is another way to be delivered.
ENDED = ("content", "token_count", "completed_at", "error")


class Forgotten(NamedTuple):
    """A memory whose deletion was answered at this tick."""

    conversation_id: str
    value: str
    tick: int

    def is_before(self, conversation_id: str, tick: int) -> bool:
        return self.conversation_id == conversation_id and self.tick < tick


class Sent:
    """One thing that somebody wanted to say, however often it was sent, first at `begun`. `key` None: without one."""

    def __init__(self, conversation_id: str, content: str, key: str | None, begun: int) -> None:
        self.begun = begun
        self.conversation_id = conversation_id
        self.content = content
        self.key = key
        self.ids: set[str] = set()  # of the user message, as answered
        self.reply_ids: set[str] = set()
        self.is_open = False  # some request ended without an answer: it may have been stored or not


class Reply:
    """One model reply, as seen from outside."""

    def __init__(self, reply_id: str) -> None:
        self.id = reply_id
        self.ended: dict[int, Json] = {}  # by attempt: the first sight of its end
        self.ended_since: dict[int, int] = {}
        self.texts: dict[int, str] = {}  # by attempt: the most that any stream has shown
        self.deltas: list[tuple[int, int, str]] = []  # (attempt, offset, text) from sockets
        self.stops: dict[int, tuple[str, str]] = {}  # by attempt: (code, text) where a stream said "error"
        self.attempt_since: dict[int, int] = {}  # shown attempt → tick of the first sight
        self.delivered_since: int | None = None
        self.read_since: dict[int, int] = {}
        self.is_regenerated = False  # somebody asked for it


class Record:
    """See the module. `violations` are sentences for people."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.operations: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.sent: list[Sent] = []
        self.messages: dict[str, Json] = {}  # id → first sight
        self.replies: dict[str, Reply] = {}
        self.places: dict[tuple[str, int], str] = {}  # (conversation, sequence) → id
        self.doomed: set[str] = set()  # conversations that somebody asked to delete
        self.deleted: set[str] = set()  # and was told that it is done
        self.opened: dict[str, str] = {}  # conversation → user
        self.pairs: dict[frozenset[str], str] = {}  # two people → their conversation
        self.forgetful: set[str] = set()  # people with whose conversations events were deleted
        self.forgotten: list[Forgotten] = []
        self.touched: set[tuple[str, str]] = set()  # (conversation, key of a memory, "*" for all) that somebody deleted
        self.durable: dict[tuple[str, int], Json] = {}  # (user, seq) → frame
        self._ticks = count(1)

    def tick(self) -> int:
        """The order of what happens here: what ended before something else began has the smaller number."""
        return next(self._ticks)

    def violated(self, rule: str, **facts: Any) -> None:
        self.violations.append(f"{rule}: " + ", ".join(f"{name}={value!r}" for name, value in facts.items()))

    def require(self, condition: object, rule: str, **facts: Any) -> None:
        if not condition:
            self.violated(rule, **facts)

    # what a message looks like

    def saw_all(self, messages: Iterable[Json], begun: int) -> None:
        for message in messages:
            self.saw(message, begun)

    def saw(self, message: Json, begun: int | None) -> None:
        """A stored message, shown by an answer to a request that began at `begun`; None: by an event."""
        first = self.messages.setdefault(message["id"], message)
        for name in FIXED:
            self.require(first[name] == message[name], "a message changed its " + name, was=first, is_=message)
        place = (message["conversation_id"], message["sequence"])
        self.require(
            self.places.setdefault(place, message["id"]) == message["id"], "two messages share a sequence", at=place
        )
        if message["role"] == "user":
            self.require(first["content"] == message["content"], "a user message changed", was=first, is_=message)
            self.require(message["status"] in READABLE, "a user message is not delivered", message=message)
        elif message["origin"] == "model":
            self._saw_reply(message, begun)

    def reply(self, message: Json) -> Reply:
        return self.replies.setdefault(message["id"], Reply(message["id"]))

    def _saw_reply(self, message: Json, begun: int | None) -> None:
        reply, attempt, status = self.reply(message), message["attempt"], message["status"]
        if status in FINAL:
            self._saw_end(reply, message)
        if begun is None:
            return
        if status not in FINAL:
            is_over = reply.ended_since.get(attempt, begun) < begun
            self.require(not is_over, "an attempt that ended goes on", message=message)
        newest = max((known for known, tick in reply.attempt_since.items() if tick < begun), default=0)
        self.require(attempt >= newest, "an older attempt came back", message=message, known=newest)
        if reply.delivered_since is not None and reply.delivered_since < begun:
            self.require(status in READABLE, "a delivered reply was lost", message=message)
        if reply.read_since.get(attempt, begun) < begun:
            self.require(status == "read", "a read reply is unread again", message=message)
        reply.attempt_since.setdefault(attempt, self.tick())
        if status in READABLE and reply.delivered_since is None:
            reply.delivered_since = self.tick()
        if status in FINAL:
            reply.ended_since.setdefault(attempt, self.tick())
        if status == "read":
            reply.read_since.setdefault(attempt, self.tick())

    def _saw_end(self, reply: Reply, message: Json) -> None:
        attempt = message["attempt"]
        first = reply.ended.setdefault(attempt, message)
        for name in ENDED:
            self.require(
                first[name] == message[name], f"an attempt ended twice, with another {name}", was=first, is_=message
            )
        is_same = (first["status"] in READABLE) == (message["status"] in READABLE)
        self.require(is_same, "an attempt ended twice", was=first, is_=message)
        if message["status"] in READABLE:
            stop = reply.stops.get(attempt)
            self.require(stop is None, "a stream failed, the reply is delivered", stop=stop, message=message)

    # what was sent

    def saw_answer(self, sent: Sent, user_message: Json, reply: Json | None, begun: int) -> None:
        """Both messages of an answer to `sent`."""
        self.saw(user_message, begun)
        sent.ids.add(user_message["id"])
        self.require(user_message["content"] == sent.content, "another content", sent=sent.content, is_=user_message)
        self.require(user_message["client_message_id"] == sent.key, "another key", sent=sent.key, is_=user_message)
        if reply is not None:
            self.saw(reply, begun)
            sent.reply_ids.add(reply["id"])
            self.require(reply["reply_to"] == user_message["id"], "a reply to something else", reply=reply)
        self.check_one(sent)

    def check_one(self, sent: Sent) -> None:
        self.require(len(sent.ids) <= 1, "one message, two ids", content=sent.content, key=sent.key, ids=sent.ids)
        self.require(len(sent.reply_ids) <= 1, "one message, two replies", key=sent.key, ids=sent.reply_ids)

    # what streams and sockets say

    def started(self, data: Json) -> None:
        """The first event of a stream names a reply that nobody may have seen as a message yet."""
        reply_id = data["assistant_message_id"]
        self.replies.setdefault(reply_id, Reply(reply_id))

    def saw_text(self, reply_id: str, attempt: int, text: str) -> None:
        """A reader has joined `text` from the tokens of this attempt."""
        reply = self.replies.get(reply_id)
        if reply is None:
            return
        known = reply.texts.get(attempt, "")
        longer, shorter = (text, known) if len(text) > len(known) else (known, text)
        self.require(longer.startswith(shorter), "two readers of an attempt saw different texts", one=known, other=text)
        reply.texts[attempt] = longer

    def saw_stop(self, reply_id: str, attempt: int, code: str, text: str) -> None:
        """A stream ended with an error that was the end of the attempt."""
        reply = self.replies.get(reply_id)
        if reply is None:
            return
        first = reply.stops.setdefault(attempt, (code, text))
        self.require(first[0] == code, "an attempt failed in two ways", was=first, is_=(code, text))
        ended = reply.ended.get(attempt)
        if ended is not None:
            self.require(ended["status"] not in READABLE, "a stream failed, the reply is delivered", reply=ended)

    def saw_durable(self, user_id: str, frame: Json) -> None:
        first = self.durable.setdefault((user_id, frame["seq"]), frame)
        self.require(first == frame, "two events share a number", user=user_id, was=first, is_=frame)
