"""Pictures that personas make: contract section 8.7."""

import asyncio
import io
import json
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.api.conftest import MakeUser, StartService
from tests.api.expecting import open_fresh, refused
from tests.api.sockets import describe, inbox_of
from tests.client import Api, Json, messages
from tests.files import fetched
from tests.rows import set_status
from tests.service import FakeModel, Service, token
from tests.waiting import until

OFFLINE = {"GEMINI_API_KEY": None}


@pytest.fixture
def offline(service_with: StartService) -> Service:
    """A service without any vendor: it draws placeholders."""
    return service_with(**OFFLINE)


def images(conversation: Json) -> str:
    return f"/api/v1/chat/conversations/{conversation['id']}/images"


async def asked_for(api: Api, conversation: Json, prompt: str | None, key: str | None = None) -> httpx2.Response:
    return await api.post(images(conversation), {"prompt": prompt}, headers={"Idempotency-Key": key} if key else None)


async def test_a_picture_becomes_a_message_of_the_persona(offline: Service, user_of: MakeUser) -> None:
    somebody = user_of(offline)
    conversation = await open_fresh(somebody, offline)
    async with inbox_of(somebody, await describe(offline.url)) as inbox:
        response = await asked_for(somebody, conversation, "a boat at dawn")
        frames = await inbox.take_until("new_message")
        frames += await inbox.settle()
    assert response.status_code == 201, response.text
    message = response.json()
    assert message == {
        **message,
        "role": "assistant",
        "message_type": "image",
        "origin": "image",
        "content": "",
        "status": "delivered",
        "token_count": 0,
        "reply_to": None,
        "client_message_id": None,
        "attempt": 1,
        "sender_id": conversation["influencer_id"],
    }
    found = await fetched(message["media_urls"][0])
    with Image.open(io.BytesIO(found.content)) as image:
        assert min(image.size) >= 512
    events = [(frame["event"], frame["data"].get("is_typing")) for frame in frames]
    assert events.index(("typing_status", True)) < events.index(("new_message", None))
    assert ("typing_status", False) in events
    told = next(frame for frame in frames if frame["event"] == "new_message")
    assert told["data"]["message"]["id"] == message["id"]
    assert told["data"]["unread_count"] == 2  # with the greeting
    opened = (await somebody.get(f"/api/v1/chat/conversations/{conversation['id']}")).json()
    assert (opened["message_count"], opened["unread_count"]) == (2, 2)
    assert opened["last_message"]["id"] == message["id"]
    assert opened["last_message"]["content"] == ""


async def test_a_replayed_event_has_an_address_that_works(offline: Service, user_of: MakeUser) -> None:
    somebody = user_of(offline)
    conversation = await open_fresh(somebody, offline)
    await asked_for(somebody, conversation, "a boat")
    async with inbox_of(somebody, await describe(offline.url), since=0) as inbox:
        event = (await inbox.take_until("new_message"))[-1]
    assert (await fetched(event["data"]["message"]["media_urls"][0])).status_code == 200


