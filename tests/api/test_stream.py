"""Replies as server-sent events, and coming back to them: contract section 9."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.api.conftest import MakeUser
from tests.api.expecting import newest, open_fresh, refused
from tests.client import PLAIN, Api, Event, Json, messages, text_of
from tests.rows import add_influencer
from tests.service import FakeModel, Service
from tests.waiting import until

# Characters of one to four bytes, combining marks, joined emoji, right to left, and what SSE and JSON must escape.
CHARACTERS = (
    "Zo",
    "e\u0308",
    " 👩‍👩‍",
    "👧 ",
    "नम",
    "स्ते",
    " שלום",
    "\n\n",
    'data: "x"\r',
    "\u2028",
    "🇮",
    "🇳",
    "\\u0041 ",
    "e\u0301nd",
)


async def begin(api: Api, conversation_id: str, content: str = "Go on") -> tuple["asyncio.Task[httpx2.Response]", Json]:
    """Sends without waiting for the reply; returns the waiting sender and the reply's row."""
    sending = asyncio.create_task(api.send(conversation_id, content))

    async def accepted() -> Json | None:
        row = await newest(api, conversation_id)
        return row if row["role"] == "assistant" and row["status"] in ("pending", "streaming") else None

    return sending, await until(accepted, what="the turn to begin")


async def stop(api: Api, reply: Json) -> None:
    path = f"{messages(reply['conversation_id'])}/{reply['id']}/cancel"
    assert (await api.post(path)).status_code == 200


def resume_path(reply: Json) -> str:
    return f"{messages(reply['conversation_id'])}/{reply['id']}/stream"


def body(content: str, **more: Any) -> Json:
    return {"message_type": "text", "content": content, **more}


# --- a stream


async def test_stream_gives_start_tokens_and_done(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    events = await api.stream(conversation["id"], "Tell me", client_message_id="k")
    start, done = events[0], events[-1]
    assert [event.event for event in events] == ["start", *["token"] * (len(events) - 2), "done"]
    assert start.data.keys() == {"user_message", "assistant_message_id", "attempt"}
    assert done.data.keys() == {"assistant_message", "provider", "model", "tokens", "blocked"}
    user, reply = (await api.history(conversation["id"]))[-2:]
    assert start.data == {"user_message": user, "assistant_message_id": reply["id"], "attempt": 1}
    assert done.data == {
        "assistant_message": reply,
        "provider": "gemini",
        "model": "gemini-2.5-flash",
        "tokens": reply["token_count"],
        "blocked": False,
    }
    assert reply["content"] == text_of(events) == "You said: Tell me"
    assert user["client_message_id"] == "k"
    assert all(event.data.keys() == {"text"} and event.data["text"] for event in events[1:-1])


async def test_event_ids_count_code_points(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": CHARACTERS, "chunk_delay": 0.05})
    events = await api.stream(conversation["id"], "Write")
    assert events[0].id == "1-0"
    length = 0
    for event in events[1:-1]:
        length += len(event.data["text"])
        assert event.id == f"1-{length}"
    assert len({event.id for event in events}) == len(events)


@pytest.mark.parametrize("packets", ["event", "pairs", "split_character"])
async def test_joined_tokens_are_the_stored_text(api: Api, service: Service, model: FakeModel, packets: str) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": CHARACTERS, "packets": packets, "chunk_delay": 0.01})
    events = await api.stream(conversation["id"], "Write")
    stored = (await newest(api, conversation["id"]))["content"]
    assert text_of(events) == stored == events[-1].data["assistant_message"]["content"] == "".join(CHARACTERS)


async def test_a_huge_piece_arrives_whole(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    text = "ñ🙂 " * 50_000
    model.tell(default={"pieces": [text, "end"]})
    events = await api.stream(conversation["id"], "Much")
    assert text_of(events) == (await newest(api, conversation["id"]))["content"] == f"{text}end"


async def test_stream_headers_and_frames_are_those_of_the_contract(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["One", " two\n"], "chunk_delay": 0.5})
    path, headers = f"{messages(conversation['id'])}/stream", {"Accept": "application/json", "Accept-Encoding": "gzip"}
    async with api.http.stream("POST", path, json=body("Hi"), headers=headers) as response:
        raw = (await response.aread()).decode()
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in response.headers
    assert "idempotency-replayed" not in response.headers
    assert ": ping\n\n" in raw, "half a second of silence has heartbeats"
    assert raw.endswith("\n\n")
    for block in raw.removesuffix("\n\n").split("\n\n"):
        if block == ": ping":
            continue
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        assert list(lines) == ["id", "event", "data"]
        json.loads(lines["data"])


async def test_the_start_comes_before_the_model_answers(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("Hi")) as (_, events):
        start = await asyncio.wait_for(anext(events), 5)
        user, reply = (await api.history(conversation["id"], include="unfinished"))[-2:]
        assert start.data == {"user_message": user, "assistant_message_id": reply["id"], "attempt": 1}
        assert reply["status"] == "pending"
        await stop(api, reply)
        assert [event.event async for event in events] == ["error"]


async def test_the_first_token_is_not_held_back(impatient: Service, user_of: MakeUser, model: FakeModel) -> None:
    api = user_of(impatient)
    conversation = await open_fresh(api, impatient)
    model.tell(default={"pieces": ["First", " second"], "stall_after": 1})
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("Hi")) as (_, events):
        assert (await anext(events)).event == "start"
        first = await asyncio.wait_for(anext(events), 0.9)
        assert first.data == {"text": "First"}
    await stop(api, await newest(api, conversation["id"]))


async def test_pieces_that_come_together_leave_together(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"chunks": 400})
    events = await api.stream(conversation["id"], "Much")
    assert text_of(events) == "word " * 400
    assert len(events) < 200, "400 pieces without a pause are not 400 events"


