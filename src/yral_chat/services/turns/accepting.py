"""Units of work that begin a turn, or find the one that a repeated request belongs to (contract sections 8.2–8.4)."""

from typing import Any

import msgspec
import orjson

from yral_chat.core.clock import MILLISECOND, now
from yral_chat.core.errors import (
    Conflict,
    ConversationNotFound,
    IdempotencyConflict,
    InfluencerDiscontinued,
    Invalid,
    MediaForbidden,
    MessageNotFound,
    NotStreamable,
    NotYourConversation,
    TooManyTurns,
)
from yral_chat.core.ids import new_id
from yral_chat.core.objects import FINAL_READABLE, VOICE_MESSAGE, Message, is_external
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation, last_message_columns
from yral_chat.db.repositories.media import MediaKind, MediaObject
from yral_chat.db.repositories.messages import StoredMessage
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.services.turns.records import Accepted, Limits, NewMessage


def accept(
    uow: UnitOfWork,
    user_id: str,
    conversation_id: str,
    message: NewMessage,
    limits: Limits,
    owner: str,
    handed_over: frozenset[str],
) -> Accepted:
    """Stores the message with its pending reply and turn; or finds the turn that this request repeats.

    `handed_over` are replies that were received, but are not yet marked so in their row. Raises NotStreamable for a
    human chat: see services/people.py.
    """
    conversation = open_for_participant(uow, conversation_id, user_id, is_locked=True)
    if conversation.influencer_id is None:
        raise NotStreamable
    earlier = _find_earlier(uow, conversation, user_id, message, limits, handed_over)
    if earlier is not None:
        return _repeat(uow, conversation, earlier, limits, owner)
    check_open(conversation)
    check_limits(uow, conversation, limits)
    return _begin(uow, conversation, with_stored_media(uow, user_id, message), limits, owner)


def accept_regeneration(
    uow: UnitOfWork, user_id: str, conversation_id: str, message_id: str, limits: Limits, owner: str
) -> Accepted:
    """Begins the next attempt of the newest model reply."""
    conversation = open_for_user(uow, conversation_id, user_id, is_locked=True)
    reply = uow.messages.find(conversation_id, message_id)
    if reply is None:
        raise MessageNotFound
    check_open(conversation)
    newest = uow.messages.find_newest_model_reply(conversation_id)
    if newest is None or newest.message["id"] != message_id:
        raise Conflict("Only the newest reply can be regenerated")
    if uow.messages.has_user_message_after(conversation_id, reply.message["sequence"]):
        raise Conflict("Only the newest reply can be regenerated")
    if uow.turns.find_next_reply(conversation_id) is not None:
        raise Conflict("A reply is being written")
    check_limits(uow, conversation, limits)
    return _run_again(uow, conversation, reply, limits, owner, is_regeneration=True)


def open_for_participant(
    uow: UnitOfWork, conversation_id: str, user_id: str, *, is_locked: bool = False
) -> StoredConversation:
    """A conversation for its user, or for one of its two people. Raises ConversationNotFound, NotYourConversation."""
    conversation = _find(uow, conversation_id, is_locked=is_locked)
    _check_participant(uow, conversation, user_id)
    return conversation


def _check_participant(uow: UnitOfWork, conversation: StoredConversation, user_id: str) -> None:
    if user_id not in (conversation.user_id, conversation.other_user_id):
        raise NotYourConversation
    if conversation.influencer_id is None:
        side = uow.participants.find_side(conversation.id, user_id)
        if side is None or side.is_hidden:
            raise ConversationNotFound  # what one of two people has deleted is gone for them


def open_for_user(
    uow: UnitOfWork, conversation_id: str, user_id: str, *, is_locked: bool = False
) -> StoredConversation:
    """The user's own conversation with a persona. Raises as `open_for_participant`, Conflict for a human chat."""
    conversation = open_for_participant(uow, conversation_id, user_id, is_locked=is_locked)
    if conversation.influencer_id is None:
        raise Conflict("There is no persona in a conversation between people")
    return conversation


def open_for_reader(
    uow: UnitOfWork, conversation_id: str, reader_id: str, *, is_locked: bool = False
) -> StoredConversation:
    """A conversation for its participants or for the owner of its bot. Raises as `open_for_participant`."""
    conversation = _find(uow, conversation_id, is_locked=is_locked)
    if reader_id != conversation.owner_id:
        _check_participant(uow, conversation, reader_id)
    return conversation


def _find(uow: UnitOfWork, conversation_id: str, *, is_locked: bool) -> StoredConversation:
    find = uow.conversations.find_locked if is_locked else uow.conversations.find
    conversation = find(conversation_id)
    if conversation is None:
        raise ConversationNotFound
    return conversation


def with_stored_media(uow: UnitOfWork, user_id: str, message: NewMessage) -> NewMessage:
    """`message`, with what is known of its recording. Raises MediaForbidden for a file that is not the sender's, or
    is unknown; Invalid for one of the other kind."""
    for number, reference in enumerate(message.images):
        if not is_external(reference):
            _find_own(uow, user_id, reference, "image", ["body", "media_urls", number])
    if message.audio is None or is_external(message.audio):
        return message
    recording = _find_own(uow, user_id, message.audio, "audio", ["body", "audio_url"])
    return msgspec.structs.replace(message, audio_seconds=recording.duration_seconds)


