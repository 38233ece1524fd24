"""Pages of messages: contract section 7.5."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.expecting import open_fresh, refused
from tests.client import Api, Json, messages
from tests.rows import add_influencer
from tests.service import FakeModel, Service
from tests.waiting import until


async def page_of(api: Api, conversation_id: str, **query: Any) -> Json:
    response = await api.get(messages(conversation_id), params=query)
    assert response.status_code == 200, response.text
    page: Json = response.json()
    return page


def ids(page: Json) -> list[str]:
    return [message["id"] for message in page["messages"]]


@pytest.fixture
async def told(api: Api, service: Service, model: FakeModel) -> AsyncIterator[tuple[str, list[Json], list[Json]]]:
    """(conversation id, its history, its history with the unfinished rows), oldest first.

    Greeting, three turns that went well, one that failed without text, one that failed in mid-sentence, one that runs.
    """
    conversation = await open_fresh(api, service)
    for number in range(3):
        await api.said(conversation["id"], f"Message {number}")
    model.tell(script=[{"status": 400}, {"status": 400}, {"finish_reason": None}, {"stall_after": 0}])
    await api.send(conversation["id"], "This fails")
    await api.send(conversation["id"], "This fails in mid-sentence")
    running = asyncio.create_task(api.send(conversation["id"], "This takes long"))

    async def all_rows() -> list[Json] | None:
        rows: list[Json] = (await page_of(api, conversation["id"], order="asc", include="unfinished"))["messages"]
        return rows if len(rows) == 13 else None

    complete = await until(all_rows, what="the last turn")
    shown = [row for row in complete if not is_unfinished(row)]
    yield conversation["id"], shown, complete
    await api.post(f"{messages(conversation['id'])}/{complete[-1]['id']}/cancel")
    await running


def is_unfinished(row: Json) -> bool:
    return row["status"] in ("pending", "streaming") or (
        row["status"] in ("failed", "cancelled") and not row["content"]
    )


Told = tuple[str, list[Json], list[Json]]


async def test_the_history_leaves_unfinished_rows_out(api: Api, told: Told) -> None:
    conversation_id, shown, complete = told
    assert (len(shown), len(complete)) == (11, 13)
    page = await page_of(api, conversation_id)
    assert page == {
        "conversation_id": conversation_id,
        "messages": shown[::-1],
        "total": 11,
        "limit": 50,
        "offset": 0,
        "has_more": False,
    }
    assert (await page_of(api, conversation_id, order="asc"))["messages"] == shown
    assert (await api.get(f"/api/v1/chat/conversations/{conversation_id}")).json()["message_count"] == 11


async def test_unfinished_rows_are_included_on_request(api: Api, told: Told) -> None:
    conversation_id, _, complete = told
    page = await page_of(api, conversation_id, include="unfinished")
    assert (page["messages"], page["total"]) == (complete[::-1], 13)


@pytest.mark.parametrize("include", [None, "unfinished"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 4, 5])
async def test_offset_pages_join_to_the_whole(
    api: Api, told: Told, include: str | None, order: str, limit: int
) -> None:
    conversation_id, shown, complete = told
    whole = [row["id"] for row in (complete if include else shown)]
    whole = whole if order == "asc" else whole[::-1]
    query = {"include": include} if include else {}
    joined: list[str] = []
    for offset in range(0, len(whole) + limit, limit):
        page = await page_of(api, conversation_id, order=order, limit=limit, offset=offset, **query)
        assert (page["total"], page["limit"], page["offset"]) == (len(whole), limit, offset)
        assert page["has_more"] == (offset + len(page["messages"]) < len(whole))
        joined += ids(page)
    assert joined == whole


@pytest.mark.parametrize("include", [None, "unfinished"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_pages_beside_a_message_join_to_the_whole(
    api: Api, told: Told, include: str | None, order: str, limit: int
) -> None:
    conversation_id, shown, complete = told
    rows = complete if include else shown
    whole = [row["id"] for row in rows]
    query = {"order": order, "limit": limit, **({"include": include} if include else {})}
    older: list[str] = []
    newer: list[str] = []
    anchor = whole[-1]
    while True:
        page = await page_of(api, conversation_id, before=anchor, **query)
        found = ids(page) if order == "asc" else ids(page)[::-1]
        assert page["has_more"] == (len(older) + len(found) < len(whole) - 1)
        assert (page["total"], page["offset"]) == (len(whole), 0)
        older = found + older
        if not page["has_more"]:
            break
        anchor = found[0]
    assert older == whole[:-1]
    anchor = whole[0]
    while True:
        page = await page_of(api, conversation_id, after=anchor, **query)
        found = ids(page) if order == "asc" else ids(page)[::-1]
        newer += found
        if not page["has_more"]:
            break
        anchor = found[-1]
    assert newer == whole[1:]


async def test_an_unfinished_row_is_an_anchor_too(api: Api, told: Told) -> None:
    conversation_id, shown, complete = told
    failed = next(row for row in complete if row["status"] == "failed" and not row["content"])
    older = [row["id"] for row in shown if row["sequence"] < failed["sequence"]]
    page = await page_of(api, conversation_id, before=failed["id"], order="asc")
    assert ids(page) == older


async def test_the_ends_of_the_history_have_nothing_beyond(api: Api, told: Told) -> None:
    conversation_id, shown, _ = told
    for query in ({"before": shown[0]["id"]}, {"after": shown[-1]["id"]}):
        page = await page_of(api, conversation_id, **query)
        assert (page["messages"], page["has_more"], page["total"]) == ([], False, 11)


async def test_anchors_must_be_of_this_conversation(api: Api, service: Service) -> None:
    conversation, elsewhere = await open_fresh(api, service), await open_fresh(api, service)
    foreign = elsewhere["recent_messages"][0]["id"]
    for side in ("before", "after"):
        for anchor in ("unknown", foreign, "🙂"):
            refused(await api.get(messages(conversation["id"]), params={side: anchor}), 404, "not_found")


@pytest.mark.parametrize(
    "query",
    [
        {"before": "a", "after": "b"},
        {"before": "a", "offset": 1},
        {"after": "a", "offset": 1},
        {"limit": 0},
        {"limit": 201},
        {"limit": "x"},
        {"limit": "5.0"},
        {"limit": "1_0"},
        {"offset": -1},
        {"order": "up"},
        {"include": "everything"},
        {"before": "x" * 256},
        {"before": "\x00"},
    ],
    ids=str,
)
async def test_queries_that_make_no_sense_are_refused(api: Api, service: Service, query: Json) -> None:
    conversation = await open_fresh(api, service)
    refused(await api.get(messages(conversation["id"]), params=query), 422, "validation_error")


async def test_empty_parameters_count_as_absent(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    empty = dict.fromkeys(("limit", "offset", "order", "before", "after", "include"), "")
    page = await page_of(api, conversation["id"], **empty)
    assert (page["limit"], page["offset"], len(page["messages"])) == (50, 0, 1)
    first = conversation["recent_messages"][0]["id"]
    assert (await page_of(api, conversation["id"], before=first, after="", offset=0))["messages"] == []


async def test_reading_the_history_marks_nothing(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    await page_of(api, conversation["id"])
    assert (await api.get(f"/api/v1/chat/conversations/{conversation['id']}")).json()["unread_count"] == 1


async def test_the_history_is_for_the_two_sides(api: Api, other: Api, service: Service) -> None:
    mine = await open_fresh(api, service)
    refused(await other.get(messages(mine["id"])), 403, "forbidden")
    refused(await api.get(messages("unknown")), 404, "not_found")
    bots = await api.open(add_influencer(service, owner_id=other.user_id))
    await api.said(bots["id"], "Hello")
    assert (await page_of(other, bots["id"]))["messages"] == (await page_of(api, bots["id"]))["messages"]
