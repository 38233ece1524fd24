"""What one has used, and what one may use: contract sections 4 and 14."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from tests.api.conftest import MakeUser, StartService
from tests.api.creating import INFLUENCERS
from tests.api.expecting import asked, open_fresh, refused
from tests.client import Api, Json, messages
from tests.rows import fetch
from tests.service import FakeModel, Service
from tests.waiting import room_in, until
from yral_chat.db.tables import conversations, open_usage, usage_days
from yral_chat.db.tables import messages as message_rows

USAGE = "/api/v1/users/me/usage"
# More than any turn of these tests holds back, and less than two of them do.
ONE_TURN = 3500


@pytest.fixture(autouse=True)
async def _of_one_day() -> None:
    """Each test, all of it."""
    await room_in(86_400, 60)


def utc_day() -> date:
    return datetime.now(UTC).date()


async def usage(api: Api, **query: str) -> Json:
    response = await api.get(USAGE, params=query)
    assert response.status_code == 200, response.text
    report: Json = response.json()
    return report


async def used(api: Api, turns: int) -> Json:
    """The report, once so many turns are in it."""

    async def look() -> Json | None:
        report = await usage(api)
        return report if report["days"][-1]["turns"] >= turns else None

    found = await until(look, what=f"{turns} turns in the usage")
    assert found is not None
    return found


# --- the report


async def test_a_day_adds_up_tokens_turns_and_money(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["One", " two"], "thinking_tokens": 5})
    for text in ("Hello", "Again"):
        await api.said(conversation["id"], text)
    report = await used(api, 2)
    today = report["days"][-1]
    # Twice: 8 tokens at 0.30, 3 cached ones at 0.03, 2 and 5 at 2.50 dollars for a million.
    cost = 2 * (8 * Decimal("0.30") + 3 * Decimal("0.03") + 7 * Decimal("2.50")) / 10**6
    assert today == {
        "date": utc_day().isoformat(),
        "turns": 2,
        "tokens": {"prompt": 22, "cached": 6, "completion": 4, "thinking": 10},
        "cost": str(cost.normalize()),
        "currency": "USD",
    }
    assert report["today"] == {"tokens": 36, "cost": today["cost"]}
    assert report["limits"] == {"tokens_per_day": None, "cost_per_day": None}


async def test_every_day_of_the_range_is_there(api: Api) -> None:
    report = await usage(api)
    days = [date.fromisoformat(day["date"]) for day in report["days"]]
    assert days == [utc_day() - timedelta(days=29 - number) for number in range(30)]
    assert (report["from"], report["to"]) == (days[0].isoformat(), days[-1].isoformat())
    assert {day["cost"] for day in report["days"]} == {"0.00"}
    leap = await usage(api, **{"from": "2024-02-28", "to": "2024-03-01"})
    assert [day["date"] for day in leap["days"]] == ["2024-02-28", "2024-02-29", "2024-03-01"]
    assert len((await usage(api, to="2026-03-10"))["days"]) == 30
    assert len((await usage(api, **{"from": "", "to": ""}))["days"]) == 30
    assert len((await usage(api, to="0001-01-03"))["days"]) == 3
    assert len((await usage(api, **{"from": "9998-12-01", "to": "9999-12-31"}))["days"]) == 396


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-03-02", "to": "2026-03-01"},
        {"from": "2025-01-01", "to": "2026-02-05"},  # 401 days
        {"from": "yesterday"},
        {"to": "2026-02-30"},
        {"to": "1772000000"},
        {"to": "20260301"},
        {"to": "2026-03-01T00:00:00Z"},
        {"from": "2026-W10-1"},
    ],
)
async def test_a_range_that_is_none_is_refused(api: Api, query: dict[str, str]) -> None:
    error = refused(await api.get(USAGE, params=query), 422, "validation_error")
    assert error["details"]["errors"][0]["loc"][0] == "query"
    assert error["details"]["errors"][0]["loc"][1] in ("from", "to")


async def test_usage_is_the_callers_own(api: Api, other: Api, service: Service) -> None:
    await api.said((await open_fresh(api, service))["id"], "Hello")
    await used(api, 1)
    assert (await usage(other))["today"] == {"tokens": 0, "cost": "0.00"}


# --- quotas


@pytest.fixture
def measured(service_with: StartService) -> Service:
    """A service on which a person may use little more in a day than one turn."""
    return service_with(
        QUOTA_TOKENS_PER_USER_DAY=str(ONE_TURN), QUOTA_COST_PER_USER_DAY="5", MODEL_MAX_OUTPUT_TOKENS="100"
    )


def state_of(service: Service, conversation: Json) -> list[Any]:
    """Everything that a message changes. That an answer was received is noted a moment behind it."""
    mine = message_rows.c.conversation_id == conversation["id"]
    columns = [column for column in message_rows.c if column.name != "is_handed_over"]
    return [
        fetch(service, select(*columns).where(mine)),
        fetch(service, select(conversations).where(conversations.c.id == conversation["id"])),
    ]


async def spend_all(api: Api, service: Service, model: FakeModel) -> Json:
    """Uses up a person's quota; returns the conversation, whose last message is `Spend`."""
    conversation = await open_fresh(api, service)
    model.tell(script=[{"chunks": ONE_TURN - 1000, "chunk_text": "w "}])
    await api.said(conversation["id"], "Spend", client_message_id="spent")
    await used(api, 1)
    return conversation


