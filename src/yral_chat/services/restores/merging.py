"""The unit that puts messages back: with what they show, and with what is counted of them."""

from collections import Counter, defaultdict

import msgspec

from yral_chat.core.errors import Conflict, ConversationNotFound
from yral_chat.core.objects import RUNNING
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation
from yral_chat.db.repositories.messages import is_listed
from yral_chat.db.repositories.participants import Side
from yral_chat.db.repositories.restores import Copied, Head
from yral_chat.services.erasing import NO_PERSONA
from yral_chat.services.restores.erased import Erasures
from yral_chat.services.restores.placing import is_free
from yral_chat.services.restores.records import Then
from yral_chat.services.turns.accepting import show_last_message
from yral_chat.services.usage.recording import key_of


class Shown(msgspec.Struct, frozen=True):
    """Messages that are missing, in their order, and the files that they show."""

    messages: list[Copied]
    uses: list[Copied]
    files: list[Copied]


class ChangedMeanwhile(Conflict):
    message = "The conversation has changed while it came back. Do it again: what has come back is not doubled"


def put_back(uow: UnitOfWork, then: Then, conversation_id: str, shown: Shown, erasures: Erasures, time: int) -> int:
    """Adds the messages; returns how many. `time` is when what was being written counts as failed.

    Raises ConversationNotFound, AccountErased, ChangedMeanwhile.
    """
    erasures.check(uow, *then.present)
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None:
        raise ConversationNotFound
    rows = [recovered(row, time) | {"conversation_id": conversation_id} for row in shown.messages]
    rows = _without_second_replies(uow, rows)
    if not rows:
        return 0
    if not is_free(uow, conversation_id, [head_of(row) for row in rows]):
        raise ChangedMeanwhile
    _free_keys(uow, conversation_id, rows)
    if conversation.influencer_id is None:
        _count_for_people(uow, conversation, rows)
    uow.restores.add_messages(rows)
    if conversation.influencer_id is not None:
        _count_for_persona(uow, conversation, rows)
    _use_files(uow, conversation_id, shown)
    _count(uow, conversation, rows)
    return len(rows)


def head_of(row: Copied) -> Head:
    return Head(row["id"], row["seq"], row["created_at"], row["role"], row["sender_id"])


def placed(row: Copied, place: Head) -> Copied:
    """As it will stand here: with another number, or some milliseconds later."""
    completed_at = row["completed_at"]
    if completed_at is not None:
        completed_at = max(completed_at, place.created_at)
    return row | {"seq": place.seq, "created_at": place.created_at, "completed_at": completed_at}


def recovered(row: Copied, time: int) -> Copied:
    """As a start leaves it that cannot go on with it: what was being written has failed, and may be asked for again."""
    if row["status"] not in RUNNING:
        return row
    return row | {
        "status": "failed",
        "error_code": "TRANSIENT",
        "is_listed": is_listed("assistant", "failed", row["content"]),
        "completed_at": max(time, row["created_at"]),
    }


def _without_second_replies(uow: UnitOfWork, rows: list[Copied]) -> list[Copied]:
    """A question that was answered anew after a restore to an earlier time keeps that answer."""
    questions = [row["reply_to"] for row in rows if row["reply_to"] is not None]
    answered = uow.restores.list_answered(questions) if questions else set()
    return [row for row in rows if row["reply_to"] not in answered]


def _free_keys(uow: UnitOfWork, conversation_id: str, rows: list[Copied]) -> None:
    """An idempotency key that was used again since belongs to the later message."""
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["client_message_id"] is not None:
            keys[row["sender_id"]].append(row["client_message_id"])
    for sender, used in keys.items():
        taken = uow.restores.list_taken_keys(conversation_id, sender, used)
        for row in rows:
            if row["sender_id"] == sender and row["client_message_id"] in taken:
                row["client_message_id"] = None


def _count_for_people(uow: UnitOfWork, conversation: StoredConversation, rows: list[Copied]) -> None:
    """What each of the two has deleted stays so, and what they had read up to there is read."""
    for person, side in uow.participants.list_sides(conversation.id).items():
        cleared = sum(row["is_listed"] and row["seq"] <= side.cleared_seq for row in rows)
        unread = 0 if side.is_hidden else sum(_is_unread(row, side) for row in rows if row["sender_id"] != person)
        if cleared or unread:
            changed = msgspec.structs.replace(
                side, cleared_count=side.cleared_count + cleared, unread_count=side.unread_count + unread
            )
            uow.participants.save(conversation.id, changed)


def _is_unread(row: Copied, side: Side) -> bool:
    """Marks the row as read where its reader has read further."""
    if row["status"] != "delivered" or row["seq"] <= side.cleared_seq:
        return False
    if row["seq"] <= side.read_seq:
        row["status"] = "read"
        return False
    return True


def _count_for_persona(uow: UnitOfWork, conversation: StoredConversation, rows: list[Copied]) -> None:
    unread = Counter(row["role"] for row in rows if row["status"] == "delivered")
    for side, role in ((conversation.user_id, "assistant"), (conversation.influencer_id or "", "user")):
        if unread[role]:
            uow.conversations.touch(conversation.id, conversation.updated_at, reader=side, unread=unread[role])


def _use_files(uow: UnitOfWork, conversation_id: str, shown: Shown) -> None:
    uow.restores.add_files([file | {"is_stored": True, "is_used": True} for file in shown.files])
    added = {row["id"] for row in shown.messages}
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for use in shown.uses:
        keys[use["message_id"]].append(use["key"])
    for message_id, used in keys.items():
        if message_id in added:
            uow.media.use(used, message_id, conversation_id)


def _count(uow: UnitOfWork, conversation: StoredConversation, rows: list[Copied]) -> None:
    """How many there are now; and of all time, as far as it does not know them any more."""
    banners = sum(row["role"] == "system" for row in rows)
    listed = sum(row["is_listed"] and row["role"] != "system" for row in rows)
    uow.conversations.update(
        conversation.id,
        message_count=conversation.message_count + listed,
        banner_count=conversation.banner_count + banners,
    )
    uncounted = _count_uncounted(uow, conversation, rows)
    uow.counters.add(conversation.influencer_id or NO_PERSONA, user_messages=uncounted, all_messages=listed)
    show_last_message(uow, conversation.id)


def _count_uncounted(uow: UnitOfWork, conversation: StoredConversation, rows: list[Copied]) -> int:
    """User messages that this database has never counted, because it was restored to a time before them.

    What was counted once stays counted when it is deleted; and that a model was asked is never deleted.
    """
    replies = [row for row in rows if row["reply_to"] is not None]
    if conversation.influencer_id is None or not replies:
        return 0
    asked = {row["id"]: [f"{key_of(row['id'], n)}:0" for n in range(1, row["last_attempt"] + 1)] for row in replies}
    known = uow.usage.list_known([event for events in asked.values() for event in events])
    return sum(known.isdisjoint(events) for events in asked.values())
