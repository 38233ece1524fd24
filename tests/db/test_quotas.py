"""Holding back and counting, on both databases."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from yral_chat.clients.language_model import ModelCall, Usage
from yral_chat.core import clock
from yral_chat.core.clock import DAY, day_of, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import QuotaExceeded
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.usage import Counts, OpenUsage, Subject
from yral_chat.services.accounts import erasing
from yral_chat.services.accounts.erasure_log import Erasure
from yral_chat.services.usage import RECORD_JOB, Bound, Prices, Quotas, Spent, load_prices, record_spent
from yral_chat.services.usage.prices import PICODOLLARS
from yral_chat.services.usage.recording import release_lost, user_day

NOON = 20_000 * DAY + DAY // 2
TODAY = day_of(NOON)
PERSONA = Subject("influencer", "bot", TODAY)


@pytest.fixture(autouse=True)
def at_noon() -> Iterator[None]:
    """No day ends while they run."""
    clock.use(lambda: NOON * 1_000)
    yield
    clock.use(time.time_ns)


def quotas(**limits: Any) -> Quotas:
    settings = Settings(_env_file=None, environment="test", **limits)
    return Quotas(settings, load_prices(None), [("gemini", "gemini-2.5-flash")])


def open_usage(number: int, user_id: str = "user", day: int = TODAY) -> OpenUsage:
    return OpenUsage(f"turn-{number}:1", user_id, "bot", day)


def spent(number: int, usage: Usage, user_id: str = "user", **more: Any) -> Spent:
    calls = [ModelCall("gemini", "gemini-2.5-flash", now(), "completed", usage)]
    return Spent(f"turn-{number}", 1, user_id, "bot", "c", calls, day=TODAY, turns=1, **more)


async def counts(database: Database, subject: Subject) -> Counts:
    return await database.read(lambda uow: uow.usage.find_day(subject))


async def test_of_200_at_once_as_many_are_let_in_as_the_budget_is_for(database: Database) -> None:
    held = quotas(quota_tokens_per_user_day=50 * 100 + 99)

    async def ask(number: int) -> bool:
        try:
            await database.write(held.hold, open_usage(number), Bound(100, 0))
        except QuotaExceeded:
            return False
        return True

    results = await asyncio.gather(*(ask(number) for number in range(200)))
    assert sum(results) == 50
    assert (await counts(database, user_day("user", TODAY))).reserved_tokens == 50 * 100

    used = [number for number, is_in in enumerate(results) if is_in]
    usages = [spent(number, Usage(prompt=30, cached=10, output=number % 50)) for number in used]
    await asyncio.gather(*(database.write(record_spent, load_prices(None), [usage]) for usage in usages))
    found = await counts(database, user_day("user", TODAY))
    assert found.reserved_tokens == found.reserved_cost == 0
    assert (found.turns, found.prompt_tokens, found.cached_tokens) == (50, 1500, 500)
    assert found.tokens == 1500 + sum(number % 50 for number in used)
    assert await database.read(lambda uow: uow.usage.has_open()) is False
    assert (await counts(database, PERSONA)).tokens == found.tokens


async def test_a_day_has_no_more_than_its_money(database: Database) -> None:
    held = quotas(quota_cost_per_user_day="0.01")
    await database.write(held.hold, open_usage(1), Bound(10, PICODOLLARS // 100))
    with pytest.raises(QuotaExceeded) as refused:
        await database.write(held.hold, open_usage(2), Bound(10, 1))
    details = refused.value.details
    assert details.keys() == {"limit_type", "limit", "used", "resets_at"}
    assert (details["limit_type"], details["limit"], details["used"]) == ("cost_per_day", "0.01", "0.01")
    assert 1 <= (refused.value.retry_after or 0) <= 86400
    await database.write(held.hold, open_usage(3, day=TODAY + 1), Bound(10, 1))
    await database.write(held.hold, open_usage(4, "other"), Bound(10, 1))


async def test_a_persona_has_a_quota_of_its_own(database: Database) -> None:
    held = quotas(quota_tokens_per_influencer_day=100)
    await database.write(held.hold, open_usage(1, "one"), Bound(60))
    with pytest.raises(QuotaExceeded) as refused:
        await database.write(held.hold, open_usage(2, "two"), Bound(60))
    assert refused.value.details["used"] == 60
    assert (await counts(database, user_day("two", TODAY))).reserved_tokens == 0, "the unit was undone"
    await database.write(record_spent, Prices({}), [spent(1, Usage(5, 0, 5), "one")])
    found = await counts(database, PERSONA)
    assert (found.reserved_tokens, found.tokens) == (0, 10)


async def test_what_is_recorded_twice_gives_back_once(database: Database) -> None:
    held = quotas(quota_tokens_per_user_day=1000)
    await database.write(held.hold, open_usage(1), Bound(100))
    await database.write(held.hold, open_usage(2), Bound(100))
    handed_back = spent(1, Usage(1, 0, 1), is_closed=False)
    await database.write(record_spent, Prices({}), [handed_back])
    assert (await counts(database, user_day("user", TODAY))).reserved_tokens == 200, "others go on with it"

    def take_over(uow: UnitOfWork) -> None:
        uow.usage.move("turn-1:1", "turn-1:2")

    await database.write(take_over)
    await database.write(record_spent, Prices({}), [spent(1, Usage(1, 0, 1), key="turn-1:2")])
    await database.write(record_spent, Prices({}), [spent(1, Usage(1, 0, 1), key="turn-1:2")])
    assert (await counts(database, user_day("user", TODAY))).reserved_tokens == 100


async def test_what_a_dead_process_held_back_is_given_back_unless_it_goes_on(database: Database) -> None:
    held = quotas(quota_tokens_per_user_day=1000)
    for number in range(3):
        await database.write(held.hold, open_usage(number), Bound(100))

    def left_behind(uow: UnitOfWork) -> None:
        uow.jobs.add(RECORD_JOB, {"key": "turn-1:1"})

    await database.write(left_behind)
    assert await database.write(release_lost) == 2
    assert (await counts(database, user_day("user", TODAY))).reserved_tokens == 100
    assert await database.write(release_lost) == 0


async def test_whoever_erases_the_account_has_no_new_quota(database: Database) -> None:
    held = quotas(quota_tokens_per_user_day=1000)
    await database.write(held.hold, open_usage(1), Bound(100))
    await database.write(held.hold, open_usage(2), Bound(800))
    await database.write(record_spent, Prices({}), [spent(1, Usage(90, 0, 10))])
    yesterday = user_day("user", TODAY - 1)
    await database.write(lambda uow: uow.usage.count({yesterday: Counts(turns=1, prompt_tokens=5)}))
    erasure = Erasure("erasure", "user", "2026-03-01T09:30:00.000000Z")
    await database.write(lambda uow: erasing.finish(uow, erasure, erasing.total([]), has_quotas=True))
    found = await counts(database, user_day("user", TODAY))
    assert (found.tokens, found.turns, found.cost, found.reserved_tokens) == (0, 0, 0, 900)
    assert (await counts(database, yesterday)).tokens == 0
    # What ran meanwhile counts for nobody, and frees nothing.
    await database.write(record_spent, Prices({}), [spent(2, Usage(90, 0, 10), "")])
    assert (await counts(database, user_day("user", TODAY))).reserved_tokens == 900
    with pytest.raises(QuotaExceeded):
        await database.write(held.hold, open_usage(3), Bound(101))


async def test_without_quotas_nothing_is_left_of_an_erased_person(database: Database) -> None:
    await database.write(record_spent, Prices({}), [spent(1, Usage(90, 0, 10))])
    erasure = Erasure("erasure", "user", "2026-03-01T09:30:00.000000Z")
    await database.write(lambda uow: erasing.finish(uow, erasure, erasing.total([])))
    assert await database.read(lambda uow: uow.usage.list_days(user_day("user", 0), TODAY)) == {}
    assert (await counts(database, PERSONA)).tokens == 100, "what was used stays counted, by nobody"