async def test_a_turn_that_might_go_beyond_is_refused_and_leaves_nothing(
    measured: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(measured)
    conversation = await spend_all(api, measured, model)
    before, requests = state_of(measured, conversation), model.state()["requests"]
    response = await api.send(conversation["id"], "One more")
    error = refused(response, 429, "quota_exceeded")
    spent = (await usage(api))["today"]["tokens"]
    midnight = datetime.combine(utc_day() + timedelta(days=1), datetime.min.time())
    assert error["details"] == {
        "limit_type": "tokens_per_day",
        "limit": ONE_TURN,
        "used": spent,
        "resets_at": f"{midnight.isoformat()}.000000Z",
    }
    left = (midnight.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    assert abs(int(response.headers["retry-after"]) - left) < 60
    assert state_of(measured, conversation) == before
    assert model.state()["requests"] == requests
    assert (await usage(api))["limits"] == {"tokens_per_day": ONE_TURN, "cost_per_day": "5.00"}
    metrics = (await api.get("/metrics")).text
    assert 'rate_limit_exceeded_total{limit_type="tokens_per_day"}' in metrics


async def test_a_repeated_request_is_answered_whatever_is_left(
    measured: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(measured)
    conversation = await spend_all(api, measured, model)
    again = await api.send(conversation["id"], "Spend", client_message_id="spent")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")


async def test_everything_that_asks_a_model_is_refused(measured: Service, user_of: MakeUser, model: FakeModel) -> None:
    api = user_of(measured)
    conversation = await spend_all(api, measured, model)
    reply = (await api.history(conversation["id"]))[-1]
    said = {"message_type": "text", "content": "Hi"}
    completion = {"model": conversation["influencer_id"], "messages": [{"role": "user", "content": "Hi"}]}
    chat = messages(conversation["id"])
    requests = model.state()["requests"]
    for path, body in (
        (f"{chat}/stream", said),
        (f"{chat}/{reply['id']}/regenerate", None),
        (f"/api/v1/chat/conversations/{conversation['id']}/images", {}),
        ("/v1/chat/completions", completion),
        ("/v1/chat/completions", {**completion, "stream": True}),
        ("/v1/chat/completions", {**completion, "metadata": {"conversation_id": conversation["id"]}}),
        (f"{INFLUENCERS}/generate-prompt", {"prompt": "a pirate"}),
        (f"{INFLUENCERS}/validate-and-generate-metadata", {"system_instructions": "You are a pirate."}),
    ):
        error = refused(await api.post(path, body), 429, "quota_exceeded")
        assert error["details"]["limit_type"] == "tokens_per_day", path
    assert model.state()["requests"] == requests
    assert fetch(measured, select(open_usage)) == []


async def test_what_a_stopped_turn_held_back_is_free_again(
    measured: Service, user_of: MakeUser, model: FakeModel
) -> None:
    """Stopped, failed, or gone with its conversation: the next one may begin."""
    api = user_of(measured)
    model.tell(default={"pieces": ["Once", " upon"], "stall_after": 1})
    for number, ending in enumerate(("cancel", "delete", "fail"), 1):
        conversation = await open_fresh(api, measured)
        if ending == "fail":
            model.tell(default={"error_after": 1})
        sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
        await until(lambda number=number: asked(model, number), what="the model to be asked")  # type: ignore[misc]
        if ending == "cancel":
            refused(await api.send((await open_fresh(api, measured))["id"], "Too"), 429, "quota_exceeded")
            reply = (await api.history(conversation["id"], include="unfinished"))[-1]
            await api.post(f"{messages(conversation['id'])}/{reply['id']}/cancel")
        elif ending == "delete":
            await api.delete(f"/api/v1/chat/conversations/{conversation['id']}")
        await sending
        await used(api, number)
        assert fetch(measured, select(open_usage)) == []
    rows = fetch(measured, select(usage_days).where(usage_days.c.turns > 0))
    assert all((row.reserved_tokens, row.reserved_cost) == (0, 0) for row in rows)


async def test_an_erased_account_has_no_new_quota(measured: Service, user_of: MakeUser, model: FakeModel) -> None:
    api = user_of(measured)
    await spend_all(api, measured, model)
    assert (await api.delete("/api/v1/users/me")).status_code == 200
    assert (await usage(api))["today"] == {"tokens": 0, "cost": "0.00"}
    refused(await api.send((await open_fresh(api, measured))["id"], "Hello"), 429, "quota_exceeded")


async def test_money_and_personas_have_quotas_too(
    service_with: StartService, user_of: MakeUser, model: FakeModel
) -> None:
    service = service_with(
        QUOTA_COST_PER_USER_DAY="0.007",
        QUOTA_TOKENS_PER_INFLUENCER_DAY=str(ONE_TURN),
        MODEL_MAX_OUTPUT_TOKENS="100",
        **model.picture_settings,
    )
    api, fan = user_of(service), user_of(service)
    conversation = await open_fresh(api, service)
    model.tell(script=[{"chunks": ONE_TURN - 1000, "chunk_text": "w "}])
    await api.said(conversation["id"], "Hello")
    spent = (await used(api, 1))["today"]["cost"]
    error = refused(await api.send((await open_fresh(api, service))["id"], "More"), 429, "quota_exceeded")
    assert error["details"] | {"resets_at": ""} == {
        "limit_type": "cost_per_day", "limit": "0.007", "used": spent, "resets_at": "",
    }  # fmt: skip
    crowded = await fan.open(conversation["influencer_id"])
    error = refused(await fan.send(crowded["id"], "Me too"), 429, "quota_exceeded")
    assert error["details"]["limit_type"] == "tokens_per_day"
    assert error["details"]["limit"] == ONE_TURN
    assert "persona" in error["message"]
    elsewhere = await open_fresh(fan, service)
    assert (await fan.send(elsewhere["id"], "Elsewhere")).status_code == 200
    # One picture costs 0.025 dollars.
    response = await fan.post(f"/api/v1/chat/conversations/{elsewhere['id']}/images", {"prompt": "a boat"})
    assert refused(response, 429, "quota_exceeded")["details"]["limit_type"] == "cost_per_day"
