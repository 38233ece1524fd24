"""Units of work that end a turn, take one over, or record what it cost."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from yral_chat.clients.language_model import ModelCall
from yral_chat.core.clock import day_of, now
from yral_chat.core.objects import Message, MessageStatus
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation, last_message_columns
from yral_chat.db.repositories.messages import StoredMessage, is_listed
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.services.turns.accepting import begin_attempt
from yral_chat.services.turns.records import Ending
from yral_chat.services.turns.running import Ended, TakenOver
from yral_chat.services.usage import RECORD_JOB, Prices, Spent, record_spent
from yral_chat.services.usage.recording import key_of, lost_call

MessageEvent = Literal["new_message", "message_updated"]


def end(
    uow: UnitOfWork, turn: StoredTurn, ending: Ending, calls: list[ModelCall], absolute: Callable[[str], str]
) -> Ended | None:
    """Stores how the attempt ended: message, counts, event and job in one transaction.

    `absolute` makes a whole address of a stored picture's path.
    None when this attempt is not in charge any more, or the conversation is gone: then nothing is written.
    """
    conversation = uow.conversations.find_locked(turn.conversation_id)
    if conversation is None or not uow.turns.finish(turn.id, turn.attempt):
        return None
    before = uow.messages.find(turn.conversation_id, turn.id)
    assert before is not None  # noqa: S101 - the turn's row goes with its message
    is_complete = ending.error_code is None
    if is_complete or not turn.is_replacement:
        reply = _store(uow, conversation, turn, before, ending)
    else:
        reply = before  # a delivered text stays for good when its replacement does not come
    listed = int(reply.is_listed) - int(before.is_listed)
    uow.jobs.add(RECORD_JOB, record_of(turn, calls, conversation.influencer_id or "", listed=listed, turns=1))
    event: MessageEvent = "new_message" if is_complete and not turn.is_regeneration else "message_updated"
    return tell(uow, conversation, reply.message, event, absolute)


def _store(
    uow: UnitOfWork, conversation: StoredConversation, turn: StoredTurn, before: StoredMessage, ending: Ending
) -> StoredMessage:
    time = max(now(), before.created_at)  # which is ahead of the clock when messages come within a millisecond
    status: MessageStatus = (
        "delivered" if ending.error_code is None else "cancelled" if ending.error_code == "CANCELLED" else "failed"
    )
    is_shown = is_listed("assistant", status, ending.content)
    origin = {"origin": "safety"} if ending.crisis is not None else {}
    uow.messages.update(
        turn.id,
        status=status,
        content=ending.content,
        is_listed=is_shown,
        attempt=turn.attempt,
        error_code=ending.error_code,
        token_count=ending.tokens,
        provider=ending.provider or None,
        model=ending.model,
        is_handed_over=False,
        completed_at=time,
        **origin,
    )
    reply = uow.messages.find(turn.conversation_id, turn.id)
    assert reply is not None  # noqa: S101 - just updated
    if not is_shown:
        return reply
    changes: dict[str, Any] = {"updated_at": max(conversation.updated_at, time)}
    if not before.is_listed:
        changes["message_count"] = conversation.message_count + 1
    if status in ("delivered", "cancelled") and reply.message["sequence"] >= (conversation.last_seq_shown or 0):
        changes |= last_message_columns(reply.message, reply.created_at)
    uow.conversations.update(conversation.id, **changes)
    is_newly_unread = status == "delivered" and before.message["status"] != "delivered"
    uow.conversations.touch(
        conversation.id, changes["updated_at"], reader=conversation.user_id, unread=int(is_newly_unread)
    )
    return reply


def tell(
    uow: UnitOfWork,
    conversation: StoredConversation,
    message: Message,
    event: MessageEvent,
    absolute: Callable[[str], str],
) -> Ended:
    """Adds the durable event that shows `message` to the conversation's user."""
    data: dict[str, Any] = {"conversation_id": conversation.id, "message": message}
    if event == "new_message":
        summary = uow.conversations.find_summary(conversation.id, conversation.user_id)
        assert summary is not None  # noqa: S101 - the conversation is locked by this unit
        influencer = summary["influencer"]
        if influencer is not None:
            influencer["suggested_messages"] = None
            influencer["avatar_url"] = absolute(influencer["avatar_url"])
        data |= {
            "influencer_id": conversation.influencer_id,
            "influencer": influencer,
            "user": None,
            "unread_count": summary["unread_count"],
        }
    seq = uow.events.add(conversation.user_id, conversation.id, event, data)
    return Ended(message, conversation.influencer_id or "", event, data, seq)


