"""What people have with each other: they open, write, repeat themselves, read, delete, and look at their inbox.

A pair is `lasting` (neither deletes), `one_sided` (one of the two deletes, and sees it again when the other writes) or
`passing` (both delete, now and then for good). Of what is said in a passing one nothing is claimed.
"""

import uuid
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from tests.history.record import Sent

if TYPE_CHECKING:
    from tests.history.people import Person

Json = dict[str, Any]
Kind = Literal["lasting", "one_sided", "passing"]

HUMAN = "/api/v1/chat/human/conversations"
CONVERSATIONS = "/api/v1/chat/conversations"
MEMORY = 12


class Talks:
    """One person's side of the conversations with the others. `friends`: by name, (kind, whether this side deletes)."""

    def __init__(self, person: "Person") -> None:
        self._person = person
        self._record = person.record
        self._rng = person.rng
        self.friends: dict[str, tuple[Kind, bool]] = {}
        self._open: dict[str, str] = {}  # name → conversation
        self._sent: list[tuple[str, Sent]] = []  # (name, what was said)

    async def talk(self) -> None:
        name = self._somebody()
        conversation = self._open.get(name) or await self._meet(name)
        sent = self._person.new_sent(conversation, str(uuid.UUID(int=self._rng.getrandbits(128))))
        self._sent.append((name, sent))
        del self._sent[:-MEMORY]
        await self._write(name, sent)

    async def talk_again(self) -> None:
        """The same message with the same key, whatever became of it."""
        if self._sent:
            await self._write(*self._rng.choice(self._sent))

    async def read_talk(self) -> None:
        name = self._somebody()
        if name not in self._open:
            return
        answer = await self._person.request("POST", f"{CONVERSATIONS}/{self._open[name]}/read")
        if answer.status == 200:
            self._record.require(answer.body["unread_count"] == 0, "unread after reading", answer=answer.body)
        else:
            self._require_gone(name, answer)

    async def delete_talk(self) -> None:
        deletable = [name for name, (_, may_delete) in self.friends.items() if may_delete and name in self._open]
        if not deletable:
            return
        name = self._rng.choice(deletable)
        conversation = self._open.pop(name)
        self._person.has_deleted = True
        self._record.forgetful.add(self._person.id)
        if self.friends[name][0] == "passing":  # with the second one it goes for good, and its events with it
            self._record.forgetful.add(name)
        await self._person.request("DELETE", f"{CONVERSATIONS}/{conversation}")

    async def look_at_talk(self) -> None:
        name = self._somebody()
        conversation = self._open.get(name)
        if conversation is None:
            return
        begun = self._record.tick()
        query = {"limit": "200", "order": "desc"}
        answer = await self._person.request("GET", f"{CONVERSATIONS}/{conversation}/messages", query=query)
        if answer.status == 200:
            is_doomed = conversation in self._record.doomed
            self._person.check_page(answer.body, query, begun, is_doomed=is_doomed)
        else:
            self._require_gone(name, answer)

    async def look_at_everything(self) -> None:
        """The unified inbox."""
        answer = await self._person.request("GET", "/api/v3/chat/conversations", query={"limit": "100"})
        if answer.status == 200:
            self.check_inbox(answer.body)

    def check_inbox(self, page: Json) -> None:
        require, found = self._record.require, page["conversations"]
        require(len(found) == page["total"] == len({entry["id"] for entry in found}), "a wrong inbox", page=page)
        unread = sum(entry["unread_count"] for entry in found)
        require(page["unread_total"] == unread, "a wrong unread_total", has=page["unread_total"], is_=unread)
        for one, other in pairwise(found):
            require(one["updated_at"] >= other["updated_at"], "an inbox out of order", one=one, other=other)

    def _somebody(self) -> str:
        return self._rng.choice(sorted(self.friends))

    async def _meet(self, name: str) -> str:
        from tests.history.people import Refused

        answer = await self._person.request("POST", HUMAN, {"participant_id": name})
        if answer.status == 503:
            raise Refused
        conversation: str = answer.body["id"]
        kind, _ = self.friends[name]
        if kind == "passing":
            self._record.doomed.add(conversation)
        elif kind == "lasting":
            self._record.opened[conversation] = self._person.id
            known = self._record.pairs.setdefault(frozenset((self._person.id, name)), conversation)
            self._record.require(known == conversation, "two conversations of one pair", one=known, other=conversation)
        self._open[name] = conversation
        return conversation

    async def _write(self, name: str, sent: Sent) -> None:
        begun = self._record.tick()
        body = {"message_type": "text", "content": sent.content, "client_message_id": sent.key}
        is_answered = False
        try:
            async with self._person.patience():
                answer = await self._person.request("POST", f"{HUMAN}/{sent.conversation_id}/messages", body)
            is_answered = True
        finally:
            sent.is_open |= not is_answered
        if answer.status == 200:
            self._record.require(answer.body["assistant_message"] is None, "an answer to a person", answer=answer.body)
            self._record.saw_answer(sent, answer.body["user_message"], None, begun)
        elif answer.status == 404:
            self._require_gone(name, answer)
        else:
            self._person.take_refusal(sent, answer)

    def _require_gone(self, name: str, answer: Any) -> None:
        """Not there is only what this side deletes, or both."""
        kind, may_delete = self.friends[name]
        is_lawful = answer.status == 503 or (answer.status == 404 and (may_delete or kind == "passing"))
        self._record.require(is_lawful, "a talk is not there", answer=answer.body)
        if answer.status == 404 and kind == "passing":
            self._open.pop(name, None)


def acquaint(people: "list[Person]") -> None:
    """Everybody knows the next one for good; some know one more in a less lasting way."""
    count = len(people)
    for number, person in enumerate(people):
        _pair(person, people[(number + 1) % count], "lasting")
    for number in range(count // 2):
        _pair(people[number], people[number + count // 2], "one_sided")
    for number in range(2):
        _pair(people[number], people[number + 2], "passing")


def _pair(one: "Person", other: "Person", kind: Kind) -> None:
    one.talks.friends[other.id] = (kind, kind != "lasting")
    other.talks.friends[one.id] = (kind, kind == "passing")
