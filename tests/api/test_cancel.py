"""Stopping a reply: contract section 8.5."""

import asyncio

import pytest

from tests.api.expecting import asked, newest, open_fresh, refused, texts_sent
from tests.client import Api, Json, messages
from tests.rows import add_influencer
from tests.service import FakeModel, Service
from tests.waiting import until

# Everything that may stand between the two things that a test does one after the other is much less.
AT_ONCE = 1.0


def path_of(reply: Json) -> str:
    return f"{messages(reply['conversation_id'])}/{reply['id']}/cancel"


async def cancel(api: Api, reply: Json) -> Json:
    response = await asyncio.wait_for(api.post(path_of(reply)), AT_ONCE)
    assert response.status_code == 200, response.text
    stopped: Json = response.json()
    return stopped


async def test_a_silent_turn_is_stopped_at_once(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    reply = await newest(api, conversation["id"])
    stopped = await cancel(api, reply)
    assert stopped == {
        **reply,
        "status": "cancelled",
        "completed_at": stopped["completed_at"],
        "error": {"code": "CANCELLED", "message": stopped["error"]["message"], "retryable": True},
    }
    assert stopped["completed_at"] is not None
    error = refused(await asyncio.wait_for(sending, AT_ONCE), 409, "turn_cancelled")
    assert error["details"]["assistant_message"] == stopped
    assert await newest(api, conversation["id"]) == stopped

    async def vendor_knows() -> bool:
        return model.state()["disconnects"] == 1

    await until(vendor_knows, what="the call to the vendor to end")


async def test_the_partial_text_stays(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["Once", " upon", " a"], "stall_after": 3})
    body = {"message_type": "text", "content": "A story"}
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events):
        text = ""
        async for event in events:
            text += event.data.get("text", "")
            if text == "Once upon a":
                break
        reply = await newest(api, conversation["id"])
        stopped = await cancel(api, reply)
        end = [event async for event in events]
    assert [(event.event, event.data["code"]) for event in end] == [("error", "CANCELLED")]
    assert (stopped["status"], stopped["content"]) == ("cancelled", "Once upon a")
    # With text it counts and is shown as the last message, but is no news to read.
    inbox = (await api.get(f"/api/v1/chat/conversations/{conversation['id']}")).json()
    assert (inbox["message_count"], inbox["unread_count"]) == (3, 1)
    assert (inbox["last_message"]["id"], inbox["last_message"]["status"]) == (reply["id"], "cancelled")
    assert (await api.history(conversation["id"]))[-1] == stopped


async def test_cancelling_twice_changes_nothing(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    reply = await newest(api, conversation["id"])
    at_once = await asyncio.gather(*(cancel(api, reply) for _ in range(5)))
    assert all(stopped == at_once[0] for stopped in at_once)
    assert await cancel(api, reply) == at_once[0]
    refused(await sending, 409, "turn_cancelled")


async def test_a_finished_reply_stays_as_it_is(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello")
    assert await cancel(api, reply) == reply
    model.tell(default={"status": 400})
    await api.send(conversation["id"], "Again")
    failed = await newest(api, conversation["id"])
    assert await cancel(api, failed) == failed
    greeting = conversation["recent_messages"][0]
    assert await cancel(api, greeting) == greeting


async def test_a_waiting_turn_is_stopped_and_the_next_one_runs(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(script=[{"stall_after": 0}])
    sends, replies = [], []
    for number, word in enumerate(("One", "Two", "Three"), start=1):
        sends.append(asyncio.create_task(api.send(conversation["id"], word)))

        async def stored(count: int = number) -> bool:
            return len(await api.history(conversation["id"], include="unfinished")) == 1 + 2 * count

        await until(stored, what=f"message {number}")
        replies.append(await newest(api, conversation["id"]))
    assert (await cancel(api, replies[1]))["status"] == "cancelled"
    refused(await asyncio.wait_for(sends[1], AT_ONCE), 409, "turn_cancelled")
    assert model.state()["requests"] == 1, "the first one still runs, the third one still waits"
    await cancel(api, replies[0])
    refused(await sends[0], 409, "turn_cancelled")
    assert (await sends[2]).json()["assistant_message"]["content"] == "You said: Three"
    assert texts_sent(model.requests()[-1])[1:] == ["One", "Two", "Three"]


async def test_a_cancelled_turn_makes_room(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    sends = [asyncio.create_task(api.send(conversation["id"], f"Message {number}")) for number in range(5)]

    async def full() -> bool:
        return len(await api.history(conversation["id"], include="unfinished")) == 11

    await until(full, what="five turns")
    refused(await api.send(conversation["id"], "One more"), 429, "rate_limit_exceeded")
    model.reset()
    rows = await api.history(conversation["id"], include="unfinished")
    await cancel(api, rows[2])
    await api.said(conversation["id"], "One more")
    for sending in sends:
        await sending


async def test_cancelling_during_a_retry_stops_it(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"status": 429, "retry_after": 2.5})
    sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    stopped = await cancel(api, await newest(api, conversation["id"]))
    assert stopped["status"] == "cancelled"
    refused(await sending, 409, "turn_cancelled")
    assert model.state()["requests"] == 1, "it has waited for the retry"


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.008, 0.012, 0.016, 0.02])
async def test_cancelling_at_the_moment_of_the_end_is_one_or_the_other(
    api: Api, service: Service, model: FakeModel, delay: float
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["Done"], "first_byte_delay": delay})
    sending = asyncio.create_task(api.send(conversation["id"], "Hello"))

    async def accepted() -> bool:
        return len(await api.history(conversation["id"], include="unfinished")) == 3

    await until(accepted, what="the turn")
    stopped = await cancel(api, await newest(api, conversation["id"]))
    response = await sending
    if stopped["status"] == "delivered":
        assert response.status_code == 200
        assert response.json()["assistant_message"] == stopped
    else:
        assert stopped["status"] == "cancelled"
        refused(response, 409, "turn_cancelled")
    assert await newest(api, conversation["id"]) == stopped
    inbox = (await api.get(f"/api/v1/chat/conversations/{conversation['id']}")).json()
    assert inbox["message_count"] == len(await api.history(conversation["id"]))


async def test_cancel_is_for_the_user_and_for_replies(api: Api, other: Api, service: Service) -> None:
    conversation = await api.open(add_influencer(service, owner_id=other.user_id))
    user, reply = await api.said(conversation["id"], "Hello")
    refused(await other.post(path_of(reply)), 403, "forbidden")
    refused(await api.post(path_of(user)), 404, "not_found")
    refused(await api.post(path_of({**reply, "id": "unknown"})), 404, "not_found")
    refused(await api.post(path_of({**reply, "conversation_id": "unknown"})), 404, "not_found")


async def test_an_empty_body_with_a_json_type_is_fine(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello")
    response = await api.post(path_of(reply), headers={"Content-Type": "application/json"}, content=b"")
    assert response.status_code == 200
