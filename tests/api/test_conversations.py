"""Opening, listing, reading and deleting conversations: contract sections 7.1 to 7.4, 7.6 and 7.7."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.api.conftest import MakeUser
from tests.api.expecting import GREETING, asked, open_fresh, refused
from tests.client import Api, Json, messages
from tests.rows import add_influencer, fetch, set_status
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.db.tables import conversations as conversation_rows
from yral_chat.db.tables import messages as message_rows
from yral_chat.db.tables import turns as turn_rows

V1, V2 = "/api/v1/chat/conversations", "/api/v2/chat/conversations"


async def get(api: Api, conversation: Json) -> Json:
    response = await api.get(f"{V1}/{conversation['id']}")
    assert response.status_code == 200, response.text
    seen: Json = response.json()
    return seen


async def listed(api: Api, path: str = V2, **query: Any) -> Json:
    response = await api.get(path, params=query)
    assert response.status_code == 200, response.text
    page: Json = response.json()
    return page


def ids(page: Json) -> list[str]:
    return [conversation["id"] for conversation in page["conversations"]]


# --- open


async def test_opening_gives_a_complete_conversation_with_its_greeting(api: Api, service: Service) -> None:
    influencer_id = add_influencer(
        service,
        initial_greeting=GREETING,
        display_name="Ahaan",
        category="fitness",
        avatar_url="https://pictures.example/a.png",
        suggested_messages='["Plan my week", "नमस्ते"]',
    )
    opened = await api.open(influencer_id)
    (greeting,) = opened["recent_messages"]
    assert opened == {
        "id": opened["id"],
        "conversation_type": "ai_chat",
        "user_id": api.user_id,
        "influencer_id": influencer_id,
        "influencer": {
            "id": influencer_id,
            "name": opened["influencer"]["name"],
            "display_name": "Ahaan",
            "avatar_url": "https://pictures.example/a.png",
            "category": "fitness",
            "is_online": True,
            "suggested_messages": ["Plan my week", "नमस्ते"],
        },
        "user": None,
        "created_at": opened["created_at"],
        "updated_at": opened["created_at"],
        "message_count": 1,
        "unread_count": 1,
        "takeover_active": False,
        "last_message": {
            "id": greeting["id"],
            "content": GREETING,
            "role": "assistant",
            "message_type": "text",
            "created_at": greeting["created_at"],
            "status": "delivered",
            "is_read": False,
            "sender_id": influencer_id,
        },
        "recent_messages": [greeting],
    }
    assert (greeting["origin"], greeting["status"], greeting["token_count"]) == ("greeting", "delivered", None)
    assert (greeting["sequence"], greeting["attempt"], greeting["reply_to"]) == (1, 1, None)
    assert await api.history(opened["id"]) == [greeting]
    assert await get(api, opened) == opened


async def test_opening_again_gives_the_same_conversation(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    await api.said(opened["id"], "Hello")
    response = await api.post(V1, {"influencer_id": f"  {opened['influencer_id']} "})
    assert response.status_code == 201
    again = response.json()
    assert again["id"] == opened["id"]
    assert [message["content"] for message in again["recent_messages"]] == ["You said: Hello", "Hello", GREETING]
    assert again["influencer"]["suggested_messages"] == []


async def test_without_a_greeting_the_conversation_is_empty(api: Api, service: Service) -> None:
    opened = await api.open(add_influencer(service))
    assert (opened["message_count"], opened["unread_count"]) == (0, 0)
    assert (opened["last_message"], opened["recent_messages"]) == (None, [])


async def test_ten_at_once_open_one_complete_conversation(api: Api, service: Service) -> None:
    influencer_id = add_influencer(service, initial_greeting=GREETING)
    opened = await asyncio.gather(*(api.open(influencer_id) for _ in range(10)))
    assert all(conversation == opened[0] for conversation in opened)
    assert len(opened[0]["recent_messages"]) == 1
    query = select(func.count()).where(conversation_rows.c.user_id == api.user_id)
    assert fetch(service, query)[0][0] == 1
    assert (await listed(api))["total"] == 1


async def test_many_users_open_at_once(api: Api, other: Api, service: Service) -> None:
    influencer_id = add_influencer(service, initial_greeting=GREETING)
    mine, theirs = await asyncio.gather(api.open(influencer_id), other.open(influencer_id))
    assert mine["id"] != theirs["id"]
    assert mine["recent_messages"][0]["id"] != theirs["recent_messages"][0]["id"]


async def test_the_status_of_the_persona_decides_who_may_open(api: Api, other: Api, service: Service) -> None:
    influencer_id = add_influencer(service, status="coming_soon", initial_greeting=GREETING)
    opened = await api.open(influencer_id)
    assert opened["influencer"]["is_online"] is False
    set_status(service, influencer_id, "discontinued")
    assert (await api.open(influencer_id))["influencer"]["is_online"] is False, "an existing one reopens"
    error = refused(await other.post(V1, {"influencer_id": influencer_id}), 404, "not_found")
    assert error["message"] == "Influencer not found"
    refused(await api.post(V1, {"influencer_id": "nobody"}), 404, "not_found")
    assert (await listed(other))["total"] == 0


@pytest.mark.parametrize(
    "body", [None, {}, [], "x", 5, {"influencer_id": None}, {"influencer_id": 5}, {"influencer_id": "  "},
             {"influencer_id": "x" * 256}, {"influencer_id": "a\u0000b"}, {"influencer_id": ["x"]}],
)  # fmt: skip
async def test_opening_with_an_unusable_body_is_refused(api: Api, body: Any) -> None:
    refused(await api.post(V1, body), 422, "validation_error")


# --- one conversation


async def test_recent_messages_are_the_first_rows_of_the_history(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    for number in range(7):
        await api.said(opened["id"], f"Message {number}")
    seen = await get(api, opened)
    assert (seen["message_count"], len(seen["recent_messages"])) == (15, 10)
    assert seen["recent_messages"] == (await api.history(opened["id"], order="desc"))[:10]
    (in_list,) = (await listed(api, V1))["conversations"]
    assert in_list["recent_messages"] == seen["recent_messages"]
    rest = await api.history(opened["id"], order="desc", offset=10)
    assert len(rest) == 5


async def test_a_long_last_message_is_cut_in_the_inbox_only(api: Api, service: Service, model: FakeModel) -> None:
    opened = await open_fresh(api, service)
    model.tell(default={"pieces": ["é🙂" * 700]})
    _, reply = await api.said(opened["id"], "Much")
    last = (await get(api, opened))["last_message"]
    assert last["content"] == reply["content"][:1000]
    assert len(reply["content"]) == 1400


async def test_the_last_message_is_the_newest_with_final_content(api: Api, service: Service, model: FakeModel) -> None:
    opened = await open_fresh(api, service)
    _, reply = await api.said(opened["id"], "One")
    assert (await get(api, opened))["last_message"]["id"] == reply["id"]
    model.tell(default={"finish_reason": None})
    error = refused(await api.send(opened["id"], "Two"), 503, "ai_unavailable")
    failed = error["details"]
    assert failed["assistant_message"]["content"] != ""
    seen = await get(api, opened)
    assert seen["last_message"]["id"] == failed["user_message"]["id"], "a failed text is nobody's last word"
    assert seen["recent_messages"][0]["id"] == failed["assistant_message"]["id"], "but it is part of the history"
    model.tell(default={"pieces": ["Half"], "stall_after": 1})
    sending = asyncio.create_task(api.send(opened["id"], "Three"))

    async def begun() -> Json | None:
        row = (await api.history(opened["id"], include="unfinished"))[-1]
        return row if row["content"] == "Half" else None

    running = await until(begun, what="the text")
    assert (await get(api, opened))["last_message"]["content"] == "Three"
    await api.post(f"{messages(opened['id'])}/{running['id']}/cancel")
    refused(await sending, 409, "turn_cancelled")
    last = (await get(api, opened))["last_message"]
    assert (last["content"], last["status"], last["role"]) == ("Half", "cancelled", "assistant")


async def test_a_waiting_turn_keeps_the_newest_question_as_last_message(
    api: Api, service: Service, model: FakeModel
) -> None:
    opened = await open_fresh(api, service)
    model.tell(default={"echo": True, "is_held": True})
    first = asyncio.create_task(api.send(opened["id"], "One"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    second = asyncio.create_task(api.send(opened["id"], "Two"))

    async def waits() -> bool:
        return len(await api.history(opened["id"], include="unfinished")) == 5

    await until(waits, what="the second message")
    model.tell(release=4)  # three words and the end
    await first
    assert (await get(api, opened))["last_message"]["content"] == "Two", "the reply to One is older than it"
    model.tell(release=100)
    await second
    assert (await get(api, opened))["last_message"]["content"] == "You said: Two"


async def test_updated_at_is_the_newest_message_stored_or_completed(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    _, reply = await api.said(opened["id"], "Hello")
    seen = await get(api, opened)
    assert seen["updated_at"] == reply["completed_at"] > opened["updated_at"]
    await api.post(f"{V1}/{opened['id']}/read")
    assert (await get(api, opened))["updated_at"] == seen["updated_at"], "reading changes nothing"


async def test_a_conversation_is_seen_by_its_two_sides_only(api: Api, other: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    error = refused(await other.get(f"{V1}/{opened['id']}"), 403, "forbidden")
    assert error["message"] == "Not your conversation"
    refused(await api.get(f"{V1}/unknown"), 404, "not_found")


async def test_the_owner_sees_the_other_side(api: Api, other: Api, service: Service) -> None:
    bot = add_influencer(service, owner_id=other.user_id, initial_greeting=GREETING)
    opened = await api.open(bot)
    await api.said(opened["id"], "Hello")
    seen = await get(other, opened)
    assert seen["user"] == {"principal_id": api.user_id, "username": None, "profile_picture_url": None}
    assert seen["influencer"]["id"] == bot
    assert (seen["user_id"], seen["unread_count"]) == (api.user_id, 1), "what the user said"
    assert [message["content"] for message in seen["recent_messages"]] == ["You said: Hello", "Hello", GREETING]
    assert (await get(api, opened))["user"] is None


async def test_an_owner_who_talks_to_the_own_bot_has_the_users_view(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service, owner_id=api.user_id)
    await api.said(opened["id"], "Hello")
    seen = await get(api, opened)
    assert (seen["user"], seen["unread_count"]) == (None, 2)
    mark = (await api.post(f"{V1}/{opened['id']}/read")).json()
    assert mark["unread_count"] == 0
    statuses = [message["status"] for message in await api.history(opened["id"])]
    assert statuses == ["read", "delivered", "read"]
    (as_bot,) = (await listed(api, principal=opened["influencer_id"]))["conversations"]
    assert (as_bot["unread_count"], as_bot["user"]["principal_id"]) == (1, api.user_id)


# --- lists


async def test_lists_show_the_most_recently_active_first(api: Api, service: Service) -> None:
    opened = [await open_fresh(api, service) for _ in range(4)]
    await api.said(opened[1]["id"], "Hello")
    expected = [opened[1]["id"], opened[3]["id"], opened[2]["id"], opened[0]["id"]]
    for path in (V1, V2):
        page = await listed(api, path)
        assert ids(page) == expected
        assert {name: page[name] for name in ("total", "limit", "offset", "has_more")} == {
            "total": 4,
            "limit": 20,
            "offset": 0,
            "has_more": False,
        }


async def test_the_two_lists_differ_in_the_recent_messages_only(api: Api, service: Service) -> None:
    opened = [await open_fresh(api, service, suggested_messages='["Hi"]') for _ in range(3)]
    await api.said(opened[-1]["id"], "Hello")
    v1, v2 = await listed(api, V1), await listed(api, V2)
    for row in v1["conversations"]:
        assert row.pop("recent_messages") != []
    assert v1 == v2
    suggestions = [row["influencer"]["suggested_messages"] for row in v2["conversations"]]
    assert suggestions == [None, ["Hi"], ["Hi"]], "only while a conversation has not begun"
    assert all(row["user"] is None for row in v2["conversations"])


@pytest.mark.parametrize("path", [V1, V2])
async def test_pages_have_no_gap_and_no_repetition(api: Api, service: Service, path: str) -> None:
    influencer_ids = [add_influencer(service) for _ in range(7)]
    await asyncio.gather(*(api.open(influencer_id) for influencer_id in influencer_ids))
    whole = ids(await listed(api, path))
    assert len(set(whole)) == 7
    collected: list[str] = []
    for offset in range(0, 9, 3):
        page = await listed(api, path, limit=3, offset=offset)
        assert (page["total"], page["limit"], page["offset"]) == (7, 3, offset)
        assert page["has_more"] == (offset + len(page["conversations"]) < 7)
        collected += ids(page)
    assert collected == whole
    beyond = await listed(api, path, offset=100)
    assert (ids(beyond), beyond["total"], beyond["has_more"]) == ([], 7, False)


@pytest.mark.parametrize("path", [V1, V2])
async def test_lists_can_be_filtered_by_influencer(api: Api, service: Service, path: str) -> None:
    opened = [await open_fresh(api, service) for _ in range(3)]
    page = await listed(api, path, influencer_id=opened[1]["influencer_id"])
    assert (ids(page), page["total"], page["has_more"]) == ([opened[1]["id"]], 1, False)
    nothing = await listed(api, path, influencer_id="unknown")
    assert (ids(nothing), nothing["total"]) == ([], 0)
    assert (await listed(api, path, influencer_id="", limit="", offset=""))["total"] == 3, "empty counts as absent"
    beyond = await listed(api, path, influencer_id=opened[1]["influencer_id"], offset=1)
    assert (ids(beyond), beyond["total"], beyond["has_more"]) == ([], 1, False)


@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "101"), ("limit", "-1"), ("limit", "ten"), ("limit", "1.5"), ("limit", "9" * 400),
     ("offset", "-1"), ("offset", "x"), ("offset", "9" * 400), ("influencer_id", "x" * 256), ("influencer_id", "\x00")],
)  # fmt: skip
async def test_lists_refuse_what_is_out_of_range(api: Api, path: str, name: str, value: str) -> None:
    error = refused(await api.get(path, params={name: value}), 422, "validation_error")
    assert [item["loc"] for item in error["details"]["errors"]] == [["query", name]]


async def test_lists_take_the_limits_of_their_ranges(api: Api, service: Service) -> None:
    await open_fresh(api, service)
    for limit in (1, 100):
        assert (await listed(api, limit=limit))["limit"] == limit
    assert (await listed(api, offset=2**31 - 1))["total"] == 1
    assert (await listed(api, surprise="x", limit=5))["limit"] == 5, "unknown parameters are ignored"


async def test_a_list_is_ones_own(api: Api, other: Api, service: Service) -> None:
    await open_fresh(api, service)
    assert (await listed(other, V1))["total"] == (await listed(other, V2))["total"] == 0


async def test_a_token_that_names_a_bot_is_a_persons(api: Api, service: Service, user_of: MakeUser) -> None:
    bot = add_influencer(service, initial_greeting=GREETING)
    await api.open(bot)
    namesake = user_of(service, bot)
    refused(await namesake.post(V1, {"influencer_id": bot}), 403, "forbidden")
    own = await open_fresh(namesake, service)
    for path, query in ((V1, {}), (V2, {}), (V2, {"principal": bot}), (V2, {"type": "all"})):
        page = await listed(namesake, path, **query)
        assert (ids(page), page["total"]) == ([own["id"]], 1), "not what others say to the bot"
    for path in (V1, V2):
        page = await listed(namesake, path, influencer_id=bot)
        assert (ids(page), page["total"]) == ([], 0)


@pytest.mark.parametrize(
    ("query", "count"),
    [({}, 2), ({"type": "ai"}, 2), ({"type": "all"}, 2), ({"type": "human"}, 0), ({"type": ""}, 2)],
)
@pytest.mark.parametrize("names_itself", [False, True])
async def test_the_own_inbox_by_type(api: Api, service: Service, query: Json, count: int, names_itself: bool) -> None:
    for _ in range(2):
        await open_fresh(api, service)
    principal = {"principal": api.user_id} if names_itself else {}
    page = await listed(api, **query, **principal)
    assert (len(page["conversations"]), page["total"]) == (count, count)


@pytest.mark.parametrize("status", ["active", "discontinued"])
async def test_a_bots_inbox_is_its_owners(api: Api, other: Api, service: Service, status: str) -> None:
    bot = add_influencer(service, owner_id=other.user_id, initial_greeting=GREETING)
    opened = await api.open(bot)
    await api.said(opened["id"], "Hello")
    await other.open(bot)
    set_status(service, bot, status)
    page = await listed(other, principal=bot)
    assert page["total"] == 2
    assert {row["user"]["principal_id"] for row in page["conversations"]} == {api.user_id, other.user_id}
    row = next(row for row in page["conversations"] if row["user_id"] == api.user_id)
    assert (row["id"], row["influencer"]["id"], row["unread_count"]) == (opened["id"], bot, 1)
    assert row["last_message"]["content"] == "You said: Hello"
    assert row["influencer"]["is_online"] == (status == "active")
    first, second = [await listed(other, principal=bot, limit=1, offset=offset) for offset in (0, 1)]
    assert ids(first) + ids(second) == ids(page)
    assert (first["has_more"], second["has_more"], second["total"]) == (True, False, 2)
    assert (await listed(other, principal=bot, influencer_id=bot))["total"] == 2
    assert (await listed(other, principal=bot, influencer_id="another"))["total"] == 0


async def test_a_bots_inbox_has_no_human_rows(api: Api, service: Service) -> None:
    bot = add_influencer(service, owner_id=api.user_id)
    for type_ in ("human", "all"):
        error = refused(await api.get(V2, params={"principal": bot, "type": type_}), 422, "validation_error")
        assert error["details"]["errors"][0]["loc"] == ["query", "type"]
    assert (await listed(api, principal=bot, type="ai"))["total"] == 0


async def test_a_principal_that_is_not_ones_own_is_refused(api: Api, other: Api, service: Service) -> None:
    bot = add_influencer(service, owner_id=other.user_id)
    catalogue = add_influencer(service)
    for principal in (bot, catalogue, other.user_id, "unknown", "🙂"):
        refused(await api.get(V2, params={"principal": principal}), 403, "forbidden")
    refused(await api.get(V2, params={"type": "robots"}), 422, "validation_error")


# --- read


async def test_reading_marks_what_the_persona_said(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    await api.said(opened["id"], "Hello")
    assert (await get(api, opened))["unread_count"] == 2
    response = await api.post(f"{V1}/{opened['id']}/read")
    assert response.status_code == 200
    mark = response.json()
    assert mark == {"id": opened["id"], "unread_count": 0, "last_read_at": mark["last_read_at"]}
    history = await api.history(opened["id"])
    assert [message["status"] for message in history] == ["read", "delivered", "read"]
    assert [message["is_read"] for message in history] == [True, False, True]
    seen = await get(api, opened)
    assert (seen["unread_count"], seen["last_message"]["status"], seen["last_message"]["is_read"]) == (0, "read", True)
    again = (await api.post(f"{V1}/{opened['id']}/read")).json()
    assert (again["unread_count"], again["last_read_at"] >= mark["last_read_at"]) == (0, True)


async def test_the_owner_marks_what_the_user_said(api: Api, other: Api, service: Service) -> None:
    opened = await open_fresh(api, service, owner_id=other.user_id)
    for word in ("Hello", "Hello again"):
        await api.said(opened["id"], word)
    assert (await get(other, opened))["unread_count"] == 2
    mark = (await other.post(f"{V1}/{opened['id']}/read")).json()
    assert mark["unread_count"] == 0
    assert (await get(other, opened))["unread_count"] == 0
    assert (await get(api, opened))["unread_count"] == 3, "the user's own count is not the owner's"
    assert [message["status"] for message in await api.history(opened["id"])] == [
        "delivered", "read", "delivered", "read", "delivered",
    ]  # fmt: skip


async def test_new_replies_are_unread_again(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    await api.post(f"{V1}/{opened['id']}/read")
    await api.said(opened["id"], "Hello")
    assert (await get(api, opened))["unread_count"] == 1
    (row,) = (await listed(api))["conversations"]
    assert row["unread_count"] == 1


async def test_reading_while_a_reply_is_written_leaves_the_reply_unread(
    api: Api, service: Service, model: FakeModel
) -> None:
    opened = await open_fresh(api, service)
    model.tell(default={"echo": True, "is_held": True})
    sending = asyncio.create_task(api.send(opened["id"], "Hello"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    assert (await api.post(f"{V1}/{opened['id']}/read")).json()["unread_count"] == 0
    model.tell(release=100)
    assert (await sending).json()["assistant_message"]["status"] == "delivered"
    assert (await get(api, opened))["unread_count"] == 1


async def test_reading_is_for_the_two_sides(api: Api, other: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    refused(await other.post(f"{V1}/{opened['id']}/read"), 403, "forbidden")
    refused(await api.post(f"{V1}/unknown/read"), 404, "not_found")
    assert (await get(api, opened))["unread_count"] == 1


# --- delete


async def test_deleting_takes_everything_and_opening_begins_anew(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    await api.said(opened["id"], "Hello")
    kept = await open_fresh(api, service)
    response = await api.delete(f"{V1}/{opened['id']}")
    assert response.status_code == 200
    told = response.json()
    assert told == {
        "success": True,
        "message": told["message"],
        "deleted_conversation_id": opened["id"],
        "deleted_messages_count": 3,
    }
    refused(await api.delete(f"{V1}/{opened['id']}"), 404, "not_found")
    refused(await api.get(f"{V1}/{opened['id']}"), 404, "not_found")
    refused(await api.get(messages(opened["id"])), 404, "not_found")
    refused(await api.send(opened["id"], "Hello?"), 404, "not_found")
    page = await listed(api)
    assert (ids(page), page["total"]) == ([kept["id"]], 1)
    rows = select(func.count()).where(message_rows.c.conversation_id == opened["id"])
    assert fetch(service, rows)[0][0] == 0
    again = await api.open(opened["influencer_id"])
    assert again["id"] != opened["id"]
    assert (again["message_count"], (await listed(api))["total"]) == (1, 2)


async def test_deleting_stops_what_runs(api: Api, service: Service, model: FakeModel) -> None:
    opened = await open_fresh(api, service)
    model.tell(default={"stall_after": 0})
    sends = [asyncio.create_task(api.send(opened["id"], word)) for word in ("One", "Two")]
    await until(lambda: asked(model, 1), what="the model to be asked")

    async def both() -> bool:
        return len(await api.history(opened["id"], include="unfinished")) == 5

    await until(both, what="both turns")
    told = (await api.delete(f"{V1}/{opened['id']}")).json()
    assert told["deleted_messages_count"] == 3
    for sending in sends:
        refused(await sending, 404, "not_found")
    assert fetch(service, select(func.count()).where(turn_rows.c.conversation_id == opened["id"]))[0][0] == 0

    async def vendor_knows() -> bool:
        return model.state()["disconnects"] == 1

    await until(vendor_knows, what="the call to the vendor to end")
    # Nothing of it comes back, and the next conversation works.
    model.reset()
    again = await api.open(opened["influencer_id"])
    await api.said(again["id"], "Hello")
    assert len(await api.history(again["id"], include="unfinished")) == 3


async def test_only_the_user_deletes(api: Api, other: Api, service: Service) -> None:
    opened = await open_fresh(api, service, owner_id=other.user_id)
    refused(await other.delete(f"{V1}/{opened['id']}"), 403, "forbidden")
    refused(await api.delete(f"{V1}/unknown"), 404, "not_found")
    assert (await get(api, opened))["id"] == opened["id"]


async def test_ten_at_once_delete_once(api: Api, service: Service) -> None:
    opened = await open_fresh(api, service)
    answers = await asyncio.gather(*(api.delete(f"{V1}/{opened['id']}") for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [404] * 9
    assert (await listed(api))["total"] == 0


# --- the counters of the persona


async def test_the_persona_counts_conversations_and_user_messages(api: Api, other: Api, service: Service) -> None:
    bot = add_influencer(service, initial_greeting=GREETING)
    opened = await api.open(bot)
    await other.open(bot)
    await api.said(opened["id"], "One")
    await api.said(opened["id"], "Two")
    await api.said(opened["id"], "Two", client_message_id="again")

    async def counted() -> bool:
        seen = (await api.get(f"/api/v1/influencers/{bot}")).json()
        return (seen["conversation_count"], seen["message_count"]) == (2, 3)

    await until(counted, what="the counts to be folded")
    await api.delete(f"{V1}/{opened['id']}")

    async def counted_down() -> bool:
        seen = (await api.get(f"/api/v1/influencers/{bot}")).json()
        return (seen["conversation_count"], seen["message_count"]) == (1, 3)

    await until(counted_down, what="the counts to be folded again")
