"""Units of work that erase an account bit by bit: each is short, may be repeated, and says whether it found anything.

So nobody waits long for the database, and an erasure that a crash has cut off goes on where it was.
"""

from typing import Any

import msgspec
from typing_extensions import TypedDict

from yral_chat.core.clock import day_of, now
from yral_chat.core.ids import pseudonym_of
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation, last_message_columns
from yral_chat.services.accounts.erasure_log import Erasure
from yral_chat.services.erasing import NO_PERSONA, erase_conversation, name_of_deleted
from yral_chat.services.media.service import remove_files
from yral_chat.services.usage import RECORD_JOB
from yral_chat.services.usage.recording import user_day

# Rows in one unit of work: it holds SQLite's only writer for some milliseconds.
CHUNK = 500
INFLUENCERS = 20  # they may carry a card of megabytes each


class Deleted(TypedDict):
    """How many of each have gone."""

    conversations: int
    messages: int
    memories: int
    media: int
    influencers: int


class Step(msgspec.Struct, frozen=True):
    """What one unit has deleted, and whether it is to be repeated."""

    has_more: bool = False
    conversations: int = 0
    messages: int = 0
    memories: int = 0
    media: int = 0
    influencer_ids: tuple[str, ...] = ()


def total(steps: list[Step]) -> Deleted:
    return {
        "conversations": sum(step.conversations for step in steps),
        "messages": sum(step.messages for step in steps),
        "memories": sum(step.memories for step in steps),
        "media": sum(step.media for step in steps),
        "influencers": sum(len(step.influencer_ids) for step in steps),
    }


def nobody_of(erasure: Erasure) -> str:
    """Who stands on an erased person's side of a human chat: nobody who could ever sign in, and not the person."""
    return f"deleted-{erasure.id}"


def thin_conversation(uow: UnitOfWork, conversation_id: str) -> Step:
    """Deletes some messages of an AI conversation, and with the last of them the conversation."""
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None:
        return Step()
    uow.accounts.delete_turns(conversation_id)
    if uow.accounts.delete_messages(conversation_id, CHUNK) == CHUNK:
        return Step(has_more=True)
    memories = uow.memories.delete_all(conversation_id)
    erase_conversation(uow, conversation)
    uow.conversations.count_for(conversation.user_id, ai=-1)
    return Step(conversations=1, messages=conversation.message_count, memories=memories)


def thin_human_chat(uow: UnitOfWork, conversation_id: str, user_id: str, nobody: str) -> Step:
    """Deletes some of the person's messages; with the last of them the person leaves."""
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None or user_id not in (conversation.user_id, conversation.other_user_id):
        return Step()
    other_id = conversation.other_of(user_id)
    other = uow.participants.list_sides(conversation_id)[other_id]
    seqs = uow.accounts.delete_messages_by(conversation_id, user_id, CHUNK)
    uow.conversations.update(conversation_id, message_count=conversation.message_count - len(seqs))
    uow.counters.add(NO_PERSONA, all_messages=-len(seqs))
    uow.accounts.uncount(conversation_id, other_id, sum(seq <= other.cleared_seq for seq in seqs))
    if len(seqs) == CHUNK:
        return Step(has_more=True, messages=len(seqs))
    uow.events.delete_of_conversation(conversation_id)
    if other.is_hidden:
        erase_conversation(uow, uow.conversations.find_locked(conversation_id) or conversation)
    else:
        uow.conversations.update(conversation_id, **_last_message(uow, conversation))
        uow.accounts.leave(conversation_id, user_id, nobody)
    return Step(conversations=1, messages=len(seqs))


def _last_message(uow: UnitOfWork, conversation: StoredConversation) -> dict[str, Any]:
    """The columns that show the newest message that is left."""
    stored = uow.messages.find_last_final(conversation.id)
    if stored is not None:
        return last_message_columns(stored.message, stored.created_at)
    names = ("id", "seq_shown", "content", "role", "type", "created_at", "status", "sender_id")
    return {f"last_{name}": None for name in names}


def drop_files(uow: UnitOfWork, user_id: str) -> Step:
    """Forgets some files; jobs remove them."""
    keys = uow.accounts.delete_files(user_id, CHUNK)
    remove_files(uow, keys)
    return Step(has_more=len(keys) == CHUNK, media=len(keys))


def erase_influencers(uow: UnitOfWork, user_id: str) -> Step:
    """Some of the person's influencers."""
    found = [influencer_id for _, influencer_id in uow.accounts.list_owned(user_id, (0, ""), INFLUENCERS)]
    erased: list[str] = []
    for influencer_id in found:
        if uow.accounts.unname_in_events(influencer_id, CHUNK) == CHUNK:
            return Step(has_more=True, influencer_ids=tuple(erased))
        uow.accounts.erase_influencer(influencer_id, name_of_deleted(influencer_id), now())
        erased.append(influencer_id)
    return Step(has_more=len(found) == INFLUENCERS, influencer_ids=tuple(erased))


def anonymise_usage(uow: UnitOfWork, user_id: str) -> Step:
    """What was used stays counted, by nobody."""
    return Step(has_more=uow.accounts.anonymise_usage(user_id, CHUNK) == CHUNK)


def finish(uow: UnitOfWork, erasure: Erasure, deleted: Deleted, *, has_quotas: bool = False) -> None:
    """The last unit: what is little goes at once, the job too, and the audit has its row.

    `has_quotas`: what was used today stays used up, under a pseudonym, or an erasure would be a new quota.
    """
    # What turns have cost that ended just now is still on its way to usage_events.
    uow.accounts.rewrite_jobs(erasure.user_id, {"user_id": "", "conversation_id": ""}, kept=RECORD_JOB)
    uow.accounts.anonymise_usage(erasure.user_id, CHUNK)
    uow.accounts.finish(erasure.user_id, pseudonym_of(erasure.user_id), erasure.id, deleted, now())
    # A conversation that began during the erasure is the first of the account that comes after.
    uow.conversations.count_anew(erasure.user_id)
    uow.usage.anonymise_open(erasure.user_id)
    today = day_of(now())
    if has_quotas:
        uow.usage.forget_days(user_day(erasure.user_id, today))
    else:
        uow.usage.delete_days(user_day(erasure.user_id, today + 1))
