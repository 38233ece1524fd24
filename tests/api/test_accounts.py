"""Taking everything along, and having it erased (contract section 14)."""

import asyncio
import json
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert, select, text

from tests import files
from tests.api import people
from tests.api.conftest import MakeUser
from tests.api.sockets import describe, inbox_of
from tests.client import Api, Document, Json
from tests.rows import add_influencer, connect, execute, fetch
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.core.clock import now
from yral_chat.db.tables import (
    audit_events,
    events,
    influencer_versions,
    influencers,
    jobs,
    memories,
    messages,
    metadata,
    participants,
    principals,
    usage_events,
    user_settings,
)

EXPORT, ME = "/api/v1/users/me/export", "/api/v1/users/me"
NOTHING = {"conversations": 0, "messages": 0, "memories": 0, "media": 0, "influencers": 0}


async def export(api: Api) -> Json:
    response = await api.get(EXPORT)
    assert response.status_code == 200, response.text
    document: Json = response.json()
    return document


async def erase(api: Api) -> Json:
    response = await api.delete(ME)
    assert response.status_code == 200, response.text
    deleted: Json = response.json()["deleted"]
    return deleted


def remember(service: Service, conversation_id: str, value: str) -> None:
    time = now()
    execute(
        service,
        insert(memories).values(
            conversation_id=conversation_id, key="city", value=value, source_message_id=None, source_seq=1,
            confidence=90, created_at=time, updated_at=time,
        ),
    )  # fmt: skip


def own_bot(service: Service, owner_id: str, **columns: Any) -> str:
    bot = add_influencer(service, owner_id=owner_id, source="user-created-influencer", **columns)
    prompt = columns.get("system_instructions", "You are brief.")
    row = {"influencer_id": bot, "n": 1, "system_instructions": prompt, "created_at": now()}
    execute(service, insert(influencer_versions).values(row))
    return bot


def fill(service: Service, conversation_id: str, sender: str, count: int, content: str = "filler") -> None:
    """Adds `count` messages behind what there is."""
    time = now()
    rows = [
        {
            "id": f"{conversation_id}-{number}", "conversation_id": conversation_id, "seq": 1000 + number,
            "role": "user", "origin": "user", "message_type": "text", "content": f"{content} {number}",
            "status": "delivered", "is_listed": True, "sender_id": sender, "attempt": 1, "last_attempt": 1,
            "is_handed_over": False, "created_at": time + number * 1000, "completed_at": time + number * 1000,
        }
        for number in range(count)
    ]  # fmt: skip
    connection = connect(service)
    connection.exec_driver_sql("BEGIN")
    connection.execute(insert(messages), rows)
    connection.execute(
        text("UPDATE conversations SET message_count = message_count + :n, last_seq = :last WHERE id = :id"),
        {"n": count, "last": 1000 + count, "id": conversation_id},
    )
    connection.exec_driver_sql("COMMIT")
    connection.close()
    connection.engine.dispose()


# taking along


async def test_an_export_has_everything_of_the_caller_and_nothing_else(service: Service, api: Api, other: Api) -> None:
    conversation = await api.open()
    for number in range(3):
        await api.said(conversation["id"], f"message {number}")
    remember(service, conversation["id"], "Bonn")
    bot = own_bot(service, api.user_id, system_instructions="My very own words.")
    chat = await people.open_with(api, other)
    await people.wrote(api, chat["id"], "to a person")
    await people.wrote(other, chat["id"], "from a person")
    uploaded = await files.uploaded(api, "image")
    await other.said((await other.open())["id"], "not in there")

    response = await api.get(EXPORT)
    assert response.headers["content-disposition"].startswith("attachment;")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {
        "exported_at", "user_id", "conversations", "human_conversations", "influencers", "media",
    }  # fmt: skip
    assert document["user_id"] == api.user_id
    (ai,) = document["conversations"]
    assert ai["messages"] == [
        {**message, "media_urls": message["media_urls"]} for message in await api.history(conversation["id"])
    ]
    assert [(memory["key"], memory["value"]) for memory in ai["memories"]] == [("city", "Bonn")]
    assert ai["influencer"]["avatar_url"] == conversation["influencer"]["avatar_url"]
    (human,) = document["human_conversations"]
    assert [message["content"] for message in human["messages"]] == ["to a person", "from a person"]
    assert human["user"]["principal_id"] == other.user_id
    assert [(found["id"], found["system_prompt"]) for found in document["influencers"]] == [(bot, "My very own words.")]
    (file,) = document["media"]
    assert (file["storage_key"], file["size"]) == (uploaded["storage_key"], uploaded["size"])
    assert (await api.http.get(file["url"])).status_code == 200
    assert "not in there" not in response.text


