"""How new a database is: what people do makes it newer, what the service does by itself does not."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import insert

from tests.api.creating import created
from tests.client import Api, Document
from tests.files import uploaded
from tests.rows import execute
from tests.service import FakeModel, Service
from yral_chat.core.clock import now, to_text
from yral_chat.db.contents import look_at_contents
from yral_chat.db.tables import memories
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog

KEY = "the-key-of-the-operator"
CONVERSATIONS, INFLUENCERS = "/api/v1/chat/conversations", "/api/v1/influencers"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel) -> Iterator[Service]:
    """On SQLite: on PostgreSQL nothing is restored over a database."""
    with Service(tmp_path_factory.mktemp("running"), ADMIN_API_KEY=KEY, **model_process.settings) as service:
        yield service


@pytest.fixture
async def ann(running: Service, model: FakeModel) -> AsyncIterator[Api]:
    client = Api(running.url, Document.of(running))
    yield client
    await client.close()


def database(service: Service) -> Path:
    return service.folder / "data" / "yral_chat.db"


def newest(service: Service) -> int:
    return look_at_contents(database(service)).newest


def forgotten(service: Service) -> int:
    return look_at_contents(database(service)).forgotten


async def open_another(ann: Api) -> object:
    return await ann.open((await ann.influencers())[-1]["id"])


async def edit(ann: Api, influencer: str) -> httpx2.Response:
    path = f"{INFLUENCERS}/{influencer}/system-prompt"
    return await ann.request("PATCH", path, json={"system_instructions": "You are Asha, who has moved."})


async def ban(ann: Api, influencer: str) -> httpx2.Response:
    headers = {"X-Admin-Key": KEY}
    return await ann.request(
        "POST", f"/api/v1/admin/influencers/{influencer}/ban", json={"reason": "spam"}, headers=headers
    )


Change = Callable[[Api, str, str], Awaitable[object]]
# Each is given somebody, a conversation of theirs, and a persona of theirs.
CHANGES: dict[str, Change] = {
    "opened": lambda ann, *_: open_another(ann),
    "said": lambda ann, conversation, _: ann.said(conversation, "Hello"),
    "read": lambda ann, conversation, _: ann.post(f"{CONVERSATIONS}/{conversation}/read"),
    "deleted": lambda ann, conversation, _: ann.delete(f"{CONVERSATIONS}/{conversation}"),
    "settings": lambda ann, *_: ann.request("PUT", "/api/v1/users/me/settings", json={"locale": "de"}),
    "uploaded": lambda ann, *_: uploaded(ann, "image"),
    "made": lambda ann, *_: created(ann),
    "edited": lambda ann, _, persona: edit(ann, persona),
    "banned": lambda ann, _, persona: ban(ann, persona),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_whatever_people_change_makes_it_newer(running: Service, ann: Api, name: str) -> None:
    persona = (await created(ann))["id"]
    conversation = (await ann.open(persona))["id"]
    await ann.said(conversation, "Before")
    before = newest(running)
    answer = await CHANGES[name](ann, conversation, persona)
    assert not isinstance(answer, httpx2.Response) or answer.is_success, answer
    assert newest(running) > before


@pytest.mark.long
async def test_a_start_makes_nothing_newer(tmp_path: Path, model: FakeModel) -> None:
    """Also one that erases again who was erased before, of whom this database knows nothing."""
    service = Service(tmp_path, **model.settings)
    (tmp_path / "data").mkdir()
    ErasureLog(tmp_path / "data" / "erasures.jsonl").append(Erasure("an-erasure", "somebody", to_text(now())))
    with service:
        contents = look_at_contents(database(service))
        assert (contents.conversations, contents.newest, contents.newest_text) == (0, 0, "never")
        ann = Api(service.url, Document.of(service))
        await ann.said((await ann.open())["id"], "Hello")
        await ann.close()
        service.stop()
        before = newest(service)
        service.start()
        service.stop()
        assert newest(service) == before > 0


async def test_memories_that_somebody_deletes_are_counted(running: Service, ann: Api) -> None:
    conversation = str((await ann.open((await created(ann))["id"]))["id"])
    await ann.said(conversation, "Hello")
    execute(
        running,
        insert(memories).values(
            conversation_id=conversation, key="town", value="Rome", source_seq=1, confidence=90,
            created_at=now(), updated_at=now(),
        ),
    )  # fmt: skip
    one, time = forgotten(running), newest(running)
    await ann.delete(f"{CONVERSATIONS}/{conversation}/memories/town")
    none = forgotten(running)
    await ann.delete(f"{CONVERSATIONS}/{conversation}/memories")
    assert one < none < forgotten(running)
    assert newest(running) <= time
