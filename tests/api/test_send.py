"""Sending a message and getting its reply in one answer: contract sections 8.1 and 8.2."""

import asyncio
import re
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.api.conftest import MakeUser
from tests.api.expecting import GREETING, asked, newest, open_fresh, refused, texts_sent
from tests.client import Api, Json, messages
from tests.rows import add_influencer, set_status
from tests.service import FakeModel, Service, token
from tests.waiting import until

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")

# Answers never end by themselves with this one: the turn runs until somebody stops it.
ENDLESS = {"pieces": ["Once", " upon"], "stall_after": 2}
SILENT = {"stall_after": 0}


async def stop_all(api: Api, *conversation_ids: str) -> None:
    """Ends what still runs, so that the next test has the model for itself."""
    for conversation_id in conversation_ids:
        for message in reversed(await api.history(conversation_id, include="unfinished")):
            if message["status"] in ("pending", "streaming"):
                await api.post(f"{messages(conversation_id)}/{message['id']}/cancel")


# --- a reply


async def test_send_answers_with_both_messages(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    response = await api.send(conversation["id"], "  Hello there \n", client_message_id="key-1")
    assert response.status_code == 200
    assert "idempotency-replayed" not in response.headers
    user, reply = response.json()["user_message"], response.json()["assistant_message"]
    assert UUID.fullmatch(user["id"])
    assert UUID.fullmatch(reply["id"])
    assert user == {
        **user,
        "role": "user",
        "content": "Hello there",
        "message_type": "text",
        "media_urls": [],
        "token_count": None,
        "status": "delivered",
        "is_read": False,
        "sender_id": api.user_id,
        "client_message_id": "key-1",
        "reply_to": None,
        "origin": "user",
        "attempt": 1,
        "error": None,
        "completed_at": user["created_at"],
    }
    assert reply == {
        **reply,
        "role": "assistant",
        "content": "You said: Hello there",
        "status": "delivered",
        "sender_id": conversation["influencer_id"],
        "client_message_id": None,
        "reply_to": user["id"],
        "origin": "model",
        "attempt": 1,
        "error": None,
    }
    assert reply["token_count"] == 4
    assert user["sequence"] < reply["sequence"]
    assert user["created_at"] < reply["created_at"] <= reply["completed_at"]
    assert (await api.history(conversation["id"]))[-2:] == [user, reply]


async def test_times_rise_by_a_millisecond_from_message_to_message(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    for number in range(3):
        await api.said(conversation["id"], f"Message {number}")
    history = await api.history(conversation["id"])
    stamps = [datetime.fromisoformat(message["created_at"]) for message in history]
    assert len(history) == 7
    assert [message["sequence"] for message in history] == sorted({message["sequence"] for message in history})
    for earlier, later in pairwise(stamps):
        assert later - earlier >= timedelta(milliseconds=1)


async def test_send_by_a_number_is_taken_as_its_text(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    response = await api.post(messages(conversation["id"]), {"message_type": "TEXT", "content": 42, "whatever": [1]})
    assert response.status_code == 200, response.text
    assert response.json()["user_message"]["content"] == "42"


async def test_a_reply_cut_at_the_output_limit_is_a_reply(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"finish_reason": "MAX_TOKENS"})
    _, reply = await api.said(conversation["id"], "Tell me everything")
    assert (reply["status"], reply["content"]) == ("delivered", "Hello from the fake.")


async def test_a_coming_persona_can_be_talked_to(api: Api, service: Service) -> None:
    conversation = await api.open(add_influencer(service, status="coming_soon"))
    _, reply = await api.said(conversation["id"], "Already here?")
    assert reply["content"] == "You said: Already here?"


# --- no reply


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "error_code", "retry_after", "content"),
    [
        ({"status": 400}, 503, "ai_unavailable", "TRANSIENT", "5", ""),
        ({"status": 404}, 503, "ai_unavailable", "TRANSIENT", "5", ""),
        ({"status": 429, "retry_after": 77}, 429, "ai_rate_limited", "TRANSIENT", "77", ""),
        ({"block_reason": "SAFETY"}, 422, "content_blocked", "BLOCKED_CONTENT", None, ""),
        ({"finish_reason": "SAFETY"}, 422, "content_blocked", "BLOCKED_CONTENT", None, ""),
        ({"cut_after_bytes": 400}, 503, "ai_unavailable", "TRANSIENT", "5", "Hello"),
        ({"finish_reason": None}, 503, "ai_unavailable", "TRANSIENT", "5", "Hello from the fake."),
        ({"error_after": 2}, 503, "ai_unavailable", "TRANSIENT", "5", "Hello from"),
    ],
    ids=["refused", "gone", "quota", "blocked-prompt", "blocked-answer", "cut", "no-end", "error-in-stream"],
)
async def test_a_failed_model_gives_a_failed_message(
    api: Api,
    service: Service,
    model: FakeModel,
    behaviour: Json,
    status: int,
    code: str,
    error_code: str,
    retry_after: str | None,
    content: str,
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default=behaviour)
    error = refused(await api.send(conversation["id"], "Will this work?"), status, code, retry_after=retry_after)
    user, reply = error["details"]["user_message"], error["details"]["assistant_message"]
    assert (user["role"], user["status"], user["content"]) == ("user", "delivered", "Will this work?")
    assert (reply["role"], reply["status"], reply["reply_to"]) == ("assistant", "failed", user["id"])
    assert reply["error"]["code"] == error_code
    assert reply["error"]["retryable"] == (error_code != "BLOCKED_CONTENT")
    assert reply["completed_at"] is not None
    assert reply["content"] == content
    assert await newest(api, conversation["id"]) == reply
    # With text it is part of the ordinary history, without it is not.
    shown = await api.history(conversation["id"])
    assert shown[-1] == (reply if content else user)
    seen = (await api.get(f"/api/v1/chat/conversations/{conversation['id']}")).json()
    assert seen["message_count"] == len(shown)
    assert seen["last_message"]["id"] == user["id"]
    assert seen["unread_count"] == 1  # the greeting