async def test_an_export_of_many_pages_is_complete_and_in_order(service: Service, api: Api) -> None:
    conversation = await api.open()
    fill(service, conversation["id"], api.user_id, 1234)
    others = [await api.open(bot) for bot in (add_influencer(service), add_influencer(service))]
    document = await export(api)
    assert {found["id"] for found in document["conversations"]} == {conversation["id"], *(c["id"] for c in others)}
    found = next(found for found in document["conversations"] if found["id"] == conversation["id"])
    sequences = [message["sequence"] for message in found["messages"]]
    assert sequences == sorted(set(sequences))
    assert len(sequences) == found["message_count"] == conversation["message_count"] + 1234


async def test_an_export_of_nothing_is_empty(api: Api) -> None:
    document = await export(api)
    assert [document[name] for name in ("conversations", "human_conversations", "influencers", "media")] == [[]] * 4


async def test_a_client_that_leaves_an_export_leaves_nothing_behind(service: Service, api: Api) -> None:
    conversation = await api.open()
    fill(service, conversation["id"], api.user_id, 3000, "x" * 2000)
    async with api.http.stream("GET", EXPORT) as response:
        async for _ in response.aiter_bytes():
            break

    async def is_over() -> bool:
        shown = (await api.http.get("/metrics")).text
        return "http_requests_in_progress 1.0" in shown  # the question itself

    await until(is_over, what="the export ends with its client")


async def test_strangers_get_nothing(service: Service, document: Document) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as nobody:
        for method, path in (("GET", EXPORT), ("DELETE", ME)):
            response = await nobody.request(method, path)
            document.check(response)
            assert response.status_code == 401


# erasing


async def test_erasing_counts_what_has_gone_and_leaves_what_is_others(service: Service, api: Api, other: Api) -> None:
    bot = own_bot(service, api.user_id, description="My idea", initial_greeting="Hi", display_name="Mine")
    theirs = await other.open(bot)
    await other.said(theirs["id"], "I like this bot")
    conversation = await api.open()
    await api.said(conversation["id"], "one")
    remember(service, conversation["id"], "Bonn")
    await files.uploaded(api, "image")
    chat = await people.open_with(api, other)
    await people.wrote(api, chat["id"], "mine")
    await people.wrote(other, chat["id"], "yours")
    await people.wrote(api, chat["id"], "mine again")
    await api.http.put("/api/v1/users/me/settings", json={"locale": "de"})

    deleted = await erase(api)
    assert deleted == {
        "conversations": 2, "messages": conversation["message_count"] + 2 + 2, "memories": 1, "media": 1,
        "influencers": 1,
    }  # fmt: skip
    assert await erase(api) == NOTHING
    document = await export(api)
    assert [document[name] for name in ("conversations", "human_conversations", "influencers", "media")] == [[]] * 4
    assert (await api.get("/api/v1/users/me/settings")).json()["locale"] is None

    assert await people.texts(other, chat["id"]) == ["yours"]
    seen = await people.seen(other, chat["id"])
    assert (seen["message_count"], seen["unread_count"]) == (1, 0)
    assert seen["last_message"]["content"] == "yours"
    assert seen["user"]["principal_id"].startswith("deleted-")
    kept = await people.seen(other, theirs["id"])
    assert (kept["influencer"]["display_name"], kept["influencer"]["is_online"]) == ("Deleted Bot", False)
    assert kept["message_count"] == 3  # with the greeting
    assert (await api.get(f"/api/v1/influencers/{bot}")).status_code == 404
    (row,) = fetch(service, select(influencers).where(influencers.c.id == bot))
    assert (row.system_instructions, row.initial_greeting, row.owner_id, row.description) == ("", "", None, "")


async def test_no_replay_shows_an_erased_persona(service: Service, api: Api, other: Api) -> None:
    bot = own_bot(service, api.user_id, display_name="Zq-mark-display", category="Zq-mark-category")
    theirs = await other.open(bot)
    for number in range(3):
        await other.said(theirs["id"], f"hello {number}")
    frames = await describe(service.url)
    await erase(api)
    async with inbox_of(other, frames, since=0) as inbox:
        told = [frame["data"] for frame in await inbox.settle() if frame["event"] == "new_message"]
    assert [(data["influencer_id"], data["influencer"]) for data in told] == [(bot, None)] * 3
    assert "Zq-mark" not in str(fetch(service, select(events.c.data)))


async def test_after_erasing_the_account_is_empty_and_works(api: Api, other: Api) -> None:
    before = await api.open()
    chat = await people.open_with(api, other)
    await people.wrote(api, chat["id"], "before")
    await erase(api)
    after = await api.open()
    assert after["id"] != before["id"]
    user_message, reply = await api.said(after["id"], "again")
    assert (user_message["status"], reply["status"]) == ("delivered", "delivered")
    again = await people.open_with(api, other)
    assert again["id"] != chat["id"]
    assert (await api.get("/api/v2/chat/conversations")).json()["total"] == 1