def take_over(uow: UnitOfWork, turn: StoredTurn, owner: str, lease_until: int) -> TakenOver | None:
    """Makes `owner` run the next attempt of an orphaned reply: the partial text goes, the attempt rises.

    None when somebody else was faster.
    """
    conversation = uow.conversations.find_locked(turn.conversation_id)
    if conversation is None or not uow.turns.take_over(turn, owner, lease_until):
        return None
    before = uow.messages.find(turn.conversation_id, turn.id)
    user_message = uow.messages.find(turn.conversation_id, turn.user_message_id)
    assert before is not None and user_message is not None  # noqa: S101, PT018 - turns go with their messages
    begin_attempt(uow, conversation, before, is_replacement=turn.is_replacement)
    influencer_id = conversation.influencer_id or ""
    return TakenOver(give_over(uow, turn, owner, influencer_id), user_message.message, influencer_id)


def give_over(uow: UnitOfWork, turn: StoredTurn, owner: str, influencer_id: str) -> StoredTurn:
    """The turn as it stands after `owner` has taken it over: what is held back for it stays so, and what the lost
    attempt has cost is recorded."""
    taken = next_attempt(turn, owner)
    uow.usage.move(key_of(turn.id, turn.attempt), key_of(taken.id, taken.attempt))
    uow.jobs.add(RECORD_JOB, record_of(turn, [lost_call(turn.created_at)], influencer_id, is_closed=False))
    return taken


def next_attempt(turn: StoredTurn, owner: str) -> StoredTurn:
    """The turn as it stands after `owner` has taken it over."""
    return msgspec.structs.replace(turn, attempt=turn.attempt + 1, takeovers=turn.takeovers + 1, owner=owner)


def keep_usage(
    uow: UnitOfWork,
    turn: StoredTurn,
    calls: list[ModelCall],
    influencer_id: str,
    *,
    turns: int = 0,
    is_closed: bool = True,
) -> None:
    """Records what an attempt has cost that leaves no end behind: its conversation is gone, somebody else has ended
    it, or others go on with it (then it is not closed: what is held back is for them)."""
    uow.jobs.add(RECORD_JOB, record_of(turn, calls, influencer_id, turns=turns, is_closed=is_closed))


def record_of(
    turn: StoredTurn,
    calls: list[ModelCall],
    influencer_id: str,
    *,
    listed: int = 0,
    turns: int = 0,
    is_closed: bool = True,
) -> dict[str, Any]:
    """The job's payload; `listed` is by how much the attempt changed the number of messages that lists show. For the
    others see Spent."""
    return {
        "key": key_of(turn.id, turn.attempt),
        "turn_id": turn.id,
        "attempt": turn.attempt,
        "user_id": turn.user_id,
        "influencer_id": influencer_id,
        "conversation_id": turn.conversation_id,
        "day": day_of(turn.created_at),
        "listed": listed,
        "turns": turns,
        "is_closed": is_closed,
        "calls": [msgspec.to_builtins(call) for call in calls],
    }


def record(uow: UnitOfWork, prices: Prices, job_ids: list[str], payloads: list[dict[str, Any]]) -> None:
    """Writes usage and counts of ended turns and deletes their jobs: together, so that it happens once.

    A job that is gone was done by somebody else, or was rewritten by an erasure and comes again.
    """
    payloads = [payload for job_id, payload in zip(job_ids, payloads, strict=True) if uow.jobs.delete(job_id)]
    listed: dict[str, int] = {}
    for payload in payloads:
        listed[payload["influencer_id"]] = listed.get(payload["influencer_id"], 0) + payload["listed"]
    for influencer_id, count in listed.items():
        if count:
            uow.counters.add(influencer_id, all_messages=count)
    record_spent(uow, prices, [msgspec.convert(payload, Spent) for payload in payloads])