async def test_the_same_key_makes_one_picture(offline: Service, user_of: MakeUser) -> None:
    somebody = user_of(offline)
    conversation = await open_fresh(somebody, offline)
    answers = await asyncio.gather(*(asked_for(somebody, conversation, "a boat", "key") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [False, True, True, True, True]
    refused(await asked_for(somebody, conversation, "a train", "key"), 409, "idempotency_conflict")
    again = await asked_for(somebody, conversation, "a boat", "key")
    assert again.json()["id"] == answers[0].json()["id"]
    without_key = await asked_for(somebody, conversation, "a boat")
    assert without_key.json()["id"] == answers[0].json()["id"]  # asked again at once, as after a lost answer
    assert (await asked_for(somebody, conversation, "a boat", "other")).json()["id"] != answers[0].json()["id"]
    assert len(await somebody.history(conversation["id"])) == 3


async def test_the_prompt_may_be_left_out(offline: Service, user_of: MakeUser) -> None:
    somebody = user_of(offline)
    conversation = await open_fresh(somebody, offline)
    bodies: list[dict[str, Any]] = [{}, {"json": {}}, {"json": {"prompt": None}}, {"json": {"prompt": "  "}}]
    for arguments in bodies:
        response = await somebody.request("POST", images(conversation), **arguments)
        assert response.status_code == 201, response.text
    refused(await asked_for(somebody, conversation, "x" * 1001), 422, "validation_error")


async def test_only_the_user_asks_and_only_living_personas_draw(offline: Service, user_of: MakeUser) -> None:
    somebody, stranger = user_of(offline), user_of(offline)
    conversation = await open_fresh(somebody, offline)
    refused(await asked_for(stranger, conversation, "a boat"), 403, "forbidden")
    refused(await asked_for(somebody, {"id": "none"}, "a boat"), 404, "not_found")
    set_status(offline, conversation["influencer_id"], "discontinued")
    refused(await asked_for(somebody, conversation, "a boat"), 403, "forbidden")


async def test_without_an_image_model_there_are_no_pictures(
    service_with: StartService, user_of: MakeUser, model: FakeModel
) -> None:
    """A language model is configured, none for images, and placeholders are not wanted, as in production."""
    service = service_with(ALLOW_OFFLINE_MODEL="false")
    somebody = user_of(service)
    conversation = await open_fresh(somebody, service)
    error = refused(await asked_for(somebody, conversation, "a boat"), 503, "service_unavailable")
    assert error["details"] == {"service": "images"}
    assert len(await somebody.history(conversation["id"])) == 1
    assert (await somebody.get("/health")).json()["services"]["images"]["status"] == "disabled"


@pytest.fixture
def drawing(service_with: StartService, model: FakeModel) -> Service:
    """A service whose pictures come from Replicate."""
    return service_with(**model.picture_settings)


@pytest.fixture
def hasty(service_with: StartService, model: FakeModel) -> Service:
    """The same, and it waits for no picture for long."""
    return service_with(**model.picture_settings, IMAGE_TIMEOUT_SECONDS="1.5", TURN_MAX_SECONDS="6")


async def test_a_blank_prompt_is_derived_by_the_language_model(
    drawing: Service, user_of: MakeUser, model: FakeModel
) -> None:
    somebody = user_of(drawing)
    conversation = await open_fresh(somebody, drawing, avatar_url="/static/personas/leelaonlove.webp")
    model.tell(default={"pieces": ["A quiet ", "harbour"]})
    response = await asked_for(somebody, conversation, None)
    assert response.status_code == 201, response.text
    (prediction,) = [request for request in model.requests() if request["wire"] == "replicate"]
    assert prediction["body"]["input"]["prompt"] == "A quiet harbour"
    assert "flux-kontext-dev" in prediction["model"]  # the persona's own face is the reference
    assert prediction["body"]["input"]["input_image"].startswith("data:image/webp;base64,")


async def test_an_avatar_that_is_gone_keeps_no_picture_from_being_made(
    drawing: Service, user_of: MakeUser, model: FakeModel
) -> None:
    somebody = user_of(drawing)
    conversation = await open_fresh(somebody, drawing, avatar_url=f"{drawing.url}/media/public/gone.png")
    response = await asked_for(somebody, conversation, "a boat")
    assert response.status_code == 201, response.text
    (prediction,) = model.requests()
    assert "input_image" not in prediction["body"]["input"]


async def test_a_failure_leaves_no_message_and_the_key_runs_again(
    drawing: Service, user_of: MakeUser, model: FakeModel
) -> None:
    somebody = user_of(drawing)
    conversation = await open_fresh(somebody, drawing)
    model.tell(default={"status": 503})
    error = refused(await asked_for(somebody, conversation, "a boat", "key"), 503, "ai_unavailable")
    assert error["details"] == {}
    assert len(await somebody.history(conversation["id"], include="unfinished")) == 1
    model.reset()
    response = await asked_for(somebody, conversation, "a boat", "key")
    assert response.status_code == 201, response.text
    assert response.json()["attempt"] == 2
    assert "idempotency-replayed" not in response.headers


async def test_a_refused_picture_stays_refused(drawing: Service, user_of: MakeUser, model: FakeModel) -> None:
    somebody = user_of(drawing)
    conversation = await open_fresh(somebody, drawing)
    model.tell(script=[{"prediction": "nsfw"}])
    refused(await asked_for(somebody, conversation, "something", "key"), 422, "content_blocked")
    asked = len(model.requests())
    again = await asked_for(somebody, conversation, "something", "key")
    refused(again, 422, "content_blocked")
    assert again.headers["idempotency-replayed"] == "true"
    assert len(model.requests()) == asked


async def test_a_late_picture_still_appears(hasty: Service, user_of: MakeUser, model: FakeModel) -> None:
    somebody = user_of(hasty)
    conversation = await open_fresh(somebody, hasty)
    model.tell(script=[{"first_byte_delay": 2.5}])
    refused(await asked_for(somebody, conversation, "a boat", "key"), 504, "ai_timeout")
    await until(lambda: _count(somebody, conversation, 2), what="the picture appears")
    assert (await asked_for(somebody, conversation, "a boat", "key")).status_code == 201


async def _count(api: Api, conversation: Json, count: int) -> bool:
    return len(await api.history(conversation["id"])) == count


async def test_a_picture_survives_a_crash(own_service: Service, user_of: MakeUser, model: FakeModel) -> None:
    own_service.settings |= {**model.picture_settings}
    with own_service as service:
        somebody = user_of(service)
        conversation = await open_fresh(somebody, service)
        model.tell(script=[{"first_byte_delay": 60}])
        asking = asyncio.create_task(_ask_and_lose(service, somebody.user_id, conversation["id"]))
        await until(lambda: _asked(model), what="the vendor is asked")
        service.kill()
        assert await asking
        service.start()
        again = user_of(service, somebody.user_id)
        response = await again.post(images(conversation), {"prompt": "a boat"}, headers={"Idempotency-Key": "key"})
        assert response.status_code == 201, response.text
        assert response.json()["attempt"] == 2
        assert len(await again.history(conversation["id"])) == 2


async def _asked(model: FakeModel) -> bool:
    return bool(model.requests())


async def _ask_and_lose(service: Service, user_id: str, conversation_id: str) -> bool:
    """Whether the connection broke before an answer."""
    headers = {"Authorization": f"Bearer {token(user_id)}", "Idempotency-Key": "key"}
    async with httpx2.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client:
        try:
            await client.post(f"/api/v1/chat/conversations/{conversation_id}/images", json={"prompt": "a boat"})
        except httpx2.TransportError:
            return True
    return False


async def test_pictures_run_beside_replies_and_count_as_turns(
    drawing: Service, user_of: MakeUser, model: FakeModel
) -> None:
    somebody = user_of(drawing)
    conversation = await open_fresh(somebody, drawing)
    model.tell(script=[{"first_byte_delay": 2.0}] * 5)
    waiting = [asyncio.create_task(asked_for(somebody, conversation, f"No. {n}", str(n))) for n in range(5)]
    await until(lambda: _requests(model, 5), what="five pictures are being made")
    error = refused(await somebody.send(conversation["id"], "One more"), 429, "rate_limit_exceeded")
    assert error["details"]["limit_type"] == "concurrent_turns"
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} <= {201, 504}
    await until(lambda: _count(somebody, conversation, 6), what="all five appear")
    sequences = [message["sequence"] for message in await somebody.history(conversation["id"])]
    assert sequences == sorted(set(sequences))
    await somebody.said(conversation["id"], "Which do you like best?")
    shown = json.dumps(model.requests()[-1]["body"])
    assert "[You sent a picture here]" in shown


async def _requests(model: FakeModel, count: int) -> bool:
    return len(model.requests()) >= count


async def test_a_deleted_conversation_gets_no_picture(drawing: Service, user_of: MakeUser, model: FakeModel) -> None:
    somebody = user_of(drawing)
    conversation = await open_fresh(somebody, drawing)
    model.tell(script=[{"first_byte_delay": 1.0}])
    waiting: asyncio.Task[Any] = asyncio.create_task(asked_for(somebody, conversation, "a boat"))
    await until(lambda: _requests(model, 1), what="the vendor is asked")
    await somebody.delete(f"/api/v1/chat/conversations/{conversation['id']}")
    refused(await waiting, 404, "not_found")


async def test_a_picture_is_not_a_reply(offline: Service, user_of: MakeUser) -> None:
    somebody = user_of(offline)
    conversation = await open_fresh(somebody, offline)
    picture = (await asked_for(somebody, conversation, "a boat")).json()
    where = f"{messages(conversation['id'])}/{picture['id']}"
    refused(await somebody.get(f"{where}/stream"), 409, "not_streamable")
    refused(await somebody.post(f"{where}/regenerate"), 409, "conflict")
    cancelled = (await somebody.post(f"{where}/cancel")).json()
    assert cancelled == {**picture, "media_urls": cancelled["media_urls"]}
    assert [url.split("?")[0] for url in cancelled["media_urls"]] == [
        url.split("?")[0] for url in picture["media_urls"]
    ]


async def test_a_prompt_that_the_rules_refuse_reaches_no_vendor(
    drawing: Service, user_of: MakeUser, model: FakeModel
) -> None:
    somebody = user_of(drawing)
    conversation = await open_fresh(somebody, drawing)
    refused(await asked_for(somebody, conversation, "a nude picture of a 12 year old girl"), 422, "content_blocked")
    assert model.requests() == []
