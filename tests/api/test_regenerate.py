"""A new attempt of the newest reply: contract section 8.4."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.api.conftest import MakeUser
from tests.api.expecting import GREETING, asked, newest, open_fresh, refused, texts_sent
from tests.client import Api, Event, Json, messages, text_of
from tests.rows import add_influencer, set_status
from tests.service import FakeModel, Service
from tests.waiting import there, until


async def seen(api: Api, conversation_id: str) -> Json:
    conversation: Json = (await api.get(f"/api/v1/chat/conversations/{conversation_id}")).json()
    return conversation


def path_of(reply: Json, action: str = "regenerate") -> str:
    return f"{messages(reply['conversation_id'])}/{reply['id']}/{action}"


async def regenerate(api: Api, reply: Json, **query: Any) -> httpx2.Response:
    return await api.post(path_of(reply), params=query)


async def regenerate_stream(api: Api, reply: Json) -> list[Event]:
    async with api.streaming("POST", f"{path_of(reply)}?stream=true") as (response, events):
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        return [event async for event in events]


async def test_a_delivered_reply_is_replaced(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    user, reply = await api.said(conversation["id"], "Hello")
    await api.post(f"/api/v1/chat/conversations/{conversation['id']}/read")
    model.tell(default={"pieces": ["Better", " now"]})
    response = await regenerate(api, reply)
    assert response.status_code == 200
    assert "idempotency-replayed" not in response.headers
    assert response.json()["user_message"] == user
    again = response.json()["assistant_message"]
    assert {name: again[name] for name in ("id", "sequence", "created_at", "reply_to")} == {
        name: reply[name] for name in ("id", "sequence", "created_at", "reply_to")
    }
    assert (again["content"], again["attempt"], again["status"]) == ("Better now", 2, "delivered")
    assert again["completed_at"] > reply["completed_at"]
    assert (await api.history(conversation["id"]))[1:] == [user, again]
    inbox = await seen(api, conversation["id"])
    assert (inbox["message_count"], inbox["unread_count"]) == (3, 1), "read before, unread again"
    assert (inbox["last_message"]["content"], inbox["last_message"]["status"]) == ("Better now", "delivered")
    assert texts_sent(model.requests()[-1]) == [GREETING, "Hello"], "the old reply is no part of the prompt"


async def test_an_unread_reply_counts_once_after_it_was_replaced(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello")
    assert (await regenerate(api, reply)).status_code == 200
    assert (await seen(api, conversation["id"]))["unread_count"] == 2


@pytest.mark.parametrize("how", ["failed", "cancelled", "blocked"])
async def test_a_failed_reply_is_run_again(api: Api, service: Service, model: FakeModel, how: str) -> None:
    conversation = await open_fresh(api, service)
    if how == "cancelled":
        model.tell(default={"pieces": ["Half"], "stall_after": 1})
        sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
        await until(lambda: asked(model, 1), what="the model to be asked")
        await api.post(path_of(await newest(api, conversation["id"]), "cancel"))
        refused(await sending, 409, "turn_cancelled")
    else:
        model.tell(default={"finish_reason": None} if how == "failed" else {"block_reason": "SAFETY"})
        await api.send(conversation["id"], "Hello")
    before = await newest(api, conversation["id"])
    model.reset()
    again = (await regenerate(api, before)).json()["assistant_message"]
    assert (again["id"], again["sequence"], again["attempt"]) == (before["id"], before["sequence"], 2)
    assert (again["status"], again["content"], again["error"]) == ("delivered", "You said: Hello", None)
    inbox = await seen(api, conversation["id"])
    assert (inbox["message_count"], inbox["unread_count"]) == (3, 2)
    assert inbox["last_message"]["id"] == again["id"]


async def test_a_partial_reply_leaves_the_counts_while_it_is_run_again(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"finish_reason": None})
    await api.send(conversation["id"], "Hello")
    reply = await newest(api, conversation["id"])
    assert (reply["status"], (await seen(api, conversation["id"]))["message_count"]) == ("failed", 3)
    model.tell(default={"stall_after": 0})
    running = asyncio.create_task(regenerate(api, reply))
    await until(lambda: asked(model, 2), what="the model to be asked again")
    meanwhile = await newest(api, conversation["id"])
    assert (meanwhile["status"], meanwhile["content"], meanwhile["attempt"]) == ("pending", "", 2)
    assert meanwhile["error"] is None
    assert meanwhile["completed_at"] is None
    inbox = await seen(api, conversation["id"])
    assert (inbox["message_count"], inbox["last_message"]["role"]) == (2, "user")
    await api.post(path_of(reply, "cancel"))
    refused(await running, 409, "turn_cancelled")
    assert (await seen(api, conversation["id"]))["message_count"] == 2


async def test_a_delivered_reply_stays_while_it_is_replaced(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello")
    model.tell(default={"pieces": ["New", " text"], "stall_after": 2})
    async with api.streaming("POST", f"{path_of(reply)}?stream=true") as (_, events):
        start, token = await anext(events), await anext(events)
        assert (start.event, start.data["attempt"], start.id) == ("start", 2, "2-0")
        assert token.data["text"].startswith("New")
        assert await newest(api, conversation["id"]) == reply
        await api.post(path_of(reply, "cancel"))
        end = [event async for event in events][-1]
    assert (end.event, end.data["code"]) == ("error", "CANCELLED")
    assert await newest(api, conversation["id"]) == reply, "for good, when the new attempt was stopped"
    assert (await seen(api, conversation["id"]))["message_count"] == 3


@pytest.mark.parametrize("is_streamed", [False, True], ids=["json", "stream"])
async def test_a_delivered_reply_stays_when_the_new_attempt_fails(
    api: Api, service: Service, model: FakeModel, is_streamed: bool
) -> None:
    conversation = await open_fresh(api, service)
    user, reply = await api.said(conversation["id"], "Hello")
    model.tell(default={"finish_reason": None})
    if is_streamed:
        events = await regenerate_stream(api, reply)
        assert (events[-1].event, events[-1].data["code"]) == ("error", "TRANSIENT")
        assert text_of(events) == "Hello from the fake."
    else:
        error = refused(await regenerate(api, reply), 503, "ai_unavailable", retry_after="5")
        assert error["details"] == {"user_message": user, "assistant_message": reply}
    assert await newest(api, conversation["id"]) == reply
    replay = await api.resume(conversation["id"], reply["id"])
    assert (replay[0].data["attempt"], text_of(replay), replay[-1].event) == (1, reply["content"], "done")
    # The attempt that failed has used up its number: the next one does not repeat its event ids.
    model.reset()
    events = await regenerate_stream(api, reply)
    assert (events[0].data["attempt"], events[-1].data["assistant_message"]["attempt"]) == (3, 3)


async def test_regenerate_streams(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    user, reply = await api.said(conversation["id"], "Hello")
    events = await regenerate_stream(api, reply)
    assert events[0].data == {"user_message": user, "assistant_message_id": reply["id"], "attempt": 2}
    assert text_of(events) == events[-1].data["assistant_message"]["content"] == "You said: Hello"
    assert all(event.id.startswith("2-") for event in events)
    assert await newest(api, conversation["id"]) == events[-1].data["assistant_message"]
    # An id of the attempt before is of no use any more.
    again = await api.resume(conversation["id"], reply["id"], "1-3")
    assert [event.event for event in again] == ["start", "token", "done"]


async def test_a_key_that_repeats_gets_the_regenerated_reply(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello", client_message_id="k")
    model.tell(default={"pieces": ["Better"]})
    await regenerate(api, reply)
    response = await api.send(conversation["id"], "Hello", client_message_id="k")
    again = response.json()["assistant_message"]
    assert response.headers["idempotency-replayed"] == "true"
    assert (again["id"], again["content"], again["attempt"]) == (reply["id"], "Better", 2)


async def test_a_key_that_repeats_during_a_replacement_gets_the_stored_pair(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello", client_message_id="k")
    model.tell(default={"stall_after": 0})
    running = asyncio.create_task(regenerate(api, reply))
    await until(lambda: asked(model, 2), what="the model to be asked again")
    try:
        response = await asyncio.wait_for(api.send(conversation["id"], "Hello", client_message_id="k"), 5)
        assert response.status_code == 200
        assert response.json()["assistant_message"] == reply
    finally:
        await api.post(path_of(reply, "cancel"))
        refused(await running, 409, "turn_cancelled")


async def test_a_slow_regeneration_times_out_and_goes_on(
    impatient: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(impatient)
    conversation = await open_fresh(api, impatient)
    reply = (await api.stream(conversation["id"], "Hello"))[-1].data["assistant_message"]
    model.tell(default={"pieces": ["Slow"], "first_byte_delay": 1.0})
    error = refused(await regenerate(api, reply), 504, "turn_timeout", retry_after="5")
    assert error["details"]["assistant_message"] == reply

    async def replaced() -> bool:
        return bool((await newest(api, conversation["id"]))["content"] == "Slow")

    await until(replaced, what="the new text")


async def test_only_the_newest_reply_is_regenerated(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    greeting = conversation["recent_messages"][0]
    refused(await regenerate(api, greeting), 409, "conflict")
    user, first = await api.said(conversation["id"], "One")
    _, second = await api.said(conversation["id"], "Two")
    refused(await regenerate(api, first), 409, "conflict")
    refused(await regenerate(api, user), 409, "conflict")
    refused(await regenerate(api, {**second, "id": "unknown"}), 404, "not_found")
    refused(await regenerate(api, {**second, "conversation_id": "unknown"}), 404, "not_found")
    assert model.state()["requests"] == 2
    assert [row["attempt"] for row in await api.history(conversation["id"])] == [1] * 5


async def test_nothing_is_regenerated_while_a_turn_runs(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    _, first = await api.said(conversation["id"], "One")
    model.tell(default={"stall_after": 0})
    sending = asyncio.create_task(api.send(conversation["id"], "Two"))
    await until(lambda: asked(model, 2), what="the model to be asked")
    running = await newest(api, conversation["id"])
    for reply in (first, running):
        refused(await regenerate(api, reply), 409, "conflict")
    await api.post(path_of(running, "cancel"))
    refused(await sending, 409, "turn_cancelled")


async def test_two_regenerations_at_once_are_one(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "One")
    model.tell(default={"echo": True, "is_held": True})
    asking = [asyncio.create_task(regenerate(api, reply)) for _ in range(4)]
    await until(there(lambda: sum(task.done() for task in asking) == 3), what="all but one to be refused")
    model.tell(release=100)
    answers = await asyncio.gather(*asking)
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert model.state()["requests"] == 2


async def test_regenerate_is_for_the_user_and_for_living_personas(api: Api, other: Api, service: Service) -> None:
    influencer_id = add_influencer(service, owner_id=other.user_id)
    conversation = await api.open(influencer_id)
    _, reply = await api.said(conversation["id"], "Hello")
    refused(await regenerate(other, reply), 403, "forbidden")
    set_status(service, influencer_id, "discontinued")
    refused(await regenerate(api, reply), 403, "forbidden")
    refused(await api.post(path_of(reply), params={"stream": "perhaps"}), 422, "validation_error")
    assert await newest(api, conversation["id"]) == reply