async def test_both_messages_are_in_the_history_before_done(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("Hi")) as (_, events):
        async for event in events:
            if event.event == "done":
                history = await api.history(conversation["id"])
                assert history[-1] == event.data["assistant_message"]
                assert history[-2]["content"] == "Hi"
                break
        else:
            pytest.fail("no done")


# --- ends in error


@pytest.mark.parametrize(
    ("behaviour", "code", "retryable", "text"),
    [
        ({"status": 400}, "TRANSIENT", True, ""),
        ({"status": 429, "retry_after": 60}, "TRANSIENT", True, ""),
        ({"block_reason": "SAFETY"}, "BLOCKED_CONTENT", False, ""),
        ({"finish_reason": None}, "TRANSIENT", True, "Hello from the fake."),
    ],
    ids=["refused", "quota", "blocked", "no-end"],
)
async def test_a_failure_ends_the_stream_with_one_error(
    api: Api, service: Service, model: FakeModel, behaviour: Json, code: str, retryable: bool, text: str
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default=behaviour)
    events = await api.stream(conversation["id"], "Will it?")
    assert [event.event for event in events if event.event != "token"] == ["start", "error"]
    assert text_of(events) == text
    error = events[-1].data
    assert error.keys() == {"code", "message", "retryable", "turn_running"}
    assert (error["code"], error["retryable"], error["turn_running"]) == (code, retryable, False)
    reply = await newest(api, conversation["id"])
    assert (reply["status"], reply["content"]) == ("failed", text)
    assert reply["error"] == {name: error[name] for name in ("code", "message", "retryable")}
    # Who comes back later sees the same.
    again = await api.resume(conversation["id"], reply["id"])
    assert [event.event for event in again] == ["start", *["token"] * bool(text), "error"]
    assert (text_of(again), again[-1].data) == (text, error)


async def test_open_circuits_end_the_stream_with_no_provider(
    broken: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(broken)
    conversation = await open_fresh(api, broken)
    await api.stream(conversation["id"], "First")
    events = await api.stream(conversation["id"], "Second")
    assert (events[-1].event, events[-1].data["code"]) == ("error", "NO_PROVIDER")


async def test_cancelling_ends_every_stream(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["Once", " upon"], "stall_after": 2})
    sending, reply = await begin(api, conversation["id"])
    readers = [asyncio.create_task(api.resume(conversation["id"], reply["id"])) for _ in range(3)]

    async def has_text() -> bool:
        return bool((await newest(api, conversation["id"]))["content"] == "Once upon")

    await until(has_text, what="the text")
    await stop(api, reply)
    for events in await asyncio.gather(*readers):
        assert events[-1].event == "error"
        assert (events[-1].data["code"], events[-1].data["turn_running"]) == ("CANCELLED", False)
        assert text_of(events) == "Once upon"
    refused(await sending, 409, "turn_cancelled")


async def test_deleting_the_conversation_ends_every_stream(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("Hi")) as (_, events):
        assert (await anext(events)).event == "start"
        await api.delete(f"/api/v1/chat/conversations/{conversation['id']}")
        (error,) = [event async for event in events]
    assert (error.event, error.data["code"], error.data["turn_running"]) == ("error", "CANCELLED", False)