async def test_what_is_written_to_an_erased_person_goes_with_its_writer(service: Service, api: Api, other: Api) -> None:
    chat = (await people.open_with(api, other))["id"]
    await people.wrote(api, chat, "mine")
    await people.wrote(other, chat, "yours")
    await erase(api)
    await people.wrote(other, chat, "is anybody there?")
    sides = select(participants.c.unread_count, participants.c.is_hidden)
    nobody = sides.where(participants.c.conversation_id == chat, participants.c.principal_id != other.user_id)
    assert [tuple(row) for row in fetch(service, nobody)] == [(0, True)]
    assert fetch(service, select(principals.c.id).where(principals.c.id.like("deleted-%"))) == []
    assert await people.delete(other, chat) == 2
    assert fetch(service, select(messages.c.content).where(messages.c.conversation_id == chat)) == []


async def test_erasing_stops_running_turns_and_closes_sockets(service: Service, api: Api, model: FakeModel) -> None:
    conversation = await api.open()
    model.tell(default={"chunks": 1000, "chunk_delay": 0.05})
    frames = await describe(service.url)
    body = {"message_type": "text", "content": "a long story"}
    path = f"/api/v1/chat/conversations/{conversation['id']}/messages/stream"
    async with inbox_of(api, frames) as inbox, api.streaming("POST", path, body) as (_, events):
        async for event in events:
            if event.event == "token":
                break
        await erase(api)
        assert [event.event async for event in events][-1] == "error"
        assert await inbox.closed() == (4001, "account deleted")

    async def is_stopped() -> bool:
        return model.state()["open_streams"] == 0

    await until(is_stopped, what="the vendor's stream ends")

    async def usage() -> list[Any]:
        return fetch(service, select(usage_events.c.user_id).where(usage_events.c.user_id == api.user_id))

    assert await usage() == []
    assert await people.inbox(api) is not None


# what is left in the files


@pytest.fixture
async def marked(own_service: Service, model: FakeModel) -> AsyncIterator[tuple[Service, Api, Api]]:
    """A service of its own with somebody whose every word is a mark, and somebody else."""
    own_service.start()
    document = Document.of(own_service)
    mine, other = Api(own_service.url, document, "zq-mark-user"), Api(own_service.url, document, "somebody")
    yield own_service, mine, other
    await mine.close()
    await other.close()


MARK = b"zq-mark"


WORDS = (b"zq-mark-message", b"zq-mark-human", b"zq-mark-prompt", b"zq-mark-card", b"zq-mark-memory")


