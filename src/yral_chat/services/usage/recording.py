"""Writes what calls have cost: a row for each, what they come to by day, and the end of what was held back for them.

All of it in one unit, so that at every moment a token is either held back or counted.
"""

from collections import defaultdict
from typing import Any

import msgspec

from yral_chat.clients.language_model import ModelCall
from yral_chat.core.clock import day_of, now
from yral_chat.core.ids import pseudonym_of
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.jobs import RECORD_JOB
from yral_chat.db.repositories.usage import Counts, OpenUsage, Subject
from yral_chat.services.usage.prices import Prices


class Spent(msgspec.Struct, frozen=True):
    """What an attempt has asked of vendors, and for whom. The payload of RECORD_JOB has these fields.

    `day` is the one on which it was accepted, so that it counts where it was held back; None: today. `turns` is how
    many turns it is. `is_closed`: nothing more will come under this key.
    """

    turn_id: str
    attempt: int
    user_id: str
    influencer_id: str
    conversation_id: str
    calls: list[ModelCall]
    key: str = ""
    day: int | None = None
    turns: int = 0
    is_closed: bool = True


def key_of(turn_id: str, attempt: int) -> str:
    """Under which usage is held back and recorded."""
    return f"{turn_id}:{attempt}"


def lost_call(started_at: int) -> ModelCall:
    """What was asked by a process that died: what it has cost is unknown to us, but that there was one is not."""
    return ModelCall(provider="unknown", model="unknown", started_at=started_at)


def user_day(user_id: str, day: int) -> Subject:
    return Subject("user", pseudonym_of(user_id), day)


def record_spent(uow: UnitOfWork, prices: Prices, found: list[Spent]) -> None:
    """The caller sees to it that this happens once. It locks rows that everybody locks: nothing comes after it."""
    days: defaultdict[Subject, Counts] = defaultdict(Counts)
    rows: list[dict[str, Any]] = []
    has_open = uow.usage.has_open()
    for spent in found:
        key = spent.key or key_of(spent.turn_id, spent.attempt)
        rows += [_row(spent, f"{key}:{number}", call, prices) for number, call in enumerate(spent.calls)]
        day = day_of(now()) if spent.day is None else spent.day
        for subject in _subjects(spent.user_id, spent.influencer_id, day):
            if spent.calls or spent.turns:
                _count(days[subject], spent, prices)
        if has_open and spent.is_closed and (closed := uow.usage.close(key)) is not None:
            _give_back(days, closed)
    uow.usage.add(rows)
    uow.usage.count(days)


def release_lost(uow: UnitOfWork) -> int:
    """For the only process of a database, at its start: what an earlier one was asking outside of turns, and what was
    held back for it. It has cost something that nobody knows: an event without figures says so."""
    lost = uow.usage.list_lost(RECORD_JOB)
    days: defaultdict[Subject, Counts] = defaultdict(Counts)
    for usage in lost:
        uow.usage.close(usage.key)
        _give_back(days, usage)
    uow.usage.add([_row(_spent_by(usage), f"{usage.key}:0", lost_call(now()), None) for usage in lost])
    uow.usage.count(days)
    return len(lost)


def _spent_by(usage: OpenUsage) -> Spent:
    return Spent(usage.key, 1, usage.user_id, usage.influencer_id, "", [])


def _subjects(user_id: str, influencer_id: str, day: int) -> list[Subject]:
    """Those for whom it counts: "" is nobody."""
    users = [user_day(user_id, day)] if user_id else []
    return [*users, Subject("influencer", influencer_id, day)] if influencer_id else users


def _count(counts: Counts, spent: Spent, prices: Prices) -> None:
    counts.turns += spent.turns
    for call in spent.calls:
        usage = call.usage
        counts.prompt_tokens += usage.prompt
        counts.cached_tokens += usage.cached
        counts.output_tokens += usage.output
        counts.thinking_tokens += usage.thinking
        counts.cost += prices.cost_of(call.provider, call.model, usage) or 0


def _give_back(days: dict[Subject, Counts], usage: OpenUsage) -> None:
    if not (usage.tokens or usage.cost):
        return
    for subject in _subjects(usage.user_id, usage.influencer_id if usage.holds_influencer else "", usage.day):
        days[subject].reserved_tokens -= usage.tokens
        days[subject].reserved_cost -= usage.cost


def _row(spent: Spent, row_id: str, call: ModelCall, prices: Prices | None) -> dict[str, Any]:
    usage = call.usage
    return {
        "id": row_id,
        "turn_id": spent.turn_id,
        "attempt": spent.attempt,
        "user_id": spent.user_id,
        "influencer_id": spent.influencer_id,
        "conversation_id": spent.conversation_id,
        "provider": call.provider,
        "model": call.model,
        "outcome": call.outcome or "abandoned",
        "prompt_tokens": usage.prompt,
        "cached_tokens": usage.cached,
        "output_tokens": usage.output,
        "thinking_tokens": usage.thinking,
        "pictures": usage.pictures,
        "is_estimated": call.is_estimated,
        "cost": None if prices is None or call.outcome is None else prices.cost_of(call.provider, call.model, usage),
        "first_token_ms": _milliseconds(call.first_token_seconds),
        "duration_ms": _milliseconds(call.duration_seconds),
        "started_at": call.started_at,
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
