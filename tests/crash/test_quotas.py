"""Quotas with many at once, and what is left of them when the process is killed."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import select

from tests.crash.conftest import MakeUser
from tests.crash.outside import asked
from tests.rows import add_influencer, fetch
from tests.service import FakeModel, Service
from tests.waiting import room_in, there, until
from yral_chat.core.ids import pseudonym_of
from yral_chat.db.tables import jobs, open_usage, turns, usage_days, usage_events

MANY, BUDGET = 200, 50
STALLED = {"pieces": ["Once", " upon"], "stall_after": 1}
SETTINGS = {
    "MAX_TURNS_PER_USER": "1000",
    "MAX_REQUESTS_PER_USER": "1000",
    "MODEL_MAX_OUTPUT_TOKENS": "50",
    "SEND_TIMEOUT_SECONDS": "120",  # what stalls is waited for
}


async def recorded(service: Service) -> None:
    """Until nothing runs and everything is counted."""

    def is_quiet() -> bool:
        return not any(fetch(service, select(table).limit(1)) for table in (turns, jobs, open_usage))

    await until(there(is_quiet), what="everything recorded", seconds=60)


@pytest.mark.long
async def test_200_at_once_never_use_more_than_a_budget_for_50(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    """Not while they run, not after a kill -9, and not when those that were let in have ended."""
    await room_in(86_400, 120)  # all of it on one day
    own_service.settings |= {**SETTINGS, "QUOTA_TOKENS_PER_USER_DAY": "1000000"}
    own_service.start()
    bots = [add_influencer(own_service) for _ in range(MANY)]
    scout = new_user(own_service)
    first = (await scout.open(bots[0]))["id"]
    model.tell(default=STALLED)
    sending = asyncio.create_task(scout.send(first, "Hello 000"))
    await asked(model, 1)
    [(one,)] = fetch(own_service, select(open_usage.c.tokens))
    sending.cancel()
    own_service.kill()
    own_service.settings["QUOTA_TOKENS_PER_USER_DAY"] = str(BUDGET * one + one - 1)
    own_service.start()
    api = new_user(own_service)
    chats = [(await api.open(bot))["id"] for bot in bots]
    model.tell(default=STALLED)
    many = [asyncio.create_task(api.send(chat, f"Hello {number:03}")) for number, chat in enumerate(chats)]

    def refused() -> int:
        return sum(task.done() for task in many)

    await until(there(lambda: refused() >= MANY - BUDGET), what="the others to be refused", seconds=60)
    responses = [task.result() for task in many if task.done()]
    assert Counter((answer.status_code, answer.json()["error"]) for answer in responses) == {
        (429, "quota_exceeded"): MANY - BUDGET
    }
    mine = select(open_usage.c.tokens).where(open_usage.c.user_id == api.user_id)
    assert [row.tokens for row in fetch(own_service, mine)] == [one] * BUDGET
    for task in many:
        task.cancel()
    own_service.kill()
    model.reset()
    own_service.start()
    await recorded(own_service)
    query = select(usage_days).where(usage_days.c.subject == pseudonym_of(api.user_id))
    [day] = fetch(own_service, query)
    assert (day.reserved_tokens, day.reserved_cost) == (0, 0)
    spent = fetch(own_service, select(usage_events).where(usage_events.c.user_id == api.user_id))
    assert Counter(row.outcome for row in spent) == {"abandoned": BUDGET, "completed": BUDGET}
    assert day.prompt_tokens + day.output_tokens == sum(row.prompt_tokens + row.output_tokens for row in spent)
    assert day.turns == BUDGET
    assert 0 < day.prompt_tokens + day.output_tokens <= BUDGET * one
    # What was held back is there again.
    assert (await api.send(chats[-1], "Once more")).status_code == 200


@pytest.mark.long
async def test_what_a_killed_process_asked_outside_of_turns_is_known_to_have_been_asked(
    sqlite_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    """Also without quotas: a completion leaves no turn that somebody would find."""
    sqlite_service.start()
    api = new_user(sqlite_service)
    bot = add_influencer(sqlite_service)
    model.tell(default=STALLED)
    body = {"model": bot, "messages": [{"role": "user", "content": "Hello"}]}
    asking = asyncio.create_task(api.post("/v1/chat/completions", body))
    await asked(model, 1)
    sqlite_service.kill()
    await asyncio.gather(asking, return_exceptions=True)
    model.reset()
    sqlite_service.start()
    [row] = fetch(sqlite_service, select(usage_events))
    assert (row.user_id, row.influencer_id, row.provider, row.outcome) == (api.user_id, bot, "unknown", "abandoned")
    assert row.cost is None
    assert fetch(sqlite_service, select(open_usage)) == []
