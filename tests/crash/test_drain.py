"""SIGTERM: new turns are refused, what runs may end, the rest is handed back, and the process ends well."""

import asyncio
import signal
import time

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.client import Api, messages, text_of
from tests.crash.conftest import MakeUser
from tests.crash.outside import asked, ended
from tests.crash.test_kill import body
from tests.service import FakeModel, Service, token
from tests.waiting import until

# The drain itself, and what a loaded machine needs to leave.
PROMPT_SECONDS = 10.0


def terminate(service: Service, number: signal.Signals = signal.SIGTERM) -> None:
    service.process.process.send_signal(number)


async def exit_status(service: Service) -> int:
    """Waits for the end of the process, which has been told already."""
    await asyncio.to_thread(service.process.process.wait, 40)
    return service.process.end(signal.SIGTERM)


async def drains(api: Api) -> None:
    async def look() -> bool:
        return (await api.http.get("/health/ready")).status_code == 503

    await until(look, what="not ready while draining")


async def test_a_running_stream_ends_while_new_turns_are_refused(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    own_service.start()
    api, other = new_user(own_service), new_user(own_service)
    conversation, elsewhere = await api.open(), await other.open()
    user, old = await other.said(elsewhere["id"], "Before", client_message_id="old")
    model.tell(script=[{"chunks": 12, "is_held": True}], release=1)
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("A story")) as (_, events):
        seen = [await anext(events), await anext(events)]
        terminate(own_service)
        await drains(other)
        ready = (await other.http.get("/health/ready")).json()
        assert (ready["status"], ready["checks"]["draining"]) == ("not_ready", True)
        assert (await other.http.get("/health/live")).json() == {"status": "alive"}
        await _is_refused(other, elsewhere["id"])
        # Everything else is still answered, repetitions of what was answered included.
        assert [message["id"] for message in await other.history(elsewhere["id"])][1:] == [user["id"], old["id"]]
        assert await other.said(elsewhere["id"], "Before", client_message_id="old") == (user, old)
        model.tell(release=100)
        seen += [event async for event in events]
    assert seen[-1].event == "done"
    assert text_of(seen) == "word " * 12 == seen[-1].data["assistant_message"]["content"]
    assert await exit_status(own_service) == 0
    own_service.start()
    reply = (await api.history(conversation["id"]))[-1]
    assert (reply["content"], reply["attempt"], reply["status"]) == ("word " * 12, 1, "delivered")
    assert len(await other.history(elsewhere["id"], include="unfinished")) == 3


async def _is_refused(api: Api, conversation_id: str) -> None:
    path = messages(conversation_id)
    for target in (path, f"{path}/stream"):
        response = await api.post(target, body("Now"))
        assert (response.status_code, response.json()["error"]) == (503, "service_unavailable")
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.long
async def test_what_does_not_end_in_time_is_handed_to_the_next_process(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    own_service.settings["SHUTDOWN_GRACE_SECONDS"] = "1"
    own_service.start()
    api, other = new_user(own_service), new_user(own_service)
    conversation, elsewhere = await api.open(), await other.open()
    model.tell(default={"pieces": ["Once", " upon"], "stall_after": 1})
    waiting = asyncio.create_task(other.send(elsewhere["id"], "Hello"))
    address = f"{own_service.url.replace('http', 'ws')}/api/v1/chat/ws/inbox/{api.user_id}?token={token(api.user_id)}"
    async with (
        connect(address) as socket,
        api.streaming("POST", f"{messages(conversation['id'])}/stream", body("A story")) as (_, events),
    ):
        start, first = await anext(events), await anext(events)
        await asked(model, 2)
        terminated_at = time.monotonic()
        terminate(own_service)
        rest = [event async for event in events]
        code = await _closed(socket)
    assert first.data == {"text": "Once"}
    assert [event.event for event in rest] == ["error"]
    assert (rest[0].data["code"], rest[0].data["turn_running"], rest[0].data["retryable"]) == ("TRANSIENT", True, True)
    response = await waiting
    assert (response.status_code, response.json()["error"]) == (504, "turn_timeout")
    assert response.json()["details"]["assistant_message"]["status"] in ("pending", "streaming")
    assert code == 1012
    assert await exit_status(own_service) == 0
    assert time.monotonic() - terminated_at < PROMPT_SECONDS
    model.reset()
    own_service.start()
    # At once: the lease of a minute is not waited for.
    reply = await ended(api, conversation["id"], start.data["assistant_message_id"])
    assert (reply["content"], reply["attempt"]) == ("You said: A story", 2)
    later = await ended(other, elsewhere["id"], response.json()["details"]["assistant_message"]["id"])
    assert (later["content"], later["attempt"]) == ("You said: Hello", 2)


@pytest.mark.long
async def test_who_waits_for_a_picture_is_told_that_it_comes_later(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    own_service.settings |= {**model.picture_settings, "SHUTDOWN_GRACE_SECONDS": "1"}
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    path, key = f"/api/v1/chat/conversations/{conversation['id']}/images", {"Idempotency-Key": "key"}
    model.tell(script=[{"first_byte_delay": 60}])
    waiting = asyncio.create_task(api.post(path, {"prompt": "a boat"}, headers=key))
    await asked(model, 1)
    terminate(own_service)
    response = await waiting
    assert (response.status_code, response.json()["error"]) == (504, "ai_timeout")
    assert await exit_status(own_service) == 0
    own_service.start()
    again = await api.post(path, {"prompt": "a boat"}, headers=key)
    assert (again.status_code, again.json()["attempt"]) == (201, 2)


async def _closed(socket: ClientConnection) -> int | None:
    """The code with which the server closes."""
    while True:
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code


@pytest.mark.long
async def test_a_second_ctrl_c_ends_it_at_once(sqlite_service: Service, new_user: MakeUser, model: FakeModel) -> None:
    sqlite_service.settings["SHUTDOWN_GRACE_SECONDS"] = "60"
    sqlite_service.start()
    api = new_user(sqlite_service)
    conversation = await api.open()
    model.tell(script=[{"stall_after": 1}])
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("Hello")) as (_, events):
        start = await anext(events)
        await asked(model, 1)
        terminate(sqlite_service, signal.SIGINT)
        await drains(api)
        asked_again_at = time.monotonic()
        terminate(sqlite_service, signal.SIGINT)
        assert await exit_status(sqlite_service) == 0
        assert time.monotonic() - asked_again_at < PROMPT_SECONDS
        assert [event async for event in events][-1].data["turn_running"]
    sqlite_service.start()
    reply = await ended(api, conversation["id"], start.data["assistant_message_id"])
    assert (reply["content"], reply["attempt"]) == ("You said: Hello", 2)


async def test_an_idle_service_leaves_promptly_whoever_is_connected(
    sqlite_service: Service, new_user: MakeUser
) -> None:
    sqlite_service.start()
    api = new_user(sqlite_service)
    conversation = await api.open()
    await api.history(conversation["id"])  # leaves a connection that is kept open
    address = (
        f"{sqlite_service.url.replace('http', 'ws')}/api/v1/chat/ws/inbox/{api.user_id}?token={token(api.user_id)}"
    )
    async with connect(address) as socket:
        started = time.monotonic()
        terminate(sqlite_service)
        assert await _closed(socket) == 1012
    assert await exit_status(sqlite_service) == 0
    assert time.monotonic() - started < PROMPT_SECONDS
