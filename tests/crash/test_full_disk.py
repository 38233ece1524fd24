"""A disk that takes no more: sends are refused and store nothing, reads go on, and everything works when space returns.

How a single unit of work behaves when SQLite says "full" is proved in tests/db.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.client import Api, Document, messages
from tests.crash.disk import ServiceOnDisk, SmallDisk, can_mount
from tests.crash.outside import CUT, asked, ended, whole_history
from tests.programs import require
from tests.service import FakeModel
from tests.waiting import until

DISK_BYTES = 12 * 1024 * 1024
# What is still free in the write-ahead log takes at most so many messages.
MOST_SENDS = 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    require("a tmpfs of one's own (root, or user namespaces)", can_mount())
    with SmallDisk(tmp_path / "data", DISK_BYTES) as disk:
        yield disk


@pytest.fixture
def service(tmp_path: Path, disk: SmallDisk, model: FakeModel) -> Iterator[ServiceOnDisk]:
    with ServiceOnDisk(tmp_path, disk, **model.settings) as service:
        yield service


@pytest.fixture
async def api(service: ServiceOnDisk) -> AsyncIterator[Api]:
    client = Api(service.url, Document.of(service))
    yield client
    await client.close()


async def fill(disk: SmallDisk, api: Api, conversation_id: str) -> None:
    """Fills the disk, and uses up what the log had reserved: from now on not one message fits."""
    disk.fill()
    for number in range(MOST_SENDS):
        response = await api.send(conversation_id, f"filling {number}")
        if response.status_code == 503:
            assert response.json()["error"] == "storage_full", response.text
            return
        assert response.status_code == 200, response.text
    raise AssertionError("the disk does not fill")


def is_refused(response: httpx2.Response) -> bool:
    """The refusal of contract section 2: nothing was stored, come back later."""
    assert response.status_code == 503, response.text
    assert response.json()["error"] == "storage_full"
    assert int(response.headers["retry-after"]) >= 1
    return True


def damage(disk: SmallDisk, folder: Path) -> str:
    """What SQLite finds wrong with the file that a stopped service left; `ok` when nothing."""
    # SQLite would follow the link in /proc to a place outside of the disk.
    copy = shutil.copy(disk.inside / "yral_chat.db", folder / "copy.db")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        answer: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        return answer


async def test_sends_are_refused_and_reads_go_on(service: ServiceOnDisk, disk: SmallDisk, api: Api) -> None:
    conversation = await api.open()
    await api.said(conversation["id"], "Before")
    await fill(disk, api, conversation["id"])
    before = await whole_history(api, conversation["id"])
    body = {"message_type": "text", "content": "Hello", "client_message_id": "one"}
    path = messages(conversation["id"])
    assert is_refused(await api.post(path, body))
    assert is_refused(await api.post(f"{path}/stream", body))
    assert is_refused(await api.post(f"{path}/{before[-1]['id']}/regenerate"))
    assert is_refused(await api.post(f"/api/v1/chat/conversations/{conversation['id']}/read"))
    other = (await api.influencers())[1]["id"]
    assert is_refused(await api.post("/api/v1/chat/conversations", {"influencer_id": other}))
    # Reads go on, and show that nothing was half-written.
    assert await whole_history(api, conversation["id"]) == before
    (listed,) = (await api.get("/api/v2/chat/conversations")).json()["conversations"]
    assert listed["message_count"] == len(before)
    assert (await api.get("/health/live")).status_code == 200
    assert (await api.get("/health/ready")).status_code == 200
    # Space returns: the same request is taken, once, and by the same process.
    disk.empty()
    user, reply = await api.said(conversation["id"], "Hello", client_message_id="one")
    assert await api.said(conversation["id"], "Hello", client_message_id="one") == (user, reply)
    after = await whole_history(api, conversation["id"])
    assert after == [*before, user, reply]
    assert service.stop() == 0
    assert damage(disk, service.folder) == "ok"


async def test_a_reply_that_cannot_be_stored_is_stored_when_space_returns(
    service: ServiceOnDisk, disk: SmallDisk, api: Api, model: FakeModel
) -> None:
    conversation, other = await api.open(), await api.open((await api.influencers())[1]["id"])
    await api.said(conversation["id"], "Before")
    model.tell(script=[{"echo": True, "is_held": True}])
    sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
    await asked(model, 2)
    await fill(disk, api, other["id"])
    model.tell(release=10)

    async def cannot_be_stored() -> bool:
        return "turn.end_not_stored" in service.process.output

    await until(cannot_be_stored, what="the refusal of the disk")
    (pending,) = [message for message in await whole_history(api, conversation["id"]) if message["attempt"] > 0][-1:]
    assert pending["status"] in ("pending", "streaming")
    disk.empty()
    response = await sending
    assert response.status_code == 200, response.text
    reply = response.json()["assistant_message"]
    assert (reply["id"], reply["content"], reply["attempt"]) == (pending["id"], "You said: Hello", 1)
    assert model.state()["script"] == 0
    assert _texts(model).count("Hello") == 1  # the model was not asked again


def _texts(model: FakeModel) -> list[Any]:
    return [request["body"]["contents"][-1]["parts"][-1]["text"] for request in model.requests()]


@pytest.mark.long
async def test_a_kill_on_a_full_disk_loses_nothing(
    service: ServiceOnDisk, disk: SmallDisk, api: Api, model: FakeModel
) -> None:
    conversation, other = await api.open(), await api.open((await api.influencers())[1]["id"])
    await api.said(conversation["id"], "Before")
    model.tell(script=[{"stall_after": 1}])
    sending = asyncio.create_task(api.send(conversation["id"], "Hello", client_message_id="one"))
    await asked(model, 2)
    await fill(disk, api, other["id"])
    before = await whole_history(api, conversation["id"])
    service.kill()
    with pytest.raises(CUT):
        await sending
    # A start needs to write. When it cannot, it says so and leaves everything as it is.
    with pytest.raises(AssertionError, match="the database is full; nothing was changed"):
        service.start()
    assert service.process.process.returncode == 1
    assert "Traceback" not in service.process.output
    disk.empty()
    service.start()
    reply = await ended(api, conversation["id"], before[-1]["id"])
    assert (reply["content"], reply["attempt"]) == ("You said: Hello", 2)
    after = await whole_history(api, conversation["id"])
    assert [message["id"] for message in after] == [message["id"] for message in before]
    assert service.stop() == 0
    assert damage(disk, service.folder) == "ok"
