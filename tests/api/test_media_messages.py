"""Messages with images and recordings: contract sections 8.2, 8.6 and 12.4."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from PIL import Image

from tests.api.conftest import MakeUser, StartService
from tests.api.expecting import open_fresh, refused, texts_sent
from tests.api.sockets import describe, inbox_of
from tests.client import Api, Json, messages
from tests.files import fetched, picture, recording, uploaded
from tests.rows import set_status
from tests.service import FakeModel, Service
from tests.waiting import there, until

HEARD = {"transcription": {"transcript": "Good morning"}}


async def sent(api: Api, conversation: Json, **body: Any) -> Json:
    """Sends and expects a reply; returns the user message."""
    response = await api.post(messages(conversation["id"]), body)
    assert response.status_code == 200, response.text
    user_message: Json = response.json()["user_message"]
    return user_message


def chats(model: FakeModel) -> list[Json]:
    """Requests for replies, without those that transcribe."""
    return [request for request in model.requests() if "streamGenerateContent" in request["target"]]


def pictures_sent(request: Json) -> list[Image.Image]:
    parts = [part for content in request["body"]["contents"] for part in content["parts"]]
    datas = [part["inlineData"]["data"] for part in parts if "inlineData" in part]
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in datas]


async def test_the_model_sees_a_small_copy_of_an_image(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    image = await uploaded(api, "image", picture("red", (1600, 1200)))
    message = await sent(
        api, conversation, message_type="MULTIMODAL", content="What is this?", media_urls=image["storage_key"]
    )
    assert (message["message_type"], message["content"]) == ("multimodal", "What is this?")
    (url,) = message["media_urls"]
    assert (await fetched(url)).status_code == 200
    (request,) = chats(model)
    (seen,) = pictures_sent(request)
    assert seen.size == (768, 576)
    red, green, blue = seen.convert("RGB").getpixel((300, 300))  # type: ignore[misc]
    assert red > 200 > 60 > max(green, blue)
    assert texts_sent(request)[-1] == "What is this?"


async def test_an_image_without_words_is_a_message(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    image = await uploaded(api, "image")
    message = await sent(api, conversation, message_type="image", media_urls=[image["url"]])
    assert message["content"] == ""
    history = await api.history(conversation["id"])
    assert len(history[1]["media_urls"]) == 1
    page = (await api.get("/api/v1/chat/conversations")).json()["conversations"][0]
    assert [len(item["media_urls"]) for item in page["recent_messages"]] == [0, 1, 0]
    assert page["last_message"]["role"] == "assistant"


@pytest.mark.parametrize("body", [{"media_urls": ["PICTURE"]}, {"audio_url": "PICTURE"}], ids=["image", "audio"])
async def test_a_picture_in_the_request_itself_is_none(api: Api, service: Service, body: Json) -> None:
    """What is stored of files are references; a row never holds the file."""
    conversation = await open_fresh(api, service)
    encoded = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    given = {name: [encoded] if name == "media_urls" else encoded for name in body}
    type_ = "image" if "media_urls" in body else "audio"
    response = await api.post(messages(conversation["id"]), {"message_type": type_, "content": "", **given})
    assert response.status_code in (403, 422), response.text
    assert len(await api.history(conversation["id"], include="unfinished")) == 1


async def test_images_of_the_newest_three_messages_are_shown(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    for number in range(4):
        image = await uploaded(api, "image", picture(size=(100 + number, 50)))
        await sent(api, conversation, message_type="multimodal", content=f"No. {number}", media_urls=[image["url"]])
    await api.said(conversation["id"], "Which was the widest?")
    last = chats(model)[-1]
    assert [image.size[0] for image in pictures_sent(last)] == [101, 102, 103]
    assert "[image]\nNo. 0" in texts_sent(last)


async def test_the_same_image_may_be_named_by_key_or_by_address(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    image = await uploaded(api, "image")
    body = {"message_type": "image", "client_message_id": "one", "media_urls": [image["storage_key"]]}
    first = await api.post(messages(conversation["id"]), body)
    fresh = first.json()["user_message"]["media_urls"][0]
    for reference in (image["url"], fresh, fresh.split("?")[0]):
        again = await api.post(messages(conversation["id"]), {**body, "media_urls": [reference]})
        assert again.status_code == 200, again.text
        assert again.json()["user_message"]["id"] == first.json()["user_message"]["id"]
        assert again.headers["idempotency-replayed"] == "true"
    other = await uploaded(api, "image")
    refused(
        await api.post(messages(conversation["id"]), {**body, "media_urls": [other["url"]]}),
        409,
        "idempotency_conflict",
    )


async def test_files_of_others_and_unknown_ones_look_the_same(api: Api, other: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    theirs = await uploaded(other, "image")
    unknown = f"{api.user_id}/01a21f2e-0000-7000-8000-000000000000.jpg"
    answers = []
    for reference in (theirs["storage_key"], theirs["url"], unknown, "../../etc/passwd", "public/x.png", "no key"):
        response = await api.post(messages(conversation["id"]), {"message_type": "image", "media_urls": [reference]})
        error = refused(response, 403, "media_forbidden")
        answers.append((error["message"], error["details"]))
    assert len({str(answer) for answer in answers}) == 1
    assert len(await api.history(conversation["id"])) == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"message_type": "image"}, "media_urls"),
        ({"message_type": "multimodal", "content": "Hi", "media_urls": []}, "media_urls"),
        ({"message_type": "audio"}, "audio_url"),
        ({"message_type": "audio", "audio_url": "  "}, "audio_url"),
        ({"message_type": "text", "content": "Hi", "media_urls": ["a/b.jpg"]}, "media_urls"),
        ({"message_type": "text", "content": "Hi", "audio_url": "a/b.wav"}, "audio_url"),
        ({"message_type": "image", "media_urls": ["https://elsewhere.example/x.jpg"]}, "media_urls"),
        ({"message_type": "image", "media_urls": ["ftp://allowed.example/x.jpg"]}, "media_urls"),
        ({"message_type": "image", "media_urls": ["https://u:p@allowed.example/x.jpg"]}, "media_urls"),
        ({"message_type": "image", "media_urls": ["https://allowed.example:22/x.jpg"]}, "media_urls"),
        ({"message_type": "image", "media_urls": ["http://[::1"]}, "media_urls"),
        ({"message_type": "image", "media_urls": [f"https://allowed.example/{'x' * 3000}"]}, "media_urls"),
        ({"message_type": "image", "media_urls": [" "]}, "media_urls"),
        ({"message_type": "image", "media_urls": ["a/b.jpg"] * 11}, "media_urls"),
        ({"message_type": "audio", "audio_url": "a/b.wav", "audio_duration_seconds": 301}, "audio_duration_seconds"),
    ],
)
async def test_what_does_not_fit_the_type_is_refused(
    service_with: StartService, user_of: MakeUser, model: FakeModel, body: Json, place: str
) -> None:
    service = service_with(MEDIA_ALLOWED_HOSTS="allowed.example", IMAGE_TIMEOUT_SECONDS="1")
    somebody = user_of(service)
    conversation = await open_fresh(somebody, service)
    error = refused(await somebody.post(messages(conversation["id"]), body), 422, "validation_error")
    assert error["details"]["errors"][0]["loc"][:2] == ["body", place]
    assert len(await somebody.history(conversation["id"])) == 1


async def test_a_file_of_the_other_kind_is_refused(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    image, audio = await uploaded(api, "image"), await uploaded(api, "audio")
    for body in (
        {"message_type": "image", "media_urls": [image["url"], audio["url"]]},
        {"message_type": "audio", "audio_url": image["url"]},
    ):
        refused(await api.post(messages(conversation["id"]), body), 422, "validation_error")


async def test_an_image_on_a_private_address_is_never_fetched(
    service_with: StartService, user_of: MakeUser, model: FakeModel
) -> None:
    """The host is allowed, but it leads to this machine: the model's own port, so that a call would be seen."""
    service = service_with(MEDIA_ALLOWED_HOSTS="localhost,127.0.0.1")
    somebody = user_of(service)
    conversation = await open_fresh(somebody, service)
    for host in ("localhost", "127.0.0.1"):
        address = f"http://{host}/x.jpg"
        message = await sent(somebody, conversation, message_type="image", media_urls=[address])
        assert message["media_urls"] == [address]
    last = chats(model)[-1]
    assert pictures_sent(last) == []
    assert texts_sent(last)[-1] == "[image]"


