"""kill -9 at any moment: every accepted message is there once, with one reply."""

import asyncio
import random
import secrets
import sys
import uuid
from contextlib import suppress

import pytest

from tests.client import Api, Event, messages
from tests.crash.conftest import MakeUser
from tests.crash.outside import CUT, asked, ended, open_turns, whole_history
from tests.service import FakeModel, Service
from tests.waiting import until

# As the engine: a turn that has brought down its process this often is not tried again.
MAX_TAKEOVERS = 3


def body(content: str, key: str | None = None) -> dict[str, object]:
    return {"message_type": "text", "content": content, "client_message_id": key}


async def begin(api: Api, conversation_id: str, content: str) -> Event:
    """Sends, and leaves as soon as the message is accepted; returns the first event."""
    async with api.streaming("POST", f"{messages(conversation_id)}/stream", body(content)) as (_, events):
        return await anext(events)


async def test_a_message_whose_reply_is_pending(own_service: Service, new_user: MakeUser, model: FakeModel) -> None:
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    model.tell(script=[{"first_byte_delay": 60}])
    sending = asyncio.create_task(api.send(conversation["id"], "Hello", client_message_id="one"))
    await asked(model, 1)
    own_service.kill()
    with pytest.raises(CUT):
        await sending
    own_service.start()
    response = await api.send(conversation["id"], "Hello", client_message_id="one")
    assert response.status_code == 200, response.text
    assert response.headers["idempotency-replayed"] == "true"
    user, reply = response.json()["user_message"], response.json()["assistant_message"]
    assert (reply["content"], reply["attempt"], reply["reply_to"]) == ("You said: Hello", 2, user["id"])
    assert [message["id"] for message in await whole_history(api, conversation["id"])][1:] == [user["id"], reply["id"]]
    assert open_turns(own_service) == 0


@pytest.mark.long
async def test_a_reply_in_the_middle_of_its_text(own_service: Service, new_user: MakeUser, model: FakeModel) -> None:
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    model.tell(script=[{"pieces": ["Once", " upon", " a"], "stall_after": 3}, {"echo": True, "is_held": True}])
    start = await begin(api, conversation["id"], "A story")
    reply_id = start.data["assistant_message_id"]

    async def partial() -> bool:
        reply = (await whole_history(api, conversation["id"]))[-1]
        return (reply["status"], reply["content"]) == ("streaming", "Once upon a")

    await until(partial, what="the stored part of the text")
    own_service.kill()
    own_service.start()
    begun_anew = (await whole_history(api, conversation["id"]))[-1]
    assert (begun_anew["id"], begun_anew["status"], begun_anew["attempt"]) == (reply_id, "pending", 2)
    assert begun_anew["content"] == ""
    model.tell(release=100)
    reply = await ended(api, conversation["id"], reply_id)
    assert (reply["status"], reply["content"], reply["attempt"]) == ("delivered", "You said: A story", 2)


async def test_a_kill_right_after_the_message_was_accepted(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("Hello")) as (_, events):
        start = await anext(events)
        own_service.kill()
    own_service.start()
    reply = await ended(api, conversation["id"], start.data["assistant_message_id"])
    assert (reply["status"], reply["content"]) == ("delivered", "You said: Hello")
    found = await whole_history(api, conversation["id"])
    assert [message["id"] for message in found[1:]] == [start.data["user_message"]["id"], reply["id"]]


@pytest.mark.long
async def test_waiting_turns_keep_their_order(own_service: Service, new_user: MakeUser, model: FakeModel) -> None:
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    model.tell(script=[{"stall_after": 1}])
    begun = [await begin(api, conversation["id"], content) for content in ("One", "Two", "Three")]
    await asked(model, 1)
    own_service.kill()
    model.reset()
    own_service.start()
    replies = [await ended(api, conversation["id"], start.data["assistant_message_id"]) for start in begun]
    assert [reply["content"] for reply in replies] == ["You said: One", "You said: Two", "You said: Three"]
    completed = [reply["completed_at"] for reply in replies]
    assert completed == sorted(completed)
    last = model.requests()[-1]["body"]["contents"]
    shown = [part["text"] for content in last for part in content["parts"]]
    assert shown[-5:] == ["One", "You said: One", "Two", "You said: Two", "Three"]