def _find_own(uow: UnitOfWork, user_id: str, key: str, kind: MediaKind, place: list[str | int]) -> MediaObject:
    found = uow.media.find_own(key, user_id)
    if found is None:
        raise MediaForbidden
    if found.kind != kind:
        raise Invalid.field(place, f"This file is not of the kind {kind}", "wrong_media_kind")
    return found


def check_open(conversation: StoredConversation) -> None:
    if conversation.influencer_status == "discontinued":
        raise InfluencerDiscontinued


def check_limits(uow: UnitOfWork, conversation: StoredConversation, limits: Limits) -> None:
    if uow.turns.count_in_conversation(conversation.id) >= limits.per_conversation:
        raise too_many(limits.per_conversation)
    if uow.turns.count_of_user(conversation.user_id) >= limits.per_user:
        raise too_many(limits.per_user)


def too_many(limit: int) -> TooManyTurns:
    """The refusal of one more than `limit` at once."""
    retry_after = TooManyTurns.retry_after
    return TooManyTurns(details={"limit_type": "concurrent_turns", "limit": limit, "retry_after": retry_after})


def _find_earlier(
    uow: UnitOfWork,
    conversation: StoredConversation,
    user_id: str,
    message: NewMessage,
    limits: Limits,
    handed_over: frozenset[str],
) -> tuple[StoredMessage, StoredMessage | None] | None:
    """The user message that this request repeats, and its reply."""
    found = find_repeated(uow, conversation.id, user_id, message, limits.duplicate_window)
    if found is None:
        return None
    reply = uow.messages.find_reply_to(found.message["id"])
    if message.client_message_id is None and reply is not None and reply.message["status"] in FINAL_READABLE:
        is_received = reply.is_handed_over or reply.message["id"] in handed_over
        if is_received and now() - (reply.completed_at or 0) > limits.duplicate_grace:
            return None
    return found, reply


def find_repeated(
    uow: UnitOfWork, conversation_id: str, sender_id: str, message: NewMessage, window: int
) -> StoredMessage | None:
    """The message that this one repeats: by its key, or else, if both are equal and lie within `window`, the sender's
    newest. Whether that one was answered and received is the caller's matter. Raises IdempotencyConflict.
    """
    if message.client_message_id is not None:
        found = uow.messages.find_by_key(conversation_id, sender_id, message.client_message_id)
        if found is not None and found.body_hash != message.body_hash():
            raise IdempotencyConflict
        return found
    newest = uow.messages.find_newest_by(conversation_id, sender_id)
    if newest is None or newest.body_hash != message.body_hash() or now() - newest.created_at > window:
        return None
    return newest


def _repeat(
    uow: UnitOfWork,
    conversation: StoredConversation,
    earlier: tuple[StoredMessage, StoredMessage | None],
    limits: Limits,
    owner: str,
) -> Accepted:
    """The table of contract section 8.3."""
    user_message, reply = earlier
    assert conversation.influencer_id is not None  # noqa: S101 - checked by accept
    if reply is not None and _may_run_again(reply):
        check_open(conversation)
        check_limits(uow, conversation, limits)
        return _run_again(uow, conversation, reply, limits, owner, is_regeneration=False)
    return Accepted(user_message.message, reply, None, conversation.influencer_id)


def _may_run_again(reply: StoredMessage) -> bool:
    error = reply.message["error"]
    return reply.message["status"] in ("failed", "cancelled") and error is not None and error["retryable"]


def _begin(
    uow: UnitOfWork, conversation: StoredConversation, message: NewMessage, limits: Limits, owner: str
) -> Accepted:
    assert conversation.influencer_id is not None  # noqa: S101 - checked by accept
    time = max(now(), conversation.last_message_time + MILLISECOND)
    question = user_row(conversation, conversation.user_id, message, time)
    answer = _reply_row(conversation, question, time + MILLISECOND)
    user_message, reply = uow.messages.add(question, answer)
    use_files(uow, message, user_message.message)
    updated_at = max(conversation.updated_at, time)
    uow.conversations.update(
        conversation.id,
        last_seq=answer["seq"],
        last_message_time=answer["created_at"],
        message_count=conversation.message_count + 1,
        updated_at=updated_at,
        **last_message_columns(user_message.message, time),
    )
    uow.conversations.touch(conversation.id, updated_at, reader=conversation.influencer_id, unread=1)
    uow.counters.add(conversation.influencer_id, user_messages=1, all_messages=1)
    turn = _turn(conversation, reply, limits, owner)
    uow.turns.add(turn)
    return Accepted(user_message.message, reply, turn, conversation.influencer_id)


