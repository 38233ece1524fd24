"""What is remembered of people, and forgotten when they say so.

The vendor finds one fact in every second message, always the same one, so that what must be remembered at the end is
known. Its value occurs in no other message.
"""

import re
from typing import TYPE_CHECKING

from tests.history.record import Forgotten, Json, Record
from tests.history.stored import Row, Stored
from tests.history.vendor import RandomVendor, fact_of

if TYPE_CHECKING:
    from tests.history.people import Person

CONVERSATIONS = "/api/v1/chat/conversations"
BOUND = re.compile(r'^- topic_\d: "([^"]+)"$', re.MULTILINE)


class Memories:
    """One person's view of what personas remember."""

    def __init__(self, person: "Person") -> None:
        self._person = person
        self._record = person.record
        self._rng = person.rng

    async def look_at_memories(self) -> None:
        await self._list(await self._person.conversation())

    async def forget(self) -> None:
        """One memory, now and then all of them."""
        conversation = await self._person.conversation()
        found = await self._list(conversation)
        if not found:
            return
        chosen = found if self._rng.random() < 0.2 else [self._rng.choice(found)]
        for memory in chosen:
            self._record.touched.add((conversation, memory["key"]))
        path = f"{CONVERSATIONS}/{conversation}/memories"
        if chosen is found:
            # What is added meanwhile may go too.
            self._record.touched.add((conversation, "*"))
        else:
            path += f"/{chosen[0]['key']}"
        answer = await self._person.request("DELETE", path)
        if answer.status == 200:
            tick = self._record.tick()
            self._record.forgotten += [Forgotten(conversation, memory["value"], tick) for memory in chosen]

    async def _list(self, conversation: str) -> list[Json]:
        begun = self._record.tick()
        answer = await self._person.request("GET", f"{CONVERSATIONS}/{conversation}/memories")
        if answer.status != 200:
            return []
        found: list[Json] = answer.body["memories"]
        keys = [memory["key"] for memory in found]
        self._record.require(answer.body["total"] == len(set(keys)) == len(keys), "wrong memories", answer=answer.body)
        gone = {fact.value for fact in self._record.forgotten if fact.is_before(conversation, begun)}
        for memory in found:
            self._record.require(memory["value"] not in gone, "a forgotten memory is there", memory=memory)
        return found


def check_memories(stored: Stored, record: Record) -> None:
    """Each comes from its message, the newest that speaks of it; what was forgotten is gone."""
    gone = {(fact.conversation_id, fact.value) for fact in record.forgotten}
    by_key: dict[tuple[str, str], Row] = {}
    for row in stored.memories:
        by_key[row.conversation_id, row.key] = row
        conversation, source = stored.conversations.get(row.conversation_id), stored.messages.get(row.source_message_id)
        record.require(conversation is not None, "a memory without its conversation", row=row)
        is_source = (
            source is not None
            and (source.conversation_id, source.seq, source.role) == (row.conversation_id, row.source_seq, "user")
            and fact_of(source.content) == (row.key, row.value)
        )
        record.require(is_source, "a memory without its message", row=row, source=source)
        record.require((row.conversation_id, row.value) not in gone, "a forgotten memory is stored", row=row)
    for conversation, history in stored.history.items():
        if conversation not in record.doomed and stored.conversations[conversation].influencer_id is not None:
            _check_newest(conversation, history, by_key, stored, record)


def _check_newest(
    conversation: str, history: list[Row], by_key: dict[tuple[str, str], Row], stored: Stored, record: Record
) -> None:
    newest: dict[str, Row] = {}
    for row in history:
        fact = fact_of(row.content) if row.role == "user" else None
        if fact is not None and stored.reply_to[row.id].status in ("delivered", "read"):
            newest[fact[0]] = row
    for key, row in newest.items():
        if (conversation, key) in record.touched or (conversation, "*") in record.touched:
            continue
        memory = by_key.get((conversation, key))
        is_kept = memory is not None and memory.source_seq >= row.seq
        record.require(is_kept, "a fact is not remembered, or an older one", message=row, memory=memory)


def check_recall(record: Record, vendor: RandomVendor) -> None:
    """No prompt has what was forgotten before its question was thought of, or what another person has said."""
    said = {sent.content: sent for sent in record.sent}
    for call in vendor.calls:
        sent = said.get(call.question)
        if sent is None:
            continue
        gone = {fact.value for fact in record.forgotten if fact.is_before(sent.conversation_id, sent.begun)}
        for value in BOUND.findall(call.system):
            record.require(value not in gone, "a forgotten memory in a prompt", value=value, call=call)
            is_own = value.partition("/")[0] == sent.content.partition("/")[0]
            record.require(is_own, "another person's memory in a prompt", value=value, call=call)
            record.operations["recalled memory"] += 1
