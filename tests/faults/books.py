"""After the fault: nothing is left running, and the whole database agrees with itself."""

import asyncio
from collections import Counter, defaultdict

from tests.history import checks
from tests.history.record import Record
from tests.history.stored import Stored, is_at_rest
from tests.service import Service
from tests.waiting import until
from yral_chat.core.ids import pseudonym_of

REST_SECONDS = 30
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens", "thinking_tokens")


async def balanced(service: Service, *, was_always_asked: bool = True) -> Stored:
    """Waits until nothing runs or waits, and looks at every table. Raises AssertionError with what is wrong.

    Each user message has exactly one reply behind it, nothing is unfinished, counts equal what is there, keys are
    there once, every delivered attempt is paid for once, every reply was told of once, the days add up to what was
    spent, nothing is held back. All conversations are with personas. `was_always_asked`: a vendor, in each attempt.
    """

    async def rests() -> bool:
        return await asyncio.to_thread(is_at_rest, service)

    await until(rests, what="nothing runs and nothing waits", seconds=REST_SECONDS)
    stored, record = Stored(service), Record()
    checks.check_rows(stored, record)
    checks.check_popularity(stored, record, passing="")
    checks.check_acknowledged(stored, record)
    checks.check_usage(stored, record)
    checks.check_events(stored, record)
    _check_days(stored, record)
    if was_always_asked:
        _check_attempts(stored, record)
    assert not record.violations, "\n".join(record.violations)
    return stored


def _check_attempts(stored: Stored, record: Record) -> None:
    """Each attempt that was begun has its usage."""
    replies = [row for row in stored.messages.values() if row.origin == "model"]
    recorded = {(row.turn_id, row.attempt) for row in stored.usage}
    for row in replies:
        missing = [n for n in range(1, row.last_attempt + 1) if (row.id, n) not in recorded]
        record.require(not missing, "attempts without usage", row=row, missing=missing)


def _check_days(stored: Stored, record: Record) -> None:
    """What counts against quotas is what the calls have cost, for people and for personas."""
    record.require(not stored.open_usage, "usage is left open", rows=stored.open_usage)
    spent: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in stored.usage:
        for subject in (("user", pseudonym_of(row.user_id)), ("influencer", row.influencer_id)):
            spent[subject].update({name: getattr(row, name) for name in TOKENS})
    counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for day in stored.usage_days:
        counted[day.kind, day.subject].update({name: getattr(day, name) for name in TOKENS})
        record.require((day.reserved_tokens, day.reserved_cost) == (0, 0), "usage is held back", row=day)
    record.require(counted == spent, "days that are not what was spent", has=counted, is_=spent)
