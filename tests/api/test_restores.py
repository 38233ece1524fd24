"""What the operator puts back into the running service: `POST /api/v1/admin/restores`."""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.api.conftest import StartService
from tests.api.expecting import refused
from tests.api.sockets import describe, inbox_of, names
from tests.client import PLAIN, Api, Document, Json
from tests.locks import locks_on, needs_proc_locks
from tests.programs import PrivatePostgres
from tests.service import Service
from tests.services.restores.world import copy_rows
from yral_chat.db.migrations import migrate

KEY = "the-key-of-the-operator"
RESTORES = "/api/v1/admin/restores"


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def guarded(service_with: StartService) -> Service:
    return service_with(ADMIN_API_KEY=KEY)


@pytest.fixture
def operator(guarded: Service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url, headers={"X-Admin-Key": KEY}, verify=PLAIN, timeout=60) as client:
        yield client


@pytest.fixture
async def ann(guarded: Service, document: Document) -> AsyncIterator[Api]:
    client = Api(guarded.url, document)
    yield client
    await client.close()


def take_copy(service: Service, empty_file: Path, name: str = "copy.db") -> str:
    """The present as a file below DATA_DIR; returns its name there."""
    path = service.folder / "data" / name
    shutil.copy(empty_file, path)
    copy_rows(service.database_url, f"sqlite:///{path}")
    return name


def put_back(operator: httpx2.Client, **body: str) -> list[Json]:
    response = operator.post(RESTORES, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


async def test_a_conversation_that_was_deleted_comes_back_and_open_sockets_hear_of_it(
    guarded: Service, operator: httpx2.Client, ann: Api, empty_file: Path
) -> None:
    conversation = (await ann.open())["id"]
    await ann.said(conversation, "remember this")
    before = await ann.history(conversation)
    copy = take_copy(guarded, empty_file)
    await ann.delete(f"/api/v1/chat/conversations/{conversation}")
    frames = await describe(guarded.url)
    async with inbox_of(ann, frames) as inbox:
        steps = put_back(operator, file=copy, conversation_id=conversation)
        told = await inbox.take()
    assert steps[0] == {"done": 0}
    assert steps[-1]["result"]["messages"] == len(before) == 3
    assert told["event"] == "resync"
    assert await ann.history(conversation) == before
    # Whoever was away asks with an older number and is told too.
    async with inbox_of(ann, frames, since=told["seq"] - 1) as inbox:
        assert names([await inbox.take()]) == ["resync"]
    async with inbox_of(ann, frames, since=told["seq"]) as inbox:
        assert await inbox.settle() == []
    again = await ann.open()
    assert again["id"] == conversation
    await ann.said(conversation, "and go on")


async def test_an_event_before_the_restore_is_not_replayed_over_it(
    guarded: Service, operator: httpx2.Client, ann: Api, empty_file: Path
) -> None:
    conversation = (await ann.open())["id"]
    await ann.said(conversation, "one")
    copy = take_copy(guarded, empty_file)
    other = (await ann.open((await ann.influencers())[1]["id"]))["id"]
    await ann.delete(f"/api/v1/chat/conversations/{conversation}")
    put_back(operator, file=copy, user_id=ann.user_id)
    await ann.said(other, "two")
    frames = await describe(guarded.url)
    async with inbox_of(ann, frames, since=1) as inbox:
        assert names([await inbox.take()]) == ["resync"]
        assert await inbox.settle() == []


@needs_proc_locks
def test_the_served_database_is_no_copy(guarded: Service, operator: httpx2.Client) -> None:
    path = guarded.folder / "data" / "yral_chat.db"
    if not path.exists():
        return  # it is on a server, and has no file
    another = path.with_name("another-name.db")
    another.hardlink_to(path)
    for name in (path.name, another.name):
        response = operator.post(RESTORES, json={"file": name, "user_id": "ann"})
        assert response.status_code == 422
        assert "no copy of it" in response.text
    another.unlink()
    assert locks_on(path, guarded.pid), "whoever has looked into it has taken SQLite's lock away"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"file": "copy.db"}, 422, "which conversation"),
        ({"user_id": "ann"}, 422, "Name the copy"),
        ({"file": "copy.db", "database": "copy", "user_id": "ann"}, 422, "Name the copy"),
        ({"file": "../../../etc/passwd", "user_id": "ann"}, 422, "below DATA_DIR"),
        ({"file": "/etc/passwd", "user_id": "ann"}, 422, "below DATA_DIR"),
        ({"file": "nowhere.db", "user_id": "ann"}, 404, "no such file"),
        ({"file": "", "user_id": "ann"}, 404, "no such file"),
        ({"file": "dev-secret", "user_id": "ann"}, 409, "not a SQLite database"),
        ({"file": "copy.db", "user_id": "nobody"}, 404, "nothing of this person"),
        ({"file": "copy.db", "conversation_id": "none"}, 404, "no such conversation"),
        ({"file": "copy.db", "conversation_id": "x" * 300}, 422, ""),
    ],
)
def test_what_makes_no_sense_is_refused_and_said(
    guarded: Service, operator: httpx2.Client, empty_file: Path, body: Json, status: int, says: str
) -> None:
    take_copy(guarded, empty_file)
    (guarded.folder / "data" / "dev-secret").write_text("no database")
    response = operator.post(RESTORES, json=body)
    codes = {404: "not_found", 409: "conflict", 422: "validation_error"}
    refused(response, status, codes[status])
    assert says in response.text


def test_a_database_beside_is_for_postgres_and_is_never_the_one_in_use(
    guarded: Service, operator: httpx2.Client, dialect: str
) -> None:
    name = guarded.database_url.rsplit("/", 1)[1]
    response = operator.post(RESTORES, json={"database": name, "user_id": "ann"})
    refused(response, 422, "validation_error")
    assert ("in use" if dialect == "postgresql" else "PostgreSQL only") in response.text


@pytest.mark.postgres
async def test_a_database_beside_is_a_copy(
    guarded: Service, operator: httpx2.Client, ann: Api, dialect: str, request: pytest.FixtureRequest
) -> None:
    if dialect != "postgresql":
        return
    conversation = (await ann.open())["id"]
    await ann.said(conversation, "remember this")
    before = await ann.history(conversation)
    server: PrivatePostgres = request.getfixturevalue("postgres")
    url = server.create_database()
    migrate(url)
    copy_rows(guarded.database_url, url)
    await ann.delete(f"/api/v1/chat/conversations/{conversation}")
    put_back(operator, database=url.rsplit("/", 1)[1], conversation_id=conversation)
    assert await ann.history(conversation) == before