async def test_what_fails_before_storing_is_an_ordinary_error(
    api: Api, other: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    path = f"{messages(conversation['id'])}/stream"
    refused(await api.post(path, body("")), 422, "validation_error")
    refused(await other.post(path, body("Hi")), 403, "forbidden")
    refused(await api.post(f"{messages('nowhere')}/stream", body("Hi")), 404, "not_found")
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as nobody:
        anonymous = await nobody.post(path, json=body("Hi"))
    refused(anonymous, 401, "unauthorized")
    assert model.state()["requests"] == 0
    assert len(await api.history(conversation["id"], include="unfinished")) == 1


async def test_a_silent_model_ends_the_stream_and_the_turn_goes_on(
    impatient: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(impatient)
    conversation = await open_fresh(api, impatient)
    model.tell(default={"pieces": ["Slowly", " spoken"], "chunk_delay": 3})
    events = await api.stream(conversation["id"], "Take your time")
    assert [event.event for event in events] == ["start", "token", "error"]
    error = events[-1].data
    assert (error["code"], error["retryable"], error["turn_running"]) == ("TRANSIENT", True, True)
    reply = await newest(api, conversation["id"])
    assert reply["status"] in ("pending", "streaming", "delivered")
    # The reader comes back with the last id that it saw, as a browser does by itself, and misses nothing.
    while events[-1].event == "error" and events[-1].data["turn_running"]:
        events += await api.resume(conversation["id"], reply["id"], events[-1].id)
    assert text_of(events) == "Slowly spoken"
    assert events[-1].event == "done"


# --- coming back


async def tell_a_story(api: Api, service: Service) -> tuple[list[Event], Json]:
    conversation = await open_fresh(api, service)
    events = await api.stream(conversation["id"], "Tell me a story")
    return events, events[-1].data["assistant_message"]


async def test_a_finished_reply_is_replayed_as_one_token(api: Api, service: Service, model: FakeModel) -> None:
    events, reply = await tell_a_story(api, service)
    again = await api.resume(reply["conversation_id"], reply["id"])
    assert [event.event for event in again] == ["start", "token", "done"]
    assert again[0].data == events[0].data
    assert again[1].data == {"text": reply["content"]}
    assert again[2].data == events[-1].data
    assert model.state()["requests"] == 1


async def test_a_finished_reply_is_resumed_at_any_point(api: Api, service: Service, model: FakeModel) -> None:
    model.tell(default={"pieces": CHARACTERS})
    _, reply = await tell_a_story(api, service)
    text = reply["content"]
    for place in range(len(text) + 1):
        rest = await api.resume(reply["conversation_id"], reply["id"], f"1-{place}")
        expected = ["token", "done"] if place < len(text) else ["done"]
        assert [event.event for event in rest] == expected
        assert text[:place] + text_of(rest) == text
    after_the_end = await api.resume(reply["conversation_id"], reply["id"], "1-done")
    assert [event.event for event in after_the_end] == ["done"]


@pytest.mark.parametrize(
    "last_event_id",
    [
        "",
        "2-0",
        "0-3",
        "1-",
        "1",
        "-",
        "x",
        "1-x",
        "1--1",
        "1-999999",
        "1-99999999999999999999",
        "1-३",
        "01-3",
        "1-1-1",
        "9" * 4000,
    ],
)
async def test_an_unusable_id_starts_from_the_beginning(api: Api, service: Service, last_event_id: str) -> None:
    _, reply = await tell_a_story(api, service)
    async with api.http.stream("GET", resume_path(reply), params={"last_event_id": last_event_id}) as response:
        assert response.status_code == 200
        names = [line async for line in response.aiter_lines() if line.startswith("event: ")]
    assert names == ["event: start", "event: token", "event: done"]


async def test_the_last_id_may_stand_in_the_query(api: Api, service: Service) -> None:
    _, reply = await tell_a_story(api, service)
    async with api.streaming("GET", f"{resume_path(reply)}?last_event_id=1-3") as (_, events):
        found = [event async for event in events]
    assert text_of(found) == reply["content"][3:]


async def test_a_running_reply_is_resumed_in_mid_stream(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    pieces = [f"{number}é🙂 " for number in range(12)]
    model.tell(default={"pieces": pieces, "chunk_delay": 0.1})
    seen: list[Event] = []
    path, last_event_id = f"{messages(conversation['id'])}/stream", None
    # Two events, then the connection is lost, again and again.
    async with api.streaming("POST", path, body("Count")) as (_, events):
        seen += [await anext(events), await anext(events)]
    path = f"{messages(conversation['id'])}/{seen[0].data['assistant_message_id']}/stream"
    while seen[-1].event != "done":
        last_event_id = seen[-1].id
        async with api.streaming("GET", path, headers={"Last-Event-ID": last_event_id}) as (response, events):
            assert response.status_code == 200
            seen += await some(events, 2)
    assert [event.event for event in seen].count("start") == 1
    assert text_of(seen) == "".join(pieces) == seen[-1].data["assistant_message"]["content"]
    assert model.state()["requests"] == 1


async def some(events: AsyncIterator[Event], count: int) -> list[Event]:
    """The next `count` events, or fewer at the end."""
    found = []
    async for event in events:
        found.append(event)
        if len(found) == count:
            break
    return found


async def test_readers_who_come_at_different_times_read_the_same(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    pieces = [f"word{number} " for number in range(15)]
    model.tell(default={"pieces": pieces, "is_held": True})
    sending, reply = await begin(api, conversation["id"])
    readers, told = [], []
    async with api.streaming("GET", resume_path(reply)) as (_, events):
        async for event in events:  # a new reader with every event of the first one
            readers.append(asyncio.create_task(api.resume(conversation["id"], reply["id"])))
            told.append(event)
            model.tell(release=2)
    whole = "".join(pieces)
    assert told[-1].event == "done"
    assert len(readers) > 5
    for seen in await asyncio.gather(*readers):
        assert (seen[0].event, seen[-1].event) == ("start", "done")
        assert text_of(seen) == whole
        assert seen[-1].data == told[-1].data
    assert (await sending).json()["assistant_message"]["content"] == whole
    assert model.state()["requests"] == 1


async def test_a_waiting_reply_can_be_followed_before_its_turn_comes(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(script=[{"stall_after": 0}])
    first, first_reply = await begin(api, conversation["id"], "One")
    second = asyncio.create_task(api.send(conversation["id"], "Two"))

    async def waiting() -> Json | None:
        row = await newest(api, conversation["id"])
        return row if row["id"] != first_reply["id"] and row["role"] == "assistant" else None

    second_reply = await until(waiting, what="the second turn")
    async with api.streaming("GET", resume_path(second_reply)) as (_, events):
        assert (await anext(events)).event == "start"
        await stop(api, first_reply)
        rest = [event async for event in events]
    assert text_of(rest) == "You said: Two"
    refused(await first, 409, "turn_cancelled")
    assert (await second).status_code == 200


async def test_the_owner_of_the_bot_may_read_along(api: Api, other: Api, service: Service) -> None:
    conversation = await api.open(add_influencer(service, owner_id=other.user_id))
    _, reply = await api.said(conversation["id"], "Hello")
    seen = await other.resume(conversation["id"], reply["id"])
    assert text_of(seen) == reply["content"]


async def test_only_model_replies_of_ones_own_are_streamed(api: Api, other: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    greeting = conversation["recent_messages"][0]
    user, reply = await api.said(conversation["id"], "Hello")
    refused(await api.get(resume_path(greeting)), 409, "not_streamable")
    refused(await api.get(resume_path(user)), 409, "not_streamable")
    refused(await api.get(resume_path({**reply, "id": "unknown"})), 404, "not_found")
    refused(await api.get(resume_path({**reply, "conversation_id": "unknown"})), 404, "not_found")
    refused(await other.get(resume_path(reply)), 403, "forbidden")
    elsewhere = await open_fresh(api, service)
    refused(await api.get(resume_path({**reply, "conversation_id": elsewhere["id"]})), 404, "not_found")


async def test_resuming_is_no_replay_of_a_message(api: Api, service: Service) -> None:
    _, reply = await tell_a_story(api, service)
    async with api.streaming("GET", resume_path(reply)) as (response, events):
        assert "idempotency-replayed" not in response.headers
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert [event.event async for event in events][-1] == "done"


# --- over a restart


@pytest.mark.long
async def test_a_kill_in_mid_stream_begins_a_new_attempt_from_the_start(
    own_service: Service, user_of: MakeUser, model: FakeModel
) -> None:
    own_service.start()
    api = user_of(own_service)
    conversation = await open_fresh(api, own_service)
    model.tell(script=[{"pieces": ["Once", " upon", " a"], "stall_after": 2}])
    seen: list[Event] = []
    try:
        async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body("A story")) as (_, events):
            seen += await some(events, 2)
            own_service.kill()
            seen += [event async for event in events]
    except httpx2.RemoteProtocolError:
        pass  # the connection was cut, which is what a kill is
    own_service.start()
    reply_id = seen[0].data["assistant_message_id"]
    again = await api.resume(conversation["id"], reply_id, seen[-1].id)
    assert again[0].event == "start"
    assert again[0].data["attempt"] == 2
    assert text_of(again) == "You said: A story" == again[-1].data["assistant_message"]["content"]
    history = await api.history(conversation["id"], include="unfinished")
    assert [message["id"] for message in history[1:]] == [seen[0].data["user_message"]["id"], reply_id]