async def test_a_voice_message_is_transcribed_within_its_turn(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    audio = await uploaded(api, "audio", recording(1.5))
    model.tell(kinds=HEARD)
    async with inbox_of(api, await describe(service.url)) as inbox:
        message = await sent(
            api, conversation, message_type="audio", audio_url=audio["storage_key"], audio_duration_seconds=200
        )
        updated = (await inbox.take_until("message_updated"))[-1]
    assert message["content"] == "[Transcribed: Good morning]"
    assert message["transcription"] == "Good morning"
    assert message["audio_duration_seconds"] == 2
    assert (await fetched(message["audio_url"])).status_code == 200
    assert updated["data"]["message"]["transcription"] == "Good morning"
    assert texts_sent(chats(model)[-1])[-1] == "[Transcribed: Good morning]"
    stored = (await api.history(conversation["id"]))[1]
    assert stored["transcription"] == "Good morning"


async def test_typed_words_stay_before_the_transcribed_ones(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    audio = await uploaded(api, "audio")
    model.tell(kinds=HEARD)
    message = await sent(api, conversation, message_type="audio", content="Listen!", audio_url=audio["url"])
    assert message["content"] == "Listen!\n[Transcribed: Good morning]"


async def test_what_no_database_keeps_is_left_out_of_a_transcription(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    audio = await uploaded(api, "audio")
    model.tell(kinds={"transcription": {"transcript": "Good\0 morning"}})
    message = await sent(api, conversation, message_type="audio", audio_url=audio["url"])
    assert message["transcription"] == "Good morning"


async def test_a_failed_transcription_fails_the_turn_and_is_repeated(
    api: Api, service: Service, model: FakeModel
) -> None:
    conversation = await open_fresh(api, service)
    audio = await uploaded(api, "audio")
    body = {"message_type": "audio", "audio_url": audio["storage_key"], "client_message_id": "voice"}
    model.tell(default={"status": 503})
    error = refused(await api.post(messages(conversation["id"]), body), 503, "ai_unavailable")
    user_message, reply = error["details"]["user_message"], error["details"]["assistant_message"]
    assert (user_message["content"], user_message["transcription"]) == ("[Voice message]", None)
    assert reply["error"]["code"] == "TRANSIENT"
    assert chats(model) == []
    model.tell(reset=True, default={"echo": True}, kinds=HEARD)
    again = await api.post(messages(conversation["id"]), body)
    assert again.status_code == 200, again.text
    assert again.json()["user_message"]["id"] == user_message["id"]
    assert again.json()["user_message"]["transcription"] == "Good morning"
    assert again.json()["assistant_message"]["attempt"] == 2


async def test_without_a_transcriber_the_model_is_told(
    service_with: StartService, user_of: MakeUser, model: FakeModel
) -> None:
    service = service_with(
        GEMINI_API_KEY=None, OPENAI_BASE_URL=model.base_url_openai, OPENAI_MODELS="some-model", OPENAI_API_KEY="key"
    )
    somebody = user_of(service)
    conversation = await open_fresh(somebody, service)
    audio = await uploaded(somebody, "audio")
    message = await sent(somebody, conversation, message_type="audio", content="Hear me", audio_url=audio["url"])
    assert (message["content"], message["transcription"]) == ("Hear me", None)
    (request,) = model.requests()
    assert request["body"]["messages"][-1]["content"] == "Hear me\n[Voice message, not transcribed]"


async def test_streams_begin_with_the_media(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    image = await uploaded(api, "image")
    body = {"message_type": "image", "media_urls": [image["url"]]}
    async with api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events):
        seen = [event async for event in events]
    assert (await fetched(seen[0].data["user_message"]["media_urls"][0])).status_code == 200
    assert seen[-1].event == "done"


async def test_deleting_a_conversation_removes_its_files_unless_another_uses_them(api: Api, service: Service) -> None:
    first, second = await open_fresh(api, service), await open_fresh(api, service)
    alone, shared = await uploaded(api, "image"), await uploaded(api, "image")
    await sent(api, first, message_type="image", media_urls=[alone["url"], shared["url"], alone["url"]])
    await sent(api, second, message_type="image", media_urls=[shared["url"]])
    await api.delete(f"/api/v1/chat/conversations/{first['id']}")
    await until(gone(service, alone), what="the file that only the first conversation used")
    assert (await fetched(shared["url"])).status_code == 200
    folder = service.folder / "data" / "media" / api.user_id
    await until(there(lambda: len(list(folder.iterdir())) == 2), what="the shared image and its small copy alone")
    await api.delete(f"/api/v1/chat/conversations/{second['id']}")
    await until(gone(service, shared), what="the file that nobody uses any more")
    refused(
        await api.post(messages((await open_fresh(api, service))["id"]),
                       {"message_type": "image", "media_urls": [shared["url"]]}),
        403,
        "media_forbidden",
    )  # fmt: skip


def gone(service: Service, file: Json) -> Callable[[], Awaitable[bool]]:
    return there(lambda: not (service.folder / "data" / "media" / file["storage_key"]).exists())


async def test_an_image_that_is_lost_does_not_hold_up_the_reply(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    image = await uploaded(api, "image")
    for path in (service.folder / "data" / "media" / api.user_id).iterdir():
        path.unlink()
    await sent(api, conversation, message_type="multimodal", content="See?", media_urls=[image["url"]])
    assert texts_sent(chats(model)[-1])[-1] == "[image]\nSee?"


async def test_ten_sends_of_one_voice_message_are_one_turn(api: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    audio = await uploaded(api, "audio")
    body = {"message_type": "audio", "audio_url": audio["url"], "client_message_id": "same"}
    answers = await asyncio.gather(*(api.post(messages(conversation["id"]), body) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["assistant_message"]["id"] for answer in answers}) == 1
    assert len(model.requests()) == 2  # one that hears, one that answers


async def test_a_discontinued_persona_takes_no_images(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    image = await uploaded(api, "image")
    set_status(service, conversation["influencer_id"], "discontinued")
    refused(
        await api.post(messages(conversation["id"]), {"message_type": "image", "media_urls": [image["url"]]}),
        403,
        "forbidden",
    )