def use_files(uow: UnitOfWork, message: NewMessage, stored: Message) -> None:
    """Keeps the files of a message for as long as there is the message."""
    files = [reference for reference in (*message.images, message.audio) if reference and not is_external(reference)]
    uow.media.use(files, stored["id"], stored["conversation_id"])


def user_row(conversation: StoredConversation, sender_id: str, message: NewMessage, time: int) -> dict[str, Any]:
    """The next row of the conversation, said by a person at `time`."""
    return {
        "id": new_id(),
        "conversation_id": conversation.id,
        "seq": conversation.last_seq + 1,
        "role": "user",
        "origin": "user",
        "message_type": message.message_type,
        "content": message.content or (VOICE_MESSAGE if message.audio is not None else ""),
        "images": orjson.dumps(message.images).decode() if message.images else None,
        "audio": message.audio,
        "audio_seconds": message.audio_seconds,
        "status": "delivered",
        "is_listed": True,
        "sender_id": sender_id,
        "client_message_id": message.client_message_id,
        "body_hash": message.body_hash(),
        "reply_to": None,
        "attempt": 1,
        "last_attempt": 1,
        "is_handed_over": False,
        "created_at": time,
        "completed_at": time,
    }


def _reply_row(conversation: StoredConversation, question: dict[str, Any], time: int) -> dict[str, Any]:
    return {
        "id": new_id(),
        "conversation_id": conversation.id,
        "seq": question["seq"] + 1,
        "role": "assistant",
        "origin": "model",
        "message_type": "text",
        "content": "",
        "status": "pending",
        "is_listed": False,
        "sender_id": conversation.influencer_id,
        "client_message_id": None,
        "body_hash": None,
        "reply_to": question["id"],
        "attempt": 1,
        "last_attempt": 1,
        "is_handed_over": False,
        "created_at": time,
        "completed_at": None,
    }


def _turn(
    conversation: StoredConversation,
    reply: StoredMessage,
    limits: Limits,
    owner: str,
    *,
    is_regeneration: bool = False,
    is_replacement: bool = False,
) -> StoredTurn:
    time = now()
    return StoredTurn(
        id=reply.message["id"],
        conversation_id=conversation.id,
        user_id=conversation.user_id,
        user_message_id=reply.message["reply_to"] or "",
        kind="reply",
        seq=reply.message["sequence"],
        attempt=reply.last_attempt,
        takeovers=0,
        is_regeneration=is_regeneration,
        is_replacement=is_replacement,
        owner=owner,
        lease_until=time + limits.lease,
        created_at=time,
    )


def _run_again(
    uow: UnitOfWork,
    conversation: StoredConversation,
    reply: StoredMessage,
    limits: Limits,
    owner: str,
    *,
    is_regeneration: bool,
) -> Accepted:
    """The next attempt of a reply that ended. A delivered text stays until the new one is complete."""
    assert conversation.influencer_id is not None  # noqa: S101 - a model reply has its influencer
    is_replacement = reply.message["status"] in FINAL_READABLE
    reply = begin_attempt(uow, conversation, reply, is_replacement=is_replacement)
    turn = _turn(conversation, reply, limits, owner, is_regeneration=is_regeneration, is_replacement=is_replacement)
    uow.turns.add(turn)
    user_message = uow.messages.find(conversation.id, turn.user_message_id)
    assert user_message is not None  # noqa: S101 - a reply's question is never deleted alone
    return Accepted(user_message.message, reply, turn, conversation.influencer_id)


def begin_attempt(
    uow: UnitOfWork, conversation: StoredConversation, reply: StoredMessage, *, is_replacement: bool
) -> StoredMessage:
    """Counts a new attempt of `reply` and, unless its text stays for now, makes it pending and empty again."""
    message_id = reply.message["id"]
    attempt = reply.last_attempt + 1
    if is_replacement:
        uow.messages.update(message_id, last_attempt=attempt)
        return msgspec.structs.replace(reply, last_attempt=attempt)
    uow.messages.update(
        message_id,
        status="pending",
        content="",
        is_listed=False,
        attempt=attempt,
        last_attempt=attempt,
        error_code=None,
        token_count=None,
        is_handed_over=False,
        completed_at=None,
    )
    if reply.is_listed:
        uow.conversations.update(conversation.id, message_count=conversation.message_count - 1)
        uow.counters.add(conversation.influencer_id or "", all_messages=-1)
        if conversation.last_id == message_id:
            show_last_message(uow, conversation.id)
    renewed = uow.messages.find(conversation.id, message_id)
    assert renewed is not None  # noqa: S101 - just updated
    return renewed


def show_last_message(uow: UnitOfWork, conversation_id: str) -> None:
    """Finds anew what the inbox shows as the last message, after it ceased to be one."""
    last = uow.messages.find_last_final(conversation_id)
    if last is None:
        columns: dict[str, Any] = dict.fromkeys(
            ("last_id", "last_seq_shown", "last_content", "last_role", "last_type", "last_created_at",
             "last_status", "last_sender_id")
        )  # fmt: skip
    else:
        columns = last_message_columns(last.message, last.created_at)
    uow.conversations.update(conversation_id, **columns)
