"""People who write to people: contract sections 13.1, 7.5 to 7.7, 8.2, 8.3 and 10.3."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, update

from tests.api.conftest import MakeUser
from tests.api.expecting import open_fresh, refused
from tests.api.people import HUMAN, V1, V2, delete, ids, inbox, open_with, read, seen, texts, write, wrote
from tests.api.sockets import describe, inbox_of, names
from tests.client import Api, Json, messages
from tests.files import fetched, uploaded
from tests.rows import add_influencer, age, execute, fetch
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.db.tables import conversations as conversation_rows
from yral_chat.db.tables import media_objects
from yral_chat.db.tables import messages as message_rows


async def received(service: Service, message_id: str) -> None:
    """Waits until the service knows that the sender has got the answer."""

    async def is_noted() -> bool:
        query = select(message_rows.c.is_handed_over).where(message_rows.c.id == message_id)
        return bool(fetch(service, query)[0][0])

    await until(is_noted, what="the hand-over to be noted")


# --- open


async def test_opening_gives_each_side_the_other(api: Api, other: Api) -> None:
    opened = await open_with(api, other)
    assert opened == {
        "id": opened["id"],
        "conversation_type": "human_chat",
        "user_id": api.user_id,
        "influencer_id": None,
        "influencer": None,
        "user": {"principal_id": other.user_id, "username": None, "profile_picture_url": None},
        "created_at": opened["created_at"],
        "updated_at": opened["created_at"],
        "message_count": 0,
        "unread_count": 0,
        "takeover_active": False,
        "last_message": None,
        "recent_messages": [],
    }
    theirs = await open_with(other, api)
    assert theirs == {**opened, "user": {**opened["user"], "principal_id": api.user_id}}
    assert await seen(api, opened["id"]) == opened == await open_with(api, other)


async def test_both_open_at_once_and_have_one(api: Api, other: Api, service: Service) -> None:
    opened = await asyncio.gather(*(open_with(*pair) for pair in [(api, other), (other, api)] * 5))
    assert len({conversation["id"] for conversation in opened}) == 1
    people = (api.user_id, other.user_id)
    query = select(func.count()).where(conversation_rows.c.user_id.in_(people))
    assert fetch(service, query)[0][0] == 1
    for side in (api, other):
        assert (await inbox(side))["total"] == 1


async def test_nobody_opens_with_oneself_or_with_a_persona(api: Api, service: Service) -> None:
    gone = add_influencer(service, status="discontinued")
    for participant in (api.user_id, add_influencer(service), gone, "", "  ", None, 5, "x" * 256, "a\0b"):
        error = refused(await api.post(HUMAN, {"participant_id": participant}), 422, "validation_error")
        assert error["details"]["errors"][0]["loc"] == ["body", "participant_id"]
    assert (await inbox(api))["total"] == 0


async def test_an_empty_chat_is_in_the_inbox_of_the_one_who_opened_it(api: Api, other: Api) -> None:
    opened = await open_with(api, other)
    assert ids(await inbox(api)) == [opened["id"]]
    assert ids(await inbox(other)) == []
    refused(await other.get(f"{V1}/{opened['id']}"), 404, "not_found")
    await wrote(api, opened["id"], "Hello")
    assert ids(await inbox(other)) == [opened["id"]]


# --- send


async def test_a_message_reaches_the_other_side(api: Api, other: Api, model: FakeModel) -> None:
    chat = (await open_with(api, other))["id"]
    first = await wrote(api, chat, "  Hello  ")
    second = await wrote(other, chat, "Hi!")
    assert (first["role"], first["origin"], first["sender_id"], first["content"]) == (
        "user", "user", api.user_id, "Hello",
    )  # fmt: skip
    assert (first["status"], first["sequence"], first["completed_at"]) == ("delivered", 1, first["created_at"])
    assert (second["sender_id"], second["sequence"], second["reply_to"]) == (other.user_id, 2, None)
    assert second["created_at"] > first["created_at"]
    for side in (api, other):
        assert await side.history(chat) == [first, second]
        view = await seen(side, chat)
        assert (view["message_count"], view["unread_count"], view["updated_at"]) == (2, 1, second["created_at"])
        assert view["recent_messages"] == [second, first]
        assert view["last_message"]["id"] == second["id"]
        assert view["last_message"]["sender_id"] == other.user_id
    assert model.requests() == []


async def test_the_common_route_acts_by_the_type_of_the_conversation(api: Api, other: Api, service: Service) -> None:
    chat = (await open_with(api, other))["id"]
    response = await other.send(chat, "Not shown to me yet")
    refused(response, 404, "not_found")
    response = await api.send(chat, "Hello", client_message_id="k")
    assert response.status_code == 200
    assert response.json()["assistant_message"] is None
    again = await write(api, chat, "Hello", client_message_id="k")
    assert (again.json(), again.headers["idempotency-replayed"]) == (response.json(), "true")
    with_persona = await open_fresh(api, service)
    refused(await write(api, with_persona["id"], "Hello"), 404, "not_found")
    refused(await write(other, with_persona["id"], "Hello"), 404, "not_found")
    refused(await write(api, "unknown", "Hello"), 404, "not_found")


async def test_what_needs_a_persona_is_refused(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    message = (await wrote(api, chat, "Hello"))["id"]
    body = {"message_type": "text", "content": "Hello"}
    refused(await api.post(f"{messages(chat)}/stream", body), 409, "not_streamable")
    refused(await other.get(f"{messages(chat)}/{message}/stream"), 409, "not_streamable")
    refused(await api.post(f"{V1}/{chat}/images", {"prompt": "A cat"}), 409, "conflict")
    for action in ("regenerate", "cancel"):
        for side in (api, other):
            refused(await side.post(f"{messages(chat)}/{message}/{action}"), 409, "conflict")
    assert await texts(api, chat) == ["Hello"]


async def test_nobody_else_gets_in(api: Api, other: Api, service: Service, user_of: MakeUser) -> None:
    chat = (await open_with(api, other))["id"]
    message = (await wrote(api, chat, "Hello"))["id"]
    third = user_of(service)
    body = {"message_type": "text", "content": "Hello"}
    requests = [
        ("GET", f"{V1}/{chat}"), ("DELETE", f"{V1}/{chat}"), ("POST", f"{V1}/{chat}/read"), ("GET", messages(chat)),
        ("POST", messages(chat)), ("POST", f"{HUMAN}/{chat}/messages"), ("POST", f"{messages(chat)}/stream"),
        ("GET", f"{messages(chat)}/{message}/stream"), ("POST", f"{messages(chat)}/{message}/regenerate"),
        ("POST", f"{messages(chat)}/{message}/cancel"), ("POST", f"{V1}/{chat}/images"),
    ]  # fmt: skip
    for method, path in requests:
        answer = await third.request(method, path, json=body if method == "POST" else None)
        assert refused(answer, 403, "forbidden")["message"] == "Not your conversation"
    assert (await inbox(third))["total"] == 0


async def test_images_and_recordings_are_sent_as_to_personas(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    image = await uploaded(api, "image")
    message = await wrote(api, chat, "", message_type="image", media_urls=[image["storage_key"]])
    (shown,) = await other.history(chat)
    assert shown["media_urls"] != []
    assert shown == {**message, "media_urls": shown["media_urls"]}
    assert (await fetched(shown["media_urls"][0])).status_code == 200
    audio = await uploaded(other, "audio")
    heard = await wrote(other, chat, "", message_type="audio", audio_url=audio["url"])
    assert (heard["content"], heard["transcription"]) == ("[Voice message]", None)
    assert heard["audio_duration_seconds"] == audio["duration_seconds"]
    theirs = {"message_type": "image", "media_urls": [image["storage_key"]]}
    refused(await other.post(f"{HUMAN}/{chat}/messages", theirs), 403, "media_forbidden")


async def test_a_key_makes_one_message_of_many_requests(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    answers = await asyncio.gather(*(write(api, chat, "Once", client_message_id="k") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["user_message"]["id"] for answer in answers}) == 1
    assert sorted("idempotency-replayed" in answer.headers for answer in answers) == [False] + [True] * 7
    refused(await write(api, chat, "Another", client_message_id="k"), 409, "idempotency_conflict")
    await wrote(other, chat, "Another", client_message_id="k")
    assert await texts(other, chat) == ["Once", "Another"], "a key is the sender's"


async def test_without_a_key_only_what_was_not_received_is_a_repetition(api: Api, other: Api, service: Service) -> None:
    chat = (await open_with(api, other))["id"]
    first = await wrote(api, chat, "Hey")
    await received(service, first["id"])
    second = await wrote(api, chat, "Hey")
    assert second["id"] != first["id"], "its answer was received: said twice"
    assert await texts(other, chat) == ["Hey", "Hey"]


async def test_a_message_whose_answer_was_lost_is_found_again(api: Api, other: Api, service: Service) -> None:
    chat = (await open_with(api, other))["id"]
    message = await wrote(api, chat, "Lost?")
    await received(service, message["id"])
    # As if the connection had broken before the answer.
    lost = update(message_rows).where(message_rows.c.conversation_id == chat).values(is_handed_over=False)
    execute(service, lost)
    again = await write(api, chat, "Lost?")
    assert (again.json()["user_message"]["id"], again.headers["idempotency-replayed"]) == (message["id"], "true")
    await received(service, message["id"])
    execute(service, lost)
    age(service, 121, message["id"])
    assert (await wrote(api, chat, "Lost?"))["id"] != message["id"], "too old to be a repetition"


async def test_both_write_at_once_and_nothing_is_lost_or_reordered(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    await wrote(api, chat, "Start")

    async def talk(side: Api, name: str) -> list[Json]:
        return [await wrote(side, chat, f"{name} {number}") for number in range(15)]

    said = await asyncio.gather(talk(api, "a"), talk(other, "b"), talk(api, "c"), talk(other, "d"))
    history = (await api.history(chat))[1:]
    assert {row["id"] for row in history} == {row["id"] for talker in said for row in talker}
    assert [row["sequence"] for row in history] == list(range(2, 62))
    times = [row["created_at"] for row in history]
    assert times == sorted(set(times))
    for talker in said:
        mine = {row["id"] for row in talker}
        assert [row["id"] for row in history if row["id"] in mine] == [row["id"] for row in talker]
    for side in (api, other):
        view = await seen(side, chat)
        assert (view["message_count"], view["last_message"]["id"]) == (61, history[-1]["id"])
        assert view["unread_count"] == sum(row["sender_id"] != side.user_id for row in history) + (side is other)


# --- read


async def test_reading_marks_what_the_other_has_said(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    for number in range(3):
        await wrote(api, chat, f"No. {number}")
    await wrote(other, chat, "Stop")
    assert (await seen(other, chat))["unread_count"] == 3
    mark = await read(other, chat)
    assert mark == {"id": chat, "unread_count": 0, "last_read_at": mark["last_read_at"]}
    statuses = [row["status"] for row in await api.history(chat)]
    assert statuses == ["read", "read", "read", "delivered"]
    assert (await seen(other, chat))["unread_count"] == 0
    view = await seen(api, chat)
    assert (view["unread_count"], view["last_message"]["status"]) == (1, "delivered")
    await read(api, chat)
    assert (await seen(other, chat))["last_message"]["status"] == "read"
    await wrote(api, chat, "More")
    assert (await seen(other, chat))["unread_count"] == 1
    assert (await inbox(other))["conversations"][0]["last_message"]["is_read"] is False


async def test_events_tell_the_recipient_and_both_of_reading(api: Api, other: Api, service: Service) -> None:
    chat = (await open_with(api, other))["id"]
    frames = await describe(service.url)
    async with inbox_of(api, frames) as mine, inbox_of(other, frames) as theirs:
        for number in (1, 2):
            message = await wrote(api, chat, f"No. {number}", client_message_id=f"k{number}")
            await wrote(api, chat, f"No. {number}", client_message_id=f"k{number}")
            assert (await theirs.take())["data"] == {
                "conversation_id": chat,
                "message": message,
                "influencer_id": None,
                "influencer": None,
                "user": {"principal_id": api.user_id, "username": None, "profile_picture_url": None},
                "unread_count": number,
            }
        answer = await wrote(other, chat, "Yes?")
        told = await mine.take()
        assert (told["event"], told["data"]["message"]["id"]) == ("new_message", answer["id"])
        mark = await read(other, chat)
        data = {"conversation_id": chat, "read_at": mark["last_read_at"], "reader_id": other.user_id}
        assert (await theirs.take())["data"] == {**data, "unread_count": 0}
        assert (await mine.take())["data"] == {**data, "unread_count": 1}, "each is told the own count"
        await delete(api, chat)
        assert names(await mine.settle()) == ["conversation_deleted"]
        await read(other, chat)
        assert names(await theirs.settle()) == ["conversation_read"]
        assert await mine.settle() == [], "for this side there is nothing"


# --- delete


async def test_deleting_hides_it_for_one_side_until_the_other_writes(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    await wrote(api, chat, "One")
    await wrote(other, chat, "Two")
    assert await delete(api, chat) == 2
    refused(await api.delete(f"{V1}/{chat}"), 404, "not_found")
    refused(await api.get(f"{V1}/{chat}"), 404, "not_found")
    refused(await api.get(messages(chat)), 404, "not_found")
    refused(await api.post(f"{V1}/{chat}/read"), 404, "not_found")
    for answer in (await api.send(chat, "Still there?"), await write(api, chat, "Still there?")):
        refused(answer, 404, "not_found")
    page = await inbox(api)
    assert (ids(page), page["total"], page["unread_total"]) == ([], 0, 0)
    assert await texts(other, chat) == ["One", "Two"]
    await wrote(other, chat, "Three")
    view = await seen(api, chat)
    assert (view["message_count"], view["unread_count"], view["last_message"]["content"]) == (1, 1, "Three")
    assert [row["content"] for row in view["recent_messages"]] == ["Three"]
    assert ids(await inbox(api)) == ids(await inbox(api, V2, type="human")) == ids(await inbox(api, HUMAN)) == [chat]
    assert (await seen(other, chat))["message_count"] == 3
    assert await delete(api, chat) == 1


async def test_opening_again_after_deleting_begins_anew(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    await wrote(api, chat, "One")
    await delete(api, chat)
    again = await open_with(api, other)
    assert (again["id"], again["message_count"], again["last_message"]) == (chat, 0, None)
    assert again["recent_messages"] == []
    assert ids(await inbox(api)) == [chat]
    await wrote(api, chat, "One")
    assert await texts(api, chat) == ["One"]
    assert await texts(other, chat) == ["One", "One"], "what was deleted is no earlier message"


async def test_pages_of_a_history_that_was_partly_deleted(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    old = [await wrote(api, chat, f"Old {number}") for number in range(3)]
    await delete(api, chat)
    new = [await wrote(other, chat, f"New {number}") for number in range(5)]

    async def page(side: Api, **query: Any) -> tuple[list[str], int, bool]:
        found = (await side.get(messages(chat), params=query)).json()
        return [row["id"] for row in found["messages"]], found["total"], found["has_more"]

    fresh = [row["id"] for row in new]
    everything = [row["id"] for row in old + new]
    assert await page(api, order="asc") == (fresh, 5, False)
    assert await page(api, order="asc", include="unfinished") == (fresh, 5, False)
    assert await page(api, limit=2) == (fresh[:2:-1], 5, True)
    assert await page(api, limit=2, offset=4) == ([fresh[0]], 5, False)
    assert await page(api, before=fresh[2], order="asc") == (fresh[:2], 5, False)
    assert await page(api, before=fresh[2], limit=1) == ([fresh[1]], 5, True)
    assert await page(api, after=fresh[2], order="asc") == (fresh[3:], 5, False)
    for anchor in ("before", "after"):
        refused(await api.get(messages(chat), params={anchor: old[1]["id"]}), 404, "not_found")
    assert await page(other, order="asc") == (everything, 8, False)
    assert await page(other, before=fresh[0], order="asc") == (everything[:3], 8, False)


async def test_what_was_deleted_unread_stays_unread(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    await wrote(api, chat, "Never read")
    await delete(other, chat)
    await wrote(api, chat, "Read")
    await read(other, chat)
    assert [row["status"] for row in await api.history(chat)] == ["delivered", "read"]


async def test_the_second_deletion_erases_everything(api: Api, other: Api, service: Service) -> None:
    chat = (await open_with(api, other))["id"]
    image = await uploaded(api, "image")
    await wrote(api, chat, "", message_type="image", media_urls=[image["storage_key"]])
    assert (await fetched(image["url"])).status_code == 200
    assert await delete(api, chat) == 1
    assert (await fetched((await other.history(chat))[0]["media_urls"][0])).status_code == 200
    assert await delete(other, chat) == 1
    for table in (conversation_rows.c.id, message_rows.c.conversation_id):
        assert fetch(service, select(func.count()).where(table == chat))[0][0] == 0
    query = select(func.count()).where(media_objects.c.key == image["storage_key"])
    assert fetch(service, query)[0][0] == 0

    folder = service.folder / "data" / "media" / api.user_id

    async def removed() -> bool:
        return not list(folder.glob("*"))  # the folder may be gone too

    await until(removed, what="the file to be removed")
    assert (await fetched(image["url"])).status_code == 404
    assert (await open_with(other, api))["id"] != chat


async def test_an_empty_chat_is_erased_by_the_one_who_opened_it(api: Api, other: Api) -> None:
    chat = (await open_with(api, other))["id"]
    assert await delete(api, chat) == 0
    assert (await open_with(other, api))["id"] != chat


async def test_no_deleted_text_comes_back_in_the_replay(api: Api, other: Api, service: Service) -> None:
    chat = (await open_with(api, other))["id"]
    await wrote(api, chat, "Secret")
    await wrote(other, chat, "Mine")
    await delete(other, chat)
    frames = await describe(service.url)
    async with inbox_of(other, frames, since=0) as theirs:
        assert "Secret" not in str(await theirs.settle())
    async with inbox_of(api, frames, since=0) as mine:
        assert "Mine" in str(await mine.settle()), "the other side keeps what it was told"


@pytest.mark.parametrize("body", [None, {}, {"message_type": "text"}, {"message_type": "text", "content": " "}])
async def test_the_body_is_checked_as_for_personas(api: Api, other: Api, body: Any) -> None:
    chat = (await open_with(api, other))["id"]
    refused(await api.post(f"{HUMAN}/{chat}/messages", body), 422, "validation_error")
    assert await texts(api, chat) == []
