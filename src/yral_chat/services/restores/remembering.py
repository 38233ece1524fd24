"""The last unit of a conversation: what was remembered of it, and the pictures that were asked for."""

from typing import NamedTuple

import msgspec

from yral_chat.core.errors import ConversationNotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.memories import MAX_PER_CONVERSATION, StoredMemory, Summary
from yral_chat.db.repositories.restores import Copied
from yral_chat.services.restores.comparing import Overview
from yral_chat.services.restores.erased import Erasures
from yral_chat.services.restores.records import Then


class Remembered(NamedTuple):
    """Memories, which of them are to stay forgotten through which message, and the summary."""

    memories: list[StoredMemory]
    forgotten: list[tuple[str, int]]
    summary: Summary


def read_memories(uow: UnitOfWork, conversation_id: str) -> Remembered:
    """On the copy."""
    return Remembered(
        uow.memories.list_all(conversation_id),
        uow.restores.list_forgotten(conversation_id),
        uow.memories.find_summary(conversation_id),
    )


def remember_again(
    uow: UnitOfWork,
    then: Then,
    conversation_id: str,
    remembered: Remembered,
    overview: Overview,
    erasures: Erasures,
    time: int,
) -> int:
    """Memories that are missing come back; what the person has deleted since, or said otherwise, stays as it is.

    Nothing comes back to somebody who has switched memories off. Returns how many. Raises ConversationNotFound,
    AccountErased.
    """
    erasures.check(uow, *then.present)
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None:
        raise ConversationNotFound
    remembered = _renumbered(remembered, overview, conversation.last_seq)
    forgotten = dict(uow.restores.list_forgotten(conversation_id))
    for key, seq in remembered.forgotten:
        if seq > forgotten.get(key, 0):
            uow.memories.forget(conversation_id, key, seq)
    if not uow.settings.find(conversation.user_id).memories_enabled:
        return 0
    if remembered.summary.text and not uow.memories.find_summary(conversation_id).text:
        uow.memories.save_summary(conversation_id, remembered.summary, time)
    return _add_missing(uow, conversation_id, remembered.memories)


def _renumbered(remembered: Remembered, overview: Overview, last_seq: int) -> Remembered:
    """With the numbers that messages have here."""

    def number(seq: int) -> int:
        return min(overview.number_of(seq), last_seq)

    replace = msgspec.structs.replace
    return Remembered(
        [replace(memory, source_seq=number(memory.source_seq)) for memory in remembered.memories],
        [(key, number(seq)) for key, seq in remembered.forgotten],
        replace(remembered.summary, through_seq=number(remembered.summary.through_seq)),
    )


def _add_missing(uow: UnitOfWork, conversation_id: str, memories: list[StoredMemory]) -> int:
    """Within what one conversation may have: the surest first, and nothing that is there makes room."""
    known = {memory.key for memory in uow.memories.list_all(conversation_id)}
    added = 0
    for memory in sorted(memories, key=lambda memory: (-memory.confidence, memory.key)):
        is_forgotten = uow.memories.forgotten_through(conversation_id, memory.key) >= memory.source_seq
        if memory.key in known or is_forgotten or len(known) + added >= MAX_PER_CONVERSATION:
            continue
        uow.memories.save(conversation_id, memory)
        added += 1
    return added


def ask_again(uow: UnitOfWork, conversation_id: str, pictures: list[Copied], time: int) -> None:
    """Pictures that were asked for are known again; one that was being made has failed."""
    if uow.conversations.find_locked(conversation_id) is None:
        raise ConversationNotFound
    for picture in pictures:
        failed = {"status": "failed", "error_code": "TRANSIENT", "completed_at": time}
        changes = failed if picture["status"] == "running" else {}
        uow.restores.add_picture(picture | {"conversation_id": conversation_id} | changes)