@pytest.mark.long
async def test_a_delivered_text_stays_while_its_replacement_is_killed(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    _, first = await api.said(conversation["id"], "Hello")
    model.tell(script=[{"stall_after": 1}, {"pieces": ["Better"], "is_held": True}])
    path = f"{messages(conversation['id'])}/{first['id']}/regenerate"
    asking = asyncio.create_task(api.post(path))
    await asked(model, 2)
    own_service.kill()
    with pytest.raises(CUT):
        await asking
    own_service.start()
    (kept,) = [message for message in await api.history(conversation["id"]) if message["id"] == first["id"]]
    assert (kept["content"], kept["status"], kept["attempt"]) == (first["content"], "delivered", 1)
    model.tell(release=100)

    async def replaced() -> bool:
        newest = (await api.history(conversation["id"]))[-1]
        return (newest["id"], newest["content"], newest["attempt"]) == (first["id"], "Better", 3)

    await until(replaced, what="the new text")


@pytest.mark.long
async def test_a_turn_that_brings_down_its_process_is_given_up_and_can_be_tried_again(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    model.tell(default={"stall_after": 0})
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("Hello", "key")) as (_, events):
        reply_id = (await anext(events)).data["assistant_message_id"]
    for takeover in range(MAX_TAKEOVERS + 1):
        await asked(model, takeover + 1)
        own_service.kill()
        own_service.start()
    failed = await ended(api, conversation["id"], reply_id)
    assert (failed["status"], failed["content"], failed["attempt"]) == ("failed", "", MAX_TAKEOVERS + 1)
    assert (failed["error"]["code"], failed["error"]["retryable"]) == ("TRANSIENT", True)
    assert open_turns(own_service) == 0
    model.reset()
    _, reply = await api.said(conversation["id"], "Hello", client_message_id="key")
    assert (reply["id"], reply["content"], reply["attempt"]) == (reply_id, "You said: Hello", MAX_TAKEOVERS + 2)


async def _kill_at_random_moments(service: Service, api: Api, model: FakeModel, rounds: int) -> None:
    seed = secrets.randbelow(2**32)
    sys.stdout.write(f"seed {seed}\n")
    rng = random.Random(seed)
    conversation = await api.open()
    # The whole turn takes about as long as the longest wait before the kill.
    model.tell(default={"echo": True, "first_byte_delay": 0.05, "chunk_delay": 0.02})
    told: dict[str, str] = {}  # content → id of the message, where it was acknowledged before the kill
    contents = [f"message {number} of those in which the moment is drawn" for number in range(rounds)]
    keys = [str(uuid.uuid4()) for _ in contents]
    for content, key in zip(contents, keys, strict=True):
        sending = asyncio.create_task(_note_start(api, conversation["id"], content, key, told))
        await asyncio.sleep(rng.uniform(0, 0.4))
        service.kill()
        with suppress(*CUT):
            await sending
        service.start()
        user, reply = await api.said(conversation["id"], content, client_message_id=key)
        assert told.setdefault(content, user["id"]) == user["id"]
        assert reply["content"] == f"You said: {content}"
    found = (await whole_history(api, conversation["id"]))[1:]
    assert [message["content"] for message in found if message["role"] == "user"] == contents
    assert [message["client_message_id"] for message in found if message["role"] == "user"] == keys
    assert [message["content"] for message in found if message["role"] != "user"] == [
        f"You said: {content}" for content in contents
    ]
    assert {message["status"] for message in found} == {"delivered"}
    assert open_turns(service) == 0


async def _note_start(api: Api, conversation_id: str, content: str, key: str, told: dict[str, str]) -> None:
    async with api.streaming("POST", f"{messages(conversation_id)}/stream", body(content, key)) as (_, events):
        async for event in events:
            if event.event == "start":
                told[content] = event.data["user_message"]["id"]


@pytest.mark.long
async def test_a_kill_at_random_moments_of_a_turn(own_service: Service, new_user: MakeUser, model: FakeModel) -> None:
    own_service.start()
    await _kill_at_random_moments(own_service, new_user(own_service), model, rounds=3)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_kill_at_many_random_moments_of_a_turn(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    own_service.start()
    await _kill_at_random_moments(own_service, new_user(own_service), model, rounds=40)
