"""One message however often it is sent: contract section 8.3."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from tests.api.expecting import asked, open_fresh, refused, texts_sent
from tests.client import Api, Json, messages, text_of
from tests.overload.wire import metric
from tests.rows import add_influencer, age, fetch
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.db.tables import messages as message_rows

WINDOW = 120
GRACE = 10
AT_ONCE = 15  # fewer than one user's share of places


def is_replay(response: httpx2.Response) -> bool:
    return response.headers.get("idempotency-replayed") == "true"


def ids(response: httpx2.Response) -> tuple[str, str]:
    """(user message, reply) of any outcome."""
    body = response.json()
    pair = body if "user_message" in body else body["details"]
    return pair["user_message"]["id"], pair["assistant_message"]["id"]


async def rows_of(api: Api, conversation_id: str) -> list[Json]:
    """Everything after the greeting, finished or not."""
    return (await api.history(conversation_id, include="unfinished"))[1:]


async def received(service: Service, reply_id: str) -> None:
    """Waits until the service knows that somebody has got this reply."""

    async def is_noted() -> bool:
        query = select(message_rows.c.is_handed_over).where(message_rows.c.id == reply_id)
        return bool(fetch(service, query)[0][0])

    await until(is_noted, what="the hand-over to be noted")


async def cancel(api: Api, conversation_id: str) -> None:
    """Stops the newest reply."""
    newest = (await rows_of(api, conversation_id))[-1]
    assert (await api.post(f"{messages(conversation_id)}/{newest['id']}/cancel")).status_code == 200


async def in_progress(service: Service, count: int) -> bool:
    """Whether so many requests are being answered, besides this one."""
    return await metric(service.url, "http_requests_in_progress") == count + 1


async def abandon(sending: "asyncio.Task[Any]") -> None:
    sending.cancel()
    with suppress(asyncio.CancelledError):
        await sending


# --- with a key


async def test_ten_at_once_with_one_key_are_one_turn(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"echo": True, "first_byte_delay": 0.1})
    answers = await asyncio.gather(
        *(api.send(conversation["id"], "Only once", client_message_id="the-key") for _ in range(10))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({ids(answer) for answer in answers}) == 1
    assert {answer.json()["assistant_message"]["content"] for answer in answers} == {"You said: Only once"}
    assert sorted(is_replay(answer) for answer in answers) == [False] + [True] * 9
    assert model.state()["requests"] == 1
    assert len(await rows_of(api, conversation["id"])) == 2


async def test_ten_at_once_send_and_stream_are_one_turn(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["All", " the", " same"], "chunk_delay": 0.05})
    key = {"client_message_id": "the-key"}
    sends = asyncio.gather(*(api.send(conversation["id"], "Only once", **key) for _ in range(5)))
    streams = asyncio.gather(*(api.stream(conversation["id"], "Only once", **key) for _ in range(5)))
    expected = await rows_after(sends, api, conversation["id"])
    assert {ids(answer) for answer in await sends} == {expected}
    for events in await streams:
        assert (events[0].data["user_message"]["id"], events[0].data["assistant_message_id"]) == expected
        assert text_of(events) == "All the same"
        assert events[-1].event == "done"
    assert model.state()["requests"] == 1


async def rows_after(done: Any, api: Api, conversation_id: str) -> tuple[str, str]:
    """The only two messages, once `done`."""
    await done
    user, reply = await rows_of(api, conversation_id)
    return user["id"], reply["id"]


@pytest.mark.parametrize("begun", [False, True], ids=["pending", "streaming"])
async def test_a_repetition_attaches_to_the_running_turn(
    api: Api, service: Service, model: FakeModel, begun: bool
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["One", " two", " three"], "is_held": True})
    first = asyncio.create_task(api.send(conversation["id"], "Count", client_message_id="k"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    if begun:
        model.tell(release=1)

        async def has_text() -> bool:
            return bool((await rows_of(api, conversation["id"]))[-1]["status"] == "streaming")

        await until(has_text, what="the first text")
    repeating = asyncio.create_task(api.send(conversation["id"], "Count", client_message_id="k"))
    await until(lambda: in_progress(service, 2), what="both to be there")
    model.tell(release=100)
    second = await repeating
    assert second.status_code == 200
    assert is_replay(second)
    assert ids(second) == ids(await first)
    assert model.state()["requests"] == 1


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_a_repetition_of_a_failed_turn_runs_it_again(
    api: Api, service: Service, model: FakeModel, how: str
) -> None:
    conversation = await open_fresh(api, service)
    if how == "failed":
        model.tell(default={"cut_after_bytes": 400})
        first = await api.send(conversation["id"], "Try", client_message_id="k")
        refused(first, 503, "ai_unavailable")
    else:
        model.tell(default={"stall_after": 1})
        sending = asyncio.create_task(api.send(conversation["id"], "Try", client_message_id="k"))
        await until(lambda: asked(model, 1), what="the model to be asked")
        await cancel(api, conversation["id"])
        first = await sending
        refused(first, 409, "turn_cancelled")
    assert first.json()["details"]["assistant_message"]["attempt"] == 1
    model.reset()
    second = await api.send(conversation["id"], "Try", client_message_id="k")
    assert second.status_code == 200
    assert not is_replay(second), "it runs again, so it is no replay"
    assert ids(second) == ids(first)
    reply = second.json()["assistant_message"]
    assert (reply["attempt"], reply["status"], reply["content"]) == (2, "delivered", "You said: Try")
    assert reply["error"] is None
    assert model.state()["requests"] == 1
    assert texts_sent(model.requests()[-1])[-1] == "Try"
    rows = await rows_of(api, conversation["id"])
    assert [row["content"] for row in rows] == ["Try", "You said: Try"]
    assert (await api.get(f"/api/v1/chat/conversations/{conversation['id']}")).json()["message_count"] == 3


async def test_a_turn_that_fails_twice_has_two_attempts(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"status": 400})
    answers = [await api.send(conversation["id"], "Try", client_message_id="k") for _ in range(3)]
    for number, answer in enumerate(answers, start=1):
        error = refused(answer, 503, "ai_unavailable")
        assert error["details"]["assistant_message"]["attempt"] == number
        assert not is_replay(answer)
    assert len({ids(answer) for answer in answers}) == 1


async def test_a_repetition_of_what_cannot_be_retried_fails_the_same_way(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"block_reason": "SAFETY"})
    first = await api.send(conversation["id"], "Forbidden", client_message_id="k")
    second = await api.send(conversation["id"], "Forbidden", client_message_id="k")
    errors = [refused(answer, 422, "content_blocked") for answer in (first, second)]
    assert errors[0]["details"] == errors[1]["details"]
    assert errors[0]["message"] == errors[1]["message"]
    assert [is_replay(answer) for answer in (first, second)] == [False, True]
    assert model.state()["requests"] == 1


async def test_a_repetition_of_a_delivered_turn_gives_the_stored_pair(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    first = await api.send(conversation["id"], "Hello", client_message_id="k")
    await api.said(conversation["id"], "Something else")
    await api.post(f"/api/v1/chat/conversations/{conversation['id']}/read")
    again = await api.send(conversation["id"], " Hello ", message_type="TEXT", client_message_id="k")
    assert again.status_code == 200
    assert is_replay(again)
    assert ids(again) == ids(first)
    reply = again.json()["assistant_message"]
    assert (reply["status"], reply["is_read"]) == ("read", True), "in its present state"
    assert model.state()["requests"] == 2
    assert len(await rows_of(api, conversation["id"])) == 4


async def test_a_key_stays_valid_for_ever(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    user, reply = await api.said(conversation["id"], "Hello", client_message_id="k")
    await received(service, reply["id"])
    age(service, 10 * 24 * 3600, user["id"], reply["id"])
    again = await api.send(conversation["id"], "Hello", client_message_id="k")
    assert ids(again) == (user["id"], reply["id"])


async def test_one_key_with_another_body_is_a_conflict(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    await api.said(conversation["id"], "Hello", client_message_id="k")
    refused(await api.send(conversation["id"], "hello", client_message_id="k"), 409, "idempotency_conflict")
    body = {"message_type": "text", "content": "Bye", "client_message_id": "k"}
    refused(await api.post(f"{messages(conversation['id'])}/stream", body), 409, "idempotency_conflict")
    assert len(await rows_of(api, conversation["id"])) == 2
    assert model.state()["requests"] == 1


async def test_a_key_is_one_conversations_own(api: Api, other: Api, service: Service) -> None:
    influencer_id = add_influencer(service)
    first, second = await api.open(influencer_id), await open_fresh(api, service)
    third = await other.open(influencer_id)
    pairs = [
        await who.said(conversation["id"], f"Hello {number}", client_message_id="k")
        for number, (who, conversation) in enumerate([(api, first), (api, second), (other, third)])
    ]
    assert len({user["id"] for user, _ in pairs}) == 3


async def test_the_header_is_a_key_too(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    path, body = messages(conversation["id"]), {"message_type": "text", "content": "Hello"}
    first = await api.post(path, body, headers={"Idempotency-Key": "k-1"})
    assert first.json()["user_message"]["client_message_id"] == "k-1"
    same = [
        await api.post(path, {**body, "client_message_id": "k-1"}),
        await api.post(path, {**body, "client_message_id": "k-1"}, headers={"Idempotency-Key": "k-1"}),
        await api.post(path, {**body, "client_message_id": ""}, headers={"Idempotency-Key": "k-1"}),
    ]
    for answer in same:
        assert ids(answer) == ids(first)
        assert is_replay(answer)
    differing = await api.post(path, {**body, "client_message_id": "k-2"}, headers={"Idempotency-Key": "k-1"})
    refused(differing, 422, "validation_error")
    too_long = await api.post(path, body, headers={"Idempotency-Key": "k" * 129})
    refused(too_long, 422, "validation_error")
    assert model.state()["requests"] == 1


async def test_stream_replays_say_so(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    user, reply = await api.said(conversation["id"], "Hello", client_message_id="k")
    body = {"message_type": "text", "content": "Hello", "client_message_id": "k"}
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (response, events):
        assert is_replay(response)
        found = [event async for event in events]
    assert [event.event for event in found] == ["start", "token", "done"]
    assert found[0].data["user_message"] == user
    assert text_of(found) == reply["content"]
    assert found[-1].data["assistant_message"] == reply
    assert model.state()["requests"] == 1


async def test_repetitions_of_a_failing_turn_never_hang_or_double(api: Api, service: Service, model: FakeModel) -> None:
    """A repetition may come at the very moment in which the attempt before it ends."""
    conversation = await open_fresh(api, service)
    model.tell(default={"status": 400})

    async def insist() -> list[httpx2.Response]:
        return [await api.send(conversation["id"], "Try", client_message_id="k") for _ in range(8)]

    answers = [answer for some in await asyncio.gather(*(insist() for _ in range(8))) for answer in some]
    for answer in answers:
        error = refused(answer, 503, "ai_unavailable")
        assert error["details"]["assistant_message"]["status"] == "failed"
    assert len({ids(answer) for answer in answers}) == 1
    began = [answer for answer in answers if not is_replay(answer)]
    attempts = [answer.json()["details"]["assistant_message"]["attempt"] for answer in began]
    assert len(attempts) == len(set(attempts)), "every answer is of the attempt that it began"
    model.reset()
    answer = await api.send(conversation["id"], "Try", client_message_id="k")
    assert answer.json()["assistant_message"]["content"] == "You said: Try"
    assert answer.json()["assistant_message"]["attempt"] == len(attempts) + 1
    assert len(await rows_of(api, conversation["id"])) == 2


async def test_a_repetition_in_the_moment_of_failure_is_in_charge_of_the_next_attempt(
    api: Api, service: Service, model: FakeModel
) -> None:
    """The end of one attempt and the acceptance of the next may be committed together."""
    for _ in range(4):
        conversation = await open_fresh(api, service)
        model.reset()
        model.tell(script=[{"status": 400, "first_byte_delay": 0.1}, {"status": 400}], default={"stall_after": 0})
        sends: list[asyncio.Task[httpx2.Response]] = []
        while not await asked(model, 3):  # until the next attempt asks the model
            if sum(not send.done() for send in sends) < AT_ONCE:
                sends.append(asyncio.create_task(api.send(conversation["id"], "Try", client_message_id="k")))
            await api.get("/health/live")
        _, reply = await rows_of(api, conversation["id"])
        async with asyncio.timeout(1.5):
            path = f"{messages(conversation['id'])}/{reply['id']}/stream"
            async with api.streaming("GET", path) as (response, events):
                assert response.status_code == 200
                assert (await anext(events)).data["attempt"] == 2
        waiting = asyncio.gather(*sends)

        async def are_answered(conversation_id: str = conversation["id"], all_of_them: Any = waiting) -> bool:
            await cancel(api, conversation_id)  # again, because one that was on its way runs the turn once more
            return bool(all_of_them.done())

        await until(are_answered, what="every send has its answer")
        answers = await waiting
        assert {answer.status_code for answer in answers} <= {409, 503}
        assert answers[0].json()["details"]["assistant_message"]["attempt"] == 1
        assert any(answer.status_code == 409 for answer in answers)


# --- without a key


async def test_ten_at_once_without_a_key_are_one_turn(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"echo": True, "first_byte_delay": 0.1})
    answers = await asyncio.gather(*(api.send(conversation["id"], "Only once") for _ in range(10)))
    assert len({ids(answer) for answer in answers}) == 1
    assert sum(is_replay(answer) for answer in answers) == 9
    assert model.state()["requests"] == 1


async def test_the_same_text_just_after_its_reply_is_a_repetition(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    first = await api.send(conversation["id"], "Hi")
    second = await api.send(conversation["id"], "Hi")
    assert is_replay(second)
    assert ids(second) == ids(first)


async def test_the_same_text_long_after_its_reply_was_received_is_a_new_message(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    user, reply = await api.said(conversation["id"], "Hi")
    await received(service, reply["id"])
    age(service, GRACE + 1, user["id"], reply["id"])
    again = await api.send(conversation["id"], "Hi")
    assert not is_replay(again)
    assert ids(again)[0] != user["id"]
    assert len(await rows_of(api, conversation["id"])) == 4


async def test_a_streamed_reply_counts_as_received_too(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    events = await api.stream(conversation["id"], "Hi")
    user, reply = events[0].data["user_message"], events[-1].data["assistant_message"]
    await received(service, reply["id"])
    age(service, GRACE + 1, user["id"], reply["id"])
    assert not is_replay(await api.send(conversation["id"], "Hi"))


@pytest.mark.parametrize("is_streamed", [False, True], ids=["send", "stream"])
async def test_a_reply_that_nobody_received_is_handed_over_later(
    api: Api, service: Service, model: FakeModel, is_streamed: bool
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["One", " two"], "is_held": True})
    if is_streamed:
        body = {"message_type": "text", "content": "Hi"}
        async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events):
            assert (await anext(events)).event == "start"
            await until(lambda: asked(model, 1), what="the model to be asked")
    else:
        sending = asyncio.create_task(api.send(conversation["id"], "Hi"))
        await until(lambda: asked(model, 1), what="the model to be asked")
        await abandon(sending)
    await api.get("/health/live")  # answered after the end of the connection was seen
    model.tell(release=100)

    async def delivered() -> list[Json] | None:
        rows = await rows_of(api, conversation["id"])
        return rows if rows[-1]["status"] == "delivered" else None

    user, reply = await until(delivered, what="the reply")
    age(service, GRACE + 50, user["id"], reply["id"])
    again = await api.send(conversation["id"], "Hi")
    assert is_replay(again)
    assert ids(again) == (user["id"], reply["id"])
    # Now it was received.
    await received(service, reply["id"])
    assert not is_replay(await api.send(conversation["id"], "Hi"))


async def test_what_the_bots_owner_reads_is_not_received_by_the_sender(
    api: Api, other: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service, owner_id=other.user_id)
    model.tell(default={"pieces": ["One", " two"], "chunk_delay": 0.3})
    body = {"message_type": "text", "content": "Hi"}
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events):
        start = await anext(events)
    reply_id = start.data["assistant_message_id"]
    assert (await other.resume(conversation["id"], reply_id))[-1].event == "done"
    user_id = start.data["user_message"]["id"]
    age(service, GRACE + 50, user_id, reply_id)
    again = await api.send(conversation["id"], "Hi")
    assert is_replay(again)
    assert ids(again) == (user_id, reply_id)


async def test_after_two_minutes_the_same_text_is_a_new_message_in_any_case(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"status": 400})
    first = await api.send(conversation["id"], "Hi")
    age(service, WINDOW - 20, *ids(first))
    within = await api.send(conversation["id"], "Hi")
    assert ids(within) == ids(first), "a failed turn runs again inside the window"
    age(service, 40, *ids(first))
    after = await api.send(conversation["id"], "Hi")
    assert ids(after)[0] != ids(first)[0]


async def test_a_running_turn_takes_repetitions_for_two_minutes(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    first = asyncio.create_task(api.send(conversation["id"], "Hi"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    user, reply = await rows_of(api, conversation["id"])
    age(service, WINDOW - 20, user["id"])
    body = {"message_type": "Text", "content": "Hi"}
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (response, events):
        assert is_replay(response)
        assert (await anext(events)).data["assistant_message_id"] == reply["id"]
        age(service, 40, user["id"])
        second = asyncio.create_task(api.send(conversation["id"], "Hi"))

        async def is_new() -> bool:
            return len(await rows_of(api, conversation["id"])) == 4

        await until(is_new, what="the third to be a message of its own")
        await cancel(api, conversation["id"])
        await api.post(f"{messages(conversation['id'])}/{reply['id']}/cancel")
        assert [event.event async for event in events] == ["error"]
    answers = [await first, await second]
    for answer in answers:
        refused(answer, 409, "turn_cancelled")
    assert ids(answers[0]) == (user["id"], reply["id"])
    assert ids(answers[1])[0] != user["id"]


async def test_only_the_newest_message_is_repeated_without_a_key(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    first = await api.send(conversation["id"], "Hi")
    await api.said(conversation["id"], "Something else")
    again = await api.send(conversation["id"], "Hi")
    assert not is_replay(again)
    assert ids(again) != ids(first)


async def test_a_new_key_is_a_new_message(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    first = await api.send(conversation["id"], "Hi", client_message_id="one")
    second = await api.send(conversation["id"], "Hi", client_message_id="two")
    assert ids(first) != ids(second)
    assert not is_replay(second)


async def test_a_repetition_adds_nothing_to_the_counts(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    for _ in range(3):
        await api.said(conversation["id"], "Hi", client_message_id="k")
    seen = (await api.get(f"/api/v1/chat/conversations/{conversation['id']}")).json()
    assert (seen["message_count"], seen["unread_count"]) == (3, 2)
