"""Owners edit, go back and delete; the operator bans: contract sections 11 and 16."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from tests.api.conftest import MakeUser, StartService
from tests.api.creating import INFLUENCERS, INSTRUCTIONS, created, persona
from tests.api.expecting import refused
from tests.client import Api, Json, messages
from tests.rows import add_influencer, fetch
from tests.service import FakeModel, Service
from yral_chat.db.tables import audit_events, jobs

ADMIN = "/api/v1/admin/influencers"
KEY = "an-admin-key-of-the-tests"


async def edited(api: Api, influencer_id: str, text: str) -> Json:
    path = f"{INFLUENCERS}/{influencer_id}/system-prompt"
    response = await api.request("PATCH", path, json={"system_instructions": text})
    assert response.status_code == 200, response.text
    made: Json = response.json()
    return made


async def versions(api: Api, influencer_id: str) -> list[tuple[int, str]]:
    response = await api.get(f"{INFLUENCERS}/{influencer_id}/versions")
    assert response.status_code == 200, response.text
    page = response.json()
    assert page["total"] == len(page["versions"])
    return [(version["n"], version["system_instructions"]) for version in page["versions"]]


def system_sent(model: FakeModel) -> str:
    text: str = model.requests()[-1]["body"]["systemInstruction"]["parts"][0]["text"]
    return text


async def test_the_next_turn_uses_the_new_text(api: Api, other: Api, model: FakeModel) -> None:
    made = await created(api)
    conversation = await other.open(made["id"])
    await other.said(conversation["id"], "One")
    assert INSTRUCTIONS in system_sent(model)
    shown = await edited(api, made["id"], " You are brief. ")
    assert (shown["system_prompt"], shown["updated_at"] > made["updated_at"]) == ("You are brief.", True)
    await other.said(conversation["id"], "Two")
    assert "You are brief." in system_sent(model)
    assert INSTRUCTIONS not in system_sent(model)
    assert (await api.get(f"{INFLUENCERS}/{made['id']}")).json()["system_prompt"] == "You are brief."


async def test_every_edit_keeps_a_version_and_each_can_be_restored(api: Api) -> None:
    made = await created(api)
    assert await versions(api, made["id"]) == [(1, INSTRUCTIONS)]
    await edited(api, made["id"], "Two")
    await edited(api, made["id"], "Two")  # a repeated request
    await edited(api, made["id"], "Three")
    assert await versions(api, made["id"]) == [(3, "Three"), (2, "Two"), (1, INSTRUCTIONS)]
    response = await api.post(f"{INFLUENCERS}/{made['id']}/versions/1/restore")
    assert (response.status_code, response.json()["system_prompt"]) == (200, INSTRUCTIONS)
    await api.post(f"{INFLUENCERS}/{made['id']}/versions/4/restore")
    assert [n for n, _ in await versions(api, made["id"])] == [5, 4, 3, 2, 1]
    for n in ("6", "0", "-1", "x", str(2**70)):
        refused(await api.post(f"{INFLUENCERS}/{made['id']}/versions/{n}/restore"), 404, "not_found")


async def test_edits_at_once_all_have_numbers_of_their_own(api: Api) -> None:
    made = await created(api)
    await asyncio.gather(*(edited(api, made["id"], f"Text {number}") for number in range(5)))
    found = await versions(api, made["id"])
    assert [n for n, _ in found] == [6, 5, 4, 3, 2, 1]
    assert (await api.get(f"{INFLUENCERS}/{made['id']}")).json()["system_prompt"] == found[0][1]


async def test_a_persona_from_before_versions_has_its_first_text_as_one(api: Api, service: Service) -> None:
    bot = add_influencer(service, owner_id=api.user_id)
    assert await versions(api, bot) == [(1, "You are brief.")]
    await edited(api, bot, "Other")
    assert await versions(api, bot) == [(2, "Other"), (1, "You are brief.")]


async def test_only_the_owner_may(api: Api, other: Api, service: Service) -> None:
    made = await created(api)
    gone = add_influencer(service, status="discontinued", owner_id=other.user_id)
    catalogue = (await api.influencers())[-1]["id"]
    calls: list[tuple[str, str, Json | None]] = [
        ("PATCH", "system-prompt", {"system_instructions": "Mine"}),
        ("GET", "versions", None),
        ("POST", "versions/1/restore", None),
        ("GET", "card", None),
        ("DELETE", "", None),
    ]
    for method, path, body in calls:
        for bot, status, code in (
            (made["id"], 403, "forbidden"),
            (catalogue, 403, "forbidden"),
            (gone, 404, "not_found"),
            ("unknown", 404, "not_found"),
        ):
            url = f"{INFLUENCERS}/{bot}/{path}".rstrip("/")
            refused(await other.request(method, url, json=body), status, code)
            headers = {"Authorization": "Bearer x"}
            refused(await other.request(method, url, json=body, headers=headers), 401, "unauthorized")
    assert (await api.get(f"{INFLUENCERS}/{made['id']}")).json()["system_prompt"] == INSTRUCTIONS


# --- delete


async def test_a_deleted_persona_is_gone_but_what_it_said_is_not(api: Api, other: Api) -> None:
    made = await created(api)
    conversation = await other.open(made["id"])
    await other.said(conversation["id"], "Hi")
    response = await api.delete(f"{INFLUENCERS}/{made['id']}")
    shown = response.json()
    assert (response.status_code, shown["is_active"], shown["display_name"]) == (200, "discontinued", "Deleted Bot")
    refused(await api.delete(f"{INFLUENCERS}/{made['id']}"), 404, "not_found")
    refused(await api.get(f"{INFLUENCERS}/{made['id']}"), 404, "not_found")
    assert made["id"] not in [row["id"] for row in await api.influencers()]
    assert made["id"] not in (await api.get("/api/v1/auth/me")).json()["owned_bot_ids"]
    refused(await other.send(conversation["id"], "Still there?"), 403, "forbidden")
    assert len(await other.history(conversation["id"])) == 3
    for body in (persona(name=made["name"]), persona(bot_principal_id=made["id"])):
        refused(await api.post(f"{INFLUENCERS}/create", body), 409, "conflict")


async def test_a_turn_that_runs_ends_after_the_deletion(api: Api, other: Api, model: FakeModel) -> None:
    made = await created(api)
    conversation = await other.open(made["id"])
    model.tell(default={"chunks": 5, "chunk_delay": 0.05})
    body = {"message_type": "text", "content": "Hi"}
    async with other.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events):
        assert (await anext(events)).event == "start"
        assert (await api.delete(f"{INFLUENCERS}/{made['id']}")).status_code == 200
        assert [event.event async for event in events][-1] == "done"


# --- the operator


@pytest.fixture
def watched(service_with: StartService) -> Service:
    return service_with(ADMIN_API_KEY=KEY, OPERATOR_WEBHOOK_URL="http://127.0.0.1:9/")


@pytest.fixture
async def operator(watched: Service, user_of: MakeUser) -> Api:
    api = user_of(watched)
    api.http.headers["X-Admin-Key"] = KEY
    del api.http.headers["Authorization"]
    return api


def audited(service: Service, subject: str) -> list[tuple[str, str]]:
    query = select(audit_events.c.action, audit_events.c.reason).where(audit_events.c.subject == subject)
    return [tuple(row) for row in fetch(service, query.order_by(audit_events.c.created_at))]


def told(service: Service, subject: str) -> list[str]:
    found = fetch(service, select(jobs.c.payload).where(jobs.c.name == "operator.notify").order_by(jobs.c.id))
    return [payload for (payload,) in found if subject in payload]


@pytest.mark.parametrize(("method", "suffix"), [("POST", "/ban"), ("POST", ""), ("DELETE", "")])
async def test_a_ban_and_its_end(operator: Api, watched: Service, user_of: MakeUser, method: str, suffix: str) -> None:
    owner = user_of(watched)
    made = await created(owner)
    conversation = await owner.open(made["id"])
    for reason in ("Spam", "Again"):
        body = {"reason": reason}
        response = await operator.request(method, f"{ADMIN}/{made['name'].upper()}{suffix}", json=body)
        assert response.status_code == 200, response.text
        banned = response.json()
        assert (banned["id"], banned["banned"], banned["is_active"]) == (made["id"], True, "discontinued")
        assert (banned["display_name"], banned["system_prompt"]) == ("Asha", None)
    refused(await owner.get(f"{INFLUENCERS}/{made['id']}"), 404, "not_found")
    refused(await owner.send(conversation["id"], "Hi"), 403, "forbidden")
    refused(await owner.delete(f"{INFLUENCERS}/{made['id']}"), 404, "not_found")
    assert audited(watched, made["id"]) == [("influencer.banned", "Spam")]
    for _ in range(2):
        response = await operator.post(f"{ADMIN}/{made['id']}/unban")
        assert response.status_code == 200, response.text
        assert (response.json()["banned"], response.json()["is_active"]) == (False, "active")
    assert (await owner.get(f"{INFLUENCERS}/{made['id']}")).json()["system_prompt"] == INSTRUCTIONS
    await owner.said(conversation["id"], "Hi")
    assert audited(watched, made["id"]) == [("influencer.banned", "Spam"), ("influencer.unbanned", "")]
    assert ["Spam" in payload for payload in told(watched, made["id"])] == [True, False]


async def test_the_status_before_the_ban_comes_back(operator: Api, watched: Service) -> None:
    bot = add_influencer(watched, status="coming_soon")
    await operator.post(f"{ADMIN}/{bot}/ban")
    assert (await operator.post(f"{ADMIN}/{bot}/unban")).json()["is_active"] == "coming_soon"


async def test_what_its_owner_has_deleted_stays_deleted(operator: Api, watched: Service, user_of: MakeUser) -> None:
    owner = user_of(watched)
    made = await created(owner)
    await owner.delete(f"{INFLUENCERS}/{made['id']}")
    refused(await operator.post(f"{ADMIN}/{made['id']}/unban"), 409, "conflict")
    assert (await operator.post(f"{ADMIN}/{made['id']}/ban")).json()["banned"] is True
    refused(await operator.post(f"{ADMIN}/{made['id']}/unban"), 409, "conflict")


async def test_an_id_wins_over_a_name(operator: Api, watched: Service) -> None:
    by_name = add_influencer(watched, name="Wanted")
    assert (await operator.post(f"{ADMIN}/wanted/ban")).json()["id"] == by_name
    by_id = add_influencer(watched, id="wanted")
    assert (await operator.post(f"{ADMIN}/wanted/ban")).json()["id"] == by_id
    refused(await operator.post(f"{ADMIN}/nobody/ban"), 404, "not_found")
    refused(await operator.post(f"{ADMIN}/{by_id}/ban", {"reason": "x" * 501}), 422, "validation_error")


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Admin-Key": KEY[:-1]}, {"X-Admin-Key": "wrong"}, {"X-Admin-Key": ""}, {"X-Admin-Key": "ключ".encode()}],
)
async def test_nobody_else_bans(watched: Service, api: Api, user_of: MakeUser, headers: dict[str, Any]) -> None:
    bot = add_influencer(watched)
    for who in (user_of(watched), api):  # the shared service has no key at all
        for method, path in (("POST", "/ban"), ("POST", "/unban"), ("POST", ""), ("DELETE", "")):
            response: httpx2.Response = await who.request(method, f"{ADMIN}/{bot}{path}", headers=headers)
            assert refused(response, 401, "unauthorized")["message"] == "Invalid admin key"
    response = await api.post(f"{ADMIN}/{bot}/ban", headers={"X-Admin-Key": KEY})
    refused(response, 401, "unauthorized")