async def test_quota_without_a_hint_says_thirty_seconds(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"status": 429})
    refused(await api.send(conversation["id"], "Hello"), 429, "ai_rate_limited", retry_after="30")


async def test_an_empty_answer_is_a_failure(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"has_candidates": False})
    error = refused(await api.send(conversation["id"], "Hello"), 503, "ai_unavailable", retry_after="5")
    assert error["details"]["assistant_message"]["content"] == ""


async def test_the_first_token_is_timed_from_the_start_of_the_turn(
    api: Api, service: Service, model: FakeModel
) -> None:
    async def summed() -> float:
        found = re.search(r"^turn_first_token_seconds_sum (\S+)$", (await api.get("/metrics")).text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    conversation = await open_fresh(api, service)
    before = await summed()
    model.tell(script=[{"status": 503, "first_byte_delay": 0.5}, {"echo": True}])
    await api.said(conversation["id"], "Hi")
    assert 0.5 <= await summed() - before < 5, "whoever waits does not care how many calls it took"


async def test_a_failure_before_the_first_token_is_retried_inside_the_turn(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(script=[{"status": 503}])
    _, reply = await api.said(conversation["id"], "Still there?")
    assert (reply["content"], reply["attempt"]) == ("You said: Still there?", 1)
    assert model.state()["requests"] == 2


async def test_open_circuits_say_that_no_provider_can_be_used(
    broken: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(broken)
    conversation = await open_fresh(api, broken)
    await api.send(conversation["id"], "First")
    calls = model.state()["requests"]
    error = refused(await api.send(conversation["id"], "Second"), 503, "no_provider", retry_after="30")
    reply = error["details"]["assistant_message"]
    assert (reply["status"], reply["error"]["code"], reply["error"]["retryable"]) == ("failed", "NO_PROVIDER", True)
    assert model.state()["requests"] == calls, "an open circuit asks nobody"


async def test_a_slow_reply_is_a_timeout_for_the_sender_and_goes_on(
    impatient: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(impatient)
    conversation = await open_fresh(api, impatient)
    model.tell(default={"pieces": ["Slow", " but", " sure"], "chunk_delay": 0.7})
    error = refused(await api.send(conversation["id"], "Hurry"), 504, "turn_timeout", retry_after="5")
    reply = error["details"]["assistant_message"]
    assert reply["status"] in ("pending", "streaming")
    assert "Slow but sure".startswith(reply["content"])

    async def delivered() -> Json | None:
        seen = await newest(api, conversation["id"])
        return seen if seen["status"] == "delivered" else None

    ended = await until(delivered, what="the reply to be delivered")
    assert (ended["id"], ended["content"], ended["attempt"]) == (reply["id"], "Slow but sure", 1)


async def test_a_model_that_never_ends_ends_with_the_time_of_its_turn(
    impatient: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(impatient)
    conversation = await open_fresh(api, impatient)
    model.tell(default=ENDLESS)
    refused(await api.send(conversation["id"], "A story"), 504, "turn_timeout")

    async def ended() -> Json | None:
        row = await newest(api, conversation["id"])
        return row if row["status"] == "failed" else None

    row = await until(ended, what="the end of the turn")
    assert (row["content"], row["error"]["code"], row["error"]["retryable"]) == ("Once upon", "TRANSIENT", True)


async def test_the_time_limit_covers_the_wait_for_earlier_turns(
    impatient: Service, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(impatient)
    conversation = await open_fresh(api, impatient)
    model.tell(default=SILENT)
    first, second = await asyncio.gather(api.send(conversation["id"], "One"), api.send(conversation["id"], "Two"))
    for response in (first, second):
        error = refused(response, 504, "turn_timeout", retry_after="5")
        assert error["details"]["assistant_message"]["status"] == "pending"
    await until(lambda: asked(model, 1), what="the model to be asked")
    assert model.state()["requests"] == 1
    await stop_all(api, conversation["id"])


async def test_partial_text_is_stored_while_it_arrives(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default=ENDLESS)
    sending = asyncio.create_task(api.send(conversation["id"], "Tell me a story"))

    async def partial() -> Json | None:
        seen = await newest(api, conversation["id"])
        return seen if seen["content"] == "Once upon" else None

    row = await until(partial, what="the partial text")
    assert (row["status"], row["completed_at"]) == ("streaming", None)
    assert (await api.history(conversation["id"]))[-1]["role"] == "user", "unfinished rows are not in the history"
    await stop_all(api, conversation["id"])
    refused(await sending, 409, "turn_cancelled")


async def test_cancelling_ends_the_wait(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default=SILENT)
    sending = asyncio.create_task(api.send(conversation["id"], "Think long"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    await stop_all(api, conversation["id"])
    error = refused(await sending, 409, "turn_cancelled")
    reply = error["details"]["assistant_message"]
    assert (reply["status"], reply["content"]) == ("cancelled", "")
    assert (reply["error"]["code"], reply["error"]["retryable"]) == ("CANCELLED", True)


async def test_deleting_the_conversation_ends_the_wait(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default=SILENT)
    sending = asyncio.create_task(api.send(conversation["id"], "Hello?"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    assert (await api.delete(f"/api/v1/chat/conversations/{conversation['id']}")).status_code == 200
    refused(await sending, 404, "not_found")


# --- what a model may see


async def test_failed_cancelled_and_unread_turns_never_reach_a_prompt(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    greeting = GREETING
    model.tell(script=[{"cut_after_bytes": 400}])
    refused(await api.send(conversation["id"], "First"), 503, "ai_unavailable")
    model.tell(script=[{"block_reason": "SAFETY"}])
    refused(await api.send(conversation["id"], "Second"), 422, "content_blocked")
    model.tell(script=[ENDLESS])
    sending = asyncio.create_task(api.send(conversation["id"], "Third"))

    async def streaming() -> bool:
        return bool((await newest(api, conversation["id"]))["content"] == "Once upon")

    await until(streaming, what="partial text")
    await stop_all(api, conversation["id"])
    refused(await sending, 409, "turn_cancelled")
    assert [message["content"] for message in await api.history(conversation["id"])] == [
        greeting,
        "First",
        "Hello",
        "Second",
        "Third",
        "Once upon",
    ]
    await api.said(conversation["id"], "Fourth")
    assert texts_sent(model.requests()[-1]) == [greeting, "First", "Second", "Third", "Fourth"]


async def test_a_prompt_has_the_history_once_and_nothing_later(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    greeting = GREETING
    model.tell(default={"echo": True, "first_byte_delay": 0.2})
    await asyncio.gather(*(send_in_turn(api, conversation["id"], number, model) for number in range(3)))
    prompts = [texts_sent(request) for request in model.requests()]
    assert prompts[0] == [greeting, "Question 0"]
    assert prompts[1] == [*prompts[0], "You said: Question 0", "Question 1"]
    assert prompts[2] == [*prompts[1], "You said: Question 1", "Question 2"]


async def send_in_turn(api: Api, conversation_id: str, number: int, model: FakeModel) -> None:
    """Sends question `number` as soon as the one before it is stored."""

    async def is_my_turn() -> bool:
        history = await api.history(conversation_id)
        return len([message for message in history if message["role"] == "user"]) == number

    await until(is_my_turn, what=f"question {number - 1}")
    _, reply = await api.said(conversation_id, f"Question {number}")
    assert reply["content"] == f"You said: Question {number}"


async def test_each_prompt_begins_with_the_one_before_it_byte_for_byte(
    api: Api, service: Service, model: FakeModel
) -> None:
    """So that the vendor's cache of prefixes serves all but the last exchange."""
    conversation = await open_fresh(api, service, system_instructions="You adore riddles.")
    for number in range(4):
        await api.said(conversation["id"], f"No. {number}")
    bodies = [request["body"] for request in model.requests()]
    assert len(bodies) == 4
    for one, other in pairwise(bodies):
        assert one["systemInstruction"] == other["systemInstruction"]
        assert other["contents"][: len(one["contents"])] == one["contents"]
        assert len(other["contents"]) == len(one["contents"]) + 2


async def test_turns_of_one_conversation_run_one_after_another(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"echo": True, "first_byte_delay": 0.05})
    pairs = await asyncio.gather(*(api.said(conversation["id"], f"Question {number}") for number in range(5)))
    for user, reply in pairs:
        assert reply["reply_to"] == user["id"]
        assert reply["content"] == f"You said: {user['content']}"
    history = (await api.history(conversation["id"]))[1:]
    assert [message["role"] for message in history] == ["user", "assistant"] * 5
    # In the order of their numbers, each with everything before it and nothing after it.
    assert [texts_sent(request)[-1] for request in model.requests()] == [row["content"] for row in history[::2]]
    assert [len(texts_sent(request)) for request in model.requests()] == [2, 4, 6, 8, 10]
    assert model.state()["peak_streams"] == 1


async def test_turns_of_two_conversations_run_together(api: Api, service: Service, model: FakeModel) -> None:
    first, second = await api.open(add_influencer(service)), await api.open(add_influencer(service))
    model.tell(default=SILENT)
    sends = [asyncio.create_task(api.send(conversation["id"], "Hello")) for conversation in (first, second)]
    await until(lambda: asked(model, 2), what="both to be asked")
    await stop_all(api, first["id"], second["id"])
    for sending in sends:
        refused(await sending, 409, "turn_cancelled")


# --- limits


async def count_refusals(api: Api) -> float:
    """How many turns the service says to have refused for being too many at once."""
    text = (await api.get("/metrics")).text
    found = re.search(r'^rate_limit_exceeded_total\{limit_type="concurrent_turns"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_sixth_running_turn_of_a_conversation_is_refused(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default=SILENT)
    before = await count_refusals(api)
    sends = [asyncio.create_task(api.send(conversation["id"], f"Message {number}")) for number in range(9)]
    finished, running = await asyncio.wait(sends, timeout=0)
    while len(finished) < 4:
        finished, running = await asyncio.wait(running | finished, return_when=asyncio.ALL_COMPLETED, timeout=0.2)
    assert (len(finished), len(running)) == (4, 5)
    for sending in finished:
        error = refused(sending.result(), 429, "rate_limit_exceeded")
        assert error["details"]["limit_type"] == "concurrent_turns"
        assert error["details"]["limit"] == 5
        assert sending.result().headers["retry-after"] == str(error["details"]["retry_after"])
    assert await count_refusals(api) - before == 4
    rows = await api.history(conversation["id"], include="unfinished")
    assert len(rows) == 1 + 2 * 5, "a refused message is not stored"
    await stop_all(api, conversation["id"])
    for sending in running:
        refused(await sending, 409, "turn_cancelled")


async def test_an_eleventh_running_turn_of_a_user_is_refused(api: Api, service: Service, model: FakeModel) -> None:
    conversations = await asyncio.gather(*(api.open(add_influencer(service)) for _ in range(16)))
    model.tell(default=SILENT)
    sends = [asyncio.create_task(api.send(conversation["id"], "Hello")) for conversation in conversations]
    finished, running = await asyncio.wait(sends, timeout=0)
    while len(finished) < 6:
        finished, running = await asyncio.wait(running | finished, timeout=0.2)
    assert (len(finished), len(running)) == (6, 10)
    for sending in finished:
        error = refused(sending.result(), 429, "rate_limit_exceeded")
        assert (error["details"]["limit_type"], error["details"]["limit"]) == ("concurrent_turns", 10)
    await stop_all(api, *(conversation["id"] for conversation in conversations))
    for sending in running:
        refused(await sending, 409, "turn_cancelled")


# --- a client that leaves


async def settled(api: Api, conversation_id: str) -> list[Json] | None:
    """All rows, once nothing runs any more."""
    rows = await api.history(conversation_id, include="unfinished")
    return None if any(row["status"] in ("pending", "streaming") for row in rows) else rows


async def test_a_client_that_leaves_while_it_waits_finds_the_reply_later(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"echo": True, "first_byte_delay": 0.3})
    sending = asyncio.create_task(api.send(conversation["id"], "Back soon"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending
    rows = await until(lambda: settled(api, conversation["id"]), what="the turn to end")
    assert [row["content"] for row in rows[1:]] == ["Back soon", "You said: Back soon"]
    assert rows[-1]["status"] == "delivered"


async def test_a_client_that_leaves_in_mid_stream_finds_the_reply_later(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["One", " two", " three"], "chunk_delay": 0.2})
    body = {"message_type": "text", "content": "Count"}
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events):
        async for event in events:
            if event.event == "token":
                break
    rows = await until(lambda: settled(api, conversation["id"]), what="the turn to end")
    assert [row["content"] for row in rows[1:]] == ["Count", "One two three"]


@pytest.mark.parametrize("written", [0.0, 0.5, 0.99, 1.0])
async def test_a_client_that_leaves_in_mid_request_can_send_again(
    api: Api, service: Service, model: FakeModel, written: float
) -> None:
    """Whether or not the cut request was understood: the same key gives one message and one reply."""
    conversation = await open_fresh(api, service)
    body = b'{"message_type": "text", "content": "Once", "client_message_id": "the-key"}'
    head = (
        f"POST {messages(conversation['id'])} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token(api.user_id)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, port = service.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body[: round(len(body) * written)])
    await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    user, reply = await api.said(conversation["id"], "Once", client_message_id="the-key")
    rows = await until(lambda: settled(api, conversation["id"]), what="all turns to end")
    assert [row["id"] for row in rows[1:]] == [user["id"], reply["id"]]
    assert model.state()["requests"] == 1


# --- refusals before anything is stored


async def test_send_is_for_the_user_of_the_conversation(api: Api, other: Api, service: Service) -> None:
    owner_of_bot = add_influencer(service, owner_id=other.user_id)
    conversation = await api.open(owner_of_bot)
    error = refused(await other.send(conversation["id"], "Hello"), 403, "forbidden")
    assert error["message"] == error["detail"] == "Not your conversation"
    refused(await api.send("no-such-conversation", "Hello"), 404, "not_found")
    assert await api.history(conversation["id"]) == []


async def test_a_discontinued_persona_takes_no_message(api: Api, service: Service) -> None:
    influencer_id = add_influencer(service)
    conversation = await api.open(influencer_id)
    await api.said(conversation["id"], "Hello", client_message_id="before")
    set_status(service, influencer_id, "discontinued")
    refused(await api.send(conversation["id"], "Still there?"), 403, "forbidden")
    assert len(await api.history(conversation["id"], include="unfinished")) == 2
    # What was answered before is still answered.
    again = await api.send(conversation["id"], "Hello", client_message_id="before")
    assert again.status_code == 200


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["body", "message_type"]),
        ({"message_type": "video", "content": "x"}, ["body", "message_type"]),
        ({"message_type": 1, "content": "x"}, ["body", "message_type"]),
        ({"message_type": "text"}, ["body", "content"]),
        ({"message_type": "text", "content": None}, ["body", "content"]),
        ({"message_type": "text", "content": " \n\t "}, ["body", "content"]),
        ({"message_type": "text", "content": "x" * 4001}, ["body", "content"]),
        ({"message_type": "text", "content": ["x"]}, ["body", "content"]),
        ({"message_type": "text", "content": True}, ["body", "content"]),
        ({"message_type": "text", "content": "a\u0000b"}, ["body", "content"]),
        ({"message_type": "text", "content": "x", "client_message_id": "k" * 129}, ["body", "client_message_id"]),
        ({"message_type": "text", "content": "x", "client_message_id": 5}, ["body", "client_message_id"]),
        ({"message_type": "text", "content": "x", "media_urls": ["a"] * 11}, ["body", "media_urls"]),
        ({"message_type": "text", "content": "x", "audio_duration_seconds": 301}, ["body", "audio_duration_seconds"]),
        (
            {"message_type": "text", "content": "x", "audio_duration_seconds": "soon"},
            ["body", "audio_duration_seconds"],
        ),
    ],
)
async def test_an_invalid_message_is_refused_and_not_stored(
    api: Api, service: Service, body: Any, loc: list[str]
) -> None:
    conversation = await open_fresh(api, service)
    error = refused(await api.post(messages(conversation["id"]), body), 422, "validation_error")
    assert loc in [item["loc"] for item in error["details"]["errors"]]
    for item in error["details"]["errors"]:
        assert set(item) == {"type", "loc", "msg"}
    assert len(await api.history(conversation["id"], include="unfinished")) == 1


async def test_the_longest_message_counts_characters_after_trimming(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={})
    longest = "🙂" * 4000
    user, _ = await api.said(conversation["id"], f"  {longest}\n")
    assert user["content"] == longest