def files_with_mark(folder: Path, marks: tuple[bytes, ...] = (MARK,)) -> list[str]:
    """Names, and contents, that still have a mark; the log of erasures has it by design."""
    found = []

    def unlisted(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # the service may just remove some
            raise error

    walk = os.walk(folder, onerror=unlisted)
    for path in [Path(parent, name) for parent, *names in walk for name in chain(*names)]:
        if path.name == "erasures.jsonl":
            continue
        content = b""
        with suppress(FileNotFoundError):
            content = path.read_bytes() if path.is_file() else b""
        if any(mark in str(path.relative_to(folder)).encode() + content for mark in marks):
            found.append(str(path.relative_to(folder)))
    return found


async def plant(service: Service, mine: Api, other: Api) -> None:
    """The mark everywhere where the service keeps something of a person."""
    bot = own_bot(
        service, mine.user_id, system_instructions="zq-mark-prompt " * 500, description="zq-mark-idea",
        initial_greeting="zq-mark-greeting", display_name="zq-mark-name", name="zqmark",
        personality_traits='{"zq-mark-trait":"yes"}', suggested_messages='["zq-mark-suggestion"]',
        card='{"data":"zq-mark-card"}', avatar_url="https://example.com/zq-mark.png",
    )  # fmt: skip
    conversation = await mine.open(bot)
    plain = await mine.open()
    chat = await people.open_with(mine, other)
    for number in range(30):  # between those of somebody else, so that pages are shared and split
        await mine.said(plain["id"], f"zq-mark-message {number} " + "w" * number * 40)
        await people.wrote(mine, chat["id"], f"zq-mark-human {number} " + "w" * number * 40)
        await people.wrote(other, chat["id"], f"kept {number}")
    await mine.said(conversation["id"], "zq-mark-to-bot", client_message_id="zq-mark-key")
    uploaded = await files.uploaded(mine, "image")
    await mine.post(
        f"/api/v1/chat/conversations/{plain['id']}/messages",
        {"message_type": "image", "content": "zq-mark-caption", "media_urls": [uploaded["storage_key"]]},
    )
    remember(service, plain["id"], "zq-mark-memory")
    await mine.http.put("/api/v1/users/me/settings", json={"locale": "de", "time_zone": "Europe/Berlin"})
    rows = {"id": "audit", "action": "crisis.marked", "subject": mine.user_id, "reason": "", "details": "{}"}
    execute(service, insert(audit_events).values(**rows, created_at=now()))


async def test_nothing_of_an_erased_person_is_left_in_any_file_or_table(
    marked: tuple[Service, Api, Api], dialect: str
) -> None:
    service, mine, other = marked
    data = service.folder / "data"
    await plant(service, mine, other)
    if dialect == "sqlite":
        assert {"yral_chat.db", "yral_chat.db-wal"} & set(files_with_mark(data)), "the marks are not where we look"
    deleted = await erase(mine)
    assert all(deleted.values()), deleted
    if dialect == "sqlite":  # also from the write-ahead log, while the service runs
        assert files_with_mark(data, WORDS) == []

    async def is_settled() -> bool:
        return fetch(service, select(jobs.c.id)) == []

    await until(is_settled, what="files are removed")
    for table in metadata.tables.values():
        assert "zq-mark" not in str(fetch(service, select(table))), table.name
    left = [row.user_id for row in fetch(service, select(usage_events.c.user_id)) if row.user_id != "somebody"]
    assert left
    assert set(left) == {""}, "what was used stays counted, by nobody"
    (audit,) = fetch(service, select(audit_events).where(audit_events.c.action == "account.erased"))
    assert json.loads(audit.details) == deleted
    assert audit.subject.startswith("sha256:")
    log = data / "erasures.jsonl"
    assert [json.loads(line)["user_id"] for line in log.read_text().splitlines()] == [mine.user_id]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert len([text for text in await texts_of(other) if text.startswith("kept")]) == 30
    # What the jobs left in the write-ahead log goes with the next checkpoint: here, that of the end.
    assert service.stop() == 0
    assert files_with_mark(data) == []


@pytest.fixture
def sqlite_service(tmp_path: Path, model: FakeModel) -> Iterator[Service]:
    """As `own_service`, for what is not worth its time on both databases."""
    service = Service(tmp_path, **model.settings)
    yield service
    service.__exit__(None, None, None)


@pytest.fixture
async def somebody() -> AsyncIterator[MakeUser]:
    """As `user_of`, without the shared service's document."""
    async with AsyncExitStack() as stack:

        def make(service: Service, user_id: str | None = None) -> Api:
            document = Document.of(service)
            client = Api(service.url, document, user_id)
            stack.push_async_callback(client.close)
            return client

        yield make


async def texts_of(api: Api) -> list[str]:
    (chat,) = (await people.inbox(api, type="human"))["conversations"]
    return await people.texts(api, chat["id"])


async def test_a_restored_backup_is_erased_again_before_anybody_is_served(
    sqlite_service: Service, tmp_path: Path, somebody: MakeUser
) -> None:
    service, backup = sqlite_service.start(), tmp_path / "backup.db"
    mine, other = somebody(service), somebody(service)
    conversation = await mine.open()
    await mine.said(conversation["id"], "before the backup")
    await other.said((await other.open())["id"], "kept")
    execute(service, text(f"VACUUM INTO '{backup}'"))
    await erase(mine)
    newer = await mine.open()
    service.stop()
    service.start()
    assert [found["id"] for found in (await export(mine))["conversations"]] == [newer["id"]], "erased only once"
    service.stop()
    shutil.copy(backup, service.folder / "data" / "yral_chat.db")
    service.start()
    assert (await export(mine))["conversations"] == []
    assert len((await export(other))["conversations"]) == 1


@pytest.mark.long
async def test_an_erasure_that_a_crash_cuts_off_goes_on(sqlite_service: Service, somebody: MakeUser) -> None:
    service = sqlite_service.start()
    mine = somebody(service)
    conversation = await mine.open()
    fill(service, conversation["id"], mine.user_id, 20_000, "zq-mark " + "x" * 200)

    async def has_begun() -> bool:
        return (service.folder / "data" / "erasures.jsonl").exists()

    erasing = asyncio.create_task(mine.http.delete(ME))
    await until(has_begun, what="the erasure begins")
    service.kill()
    with pytest.raises(httpx2.TransportError):
        await erasing
    service.start()
    assert (await export(mine))["conversations"] == []
    assert [row.subject[:7] for row in fetch(service, select(audit_events.c.subject))] == ["sha256:"]
    assert fetch(service, select(user_settings)) == []
