"""Between the service and PostgreSQL: 503 within bounds, nothing lost, nothing doubled, and it heals by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from tests.client import Api, Document, messages
from tests.faults.books import balanced
from tests.faults.proxy import Fault, FaultProxy, Kind
from tests.programs import PrivatePostgres
from tests.service import FakeModel, Service
from tests.waiting import there, until

pytestmark = [pytest.mark.long, pytest.mark.postgres]

# As long as a client waits for anything.
PATIENCE_SECONDS = 28.0
WORDS = "What is said while the line goes dead"


class ServiceBehind(Service):
    """A service that reaches its database through a proxy; tests look into it directly."""

    def __init__(self, proxy: FaultProxy, url: str, folder: Path, **settings: str | None) -> None:
        super().__init__(folder, DATABASE_URL=proxy.in_place_of(url), **settings)
        self._direct_url = url

    @property
    def database_url(self) -> str:
        return self._direct_url


@pytest.fixture(scope="module")
def database(postgres: PrivatePostgres) -> str:
    return postgres.create_database()


@pytest.fixture(scope="module")
def way(database: str) -> Iterator[FaultProxy]:
    """The way to the database."""
    with FaultProxy(database) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def storing(
    way: FaultProxy, database: str, model_process: FakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    # What was accepted and not begun is found again after this.
    settings = {
        **model_process.settings,
        "TURN_STALE_SECONDS": "4",
        "DATABASE_SILENCE_SECONDS": "2",
        "BREAKER_FAILURES": "1000",
    }
    service = ServiceBehind(way, database, tmp_path_factory.mktemp("storing"), **settings)
    with service:
        yield service
        way.heal()
        # What was leased by jobs that were cut is free at once after a start.
        assert service.stop() == 0
        service.start()
        asyncio.run(balanced(service, was_always_asked=False))


@pytest.fixture(scope="module")
def wire(storing: Service) -> Document:
    return Document.of(storing)


@pytest.fixture
async def person(storing: Service, wire: Document, way: FaultProxy, model: FakeModel) -> AsyncIterator[Api]:
    api = Api(storing.url, wire)
    try:
        yield api
        way.heal()
        await is_well(api)
    finally:
        await api.close()


async def says(api: Api, path: str, status: str) -> bool:
    response = await api.get(path)
    is_good = status in ("healthy", "ready")
    return bool((response.status_code == 200) == is_good and response.json()["status"] == status)


async def is_well(api: Api) -> None:
    """Waits until the service says that it works again, without a restart."""
    await until(partial(says, api, "/health", "healthy"), what="health", seconds=60)


def unavailable(response: httpx2.Response) -> None:
    assert (response.status_code, response.json()["error"]) == (503, "service_unavailable"), response.text
    assert int(response.headers["retry-after"]) >= 1


async def answered(api: Api, conversation_id: str, content: str, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Repeats until there is the reply, as a client does."""

    async def look() -> httpx2.Response | None:
        response = await api.send(conversation_id, content, client_message_id=key)
        assert response.status_code in (200, 503, 504), response.text
        return response if response.status_code == 200 else None

    found = await until(look, what="the reply", seconds=60)
    assert found is not None
    return found.json()["user_message"], found.json()["assistant_message"]


async def once(api: Api, conversation_id: str, content: str, key: str) -> None:
    """However often it was sent, it is there once, with one reply."""
    user, reply = await answered(api, conversation_id, content, key)
    found = await api.history(conversation_id, include="unfinished")
    assert [message["id"] for message in found if message["content"] == content] == [user["id"]]
    assert [message["id"] for message in found if message["reply_to"] == user["id"]] == [reply["id"]]
    assert reply["content"] == f"You said: {content}"
    assert found[-1]["id"] == reply["id"]
    page = (await api.get("/api/v2/chat/conversations")).json()["conversations"]
    (shown,) = [entry for entry in page if entry["id"] == conversation_id]
    assert (shown["message_count"], shown["last_message"]["id"]) == (len(found), reply["id"])


@pytest.mark.parametrize("passes", [False, True], ids=["before it arrives", "after it arrived"])
@pytest.mark.parametrize("kind", ["cut", "reset", "silence"])
async def test_a_commit_that_is_cut(person: Api, way: FaultProxy, kind: Kind, passes: bool) -> None:
    """Whether the message was stored is known to nobody; the same key finds out, and makes it one."""
    conversation = await person.open()
    way.fault = Fault(kind, "client", at=b"COMMIT\x00", passes=passes, since=WORDS.encode(), times=1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        response = await person.send(conversation["id"], WORDS, client_message_id="key")
    unavailable(response)
    assert way.struck == 1
    way.heal()
    await once(person, conversation["id"], WORDS, "key")


@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_wherever_the_connection_breaks_a_message_is_there_once(person: Api, way: FaultProxy, kind: Kind) -> None:
    """After each n-th byte that the service says from now on, on any connection."""
    conversation = await person.open()
    for after in range(0, 6000, 401):
        way.fault = Fault(kind, "client", after=after, times=1)
        response = await person.send(conversation["id"], f"number {after}", client_message_id=f"{after}")
        assert response.status_code in (200, 503, 504), response.text
        way.heal()
        await once(person, conversation["id"], f"number {after}", f"{after}")


@pytest.mark.parametrize(
    "fault", [None, Fault("reset", "client"), Fault("silence", "client"), Fault("silence")], ids=str
)
async def test_a_database_that_is_away_is_told_within_bounds_and_found_again(
    person: Api, way: FaultProxy, fault: Fault | None
) -> None:
    conversation = await person.open()
    if fault is None:
        way.refuse()
    way.fault = fault
    async with asyncio.timeout(PATIENCE_SECONDS):
        others = await asyncio.gather(
            person.get("/api/v2/chat/conversations"),
            person.get(f"/api/v1/chat/conversations/{conversation['id']}/messages"),
            *(person.send(conversation["id"], WORDS, client_message_id=f"key {number}") for number in range(3)),
        )
    for response in others:
        unavailable(response)
    await until(partial(says, person, "/health", "unhealthy"), what="that it is told")
    await until(partial(says, person, "/health/ready", "not_ready"), what="that it is told")
    way.heal()
    await is_well(person)
    await once(person, conversation["id"], WORDS, "key 0")


SYNC = b"S\x00\x00\x00\x04"  # the end of a question


@pytest.mark.parametrize(
    "fault",
    [
        Fault("silence", "client", at=b"SELECT 1\x00", times=1),
        Fault("silence", "client", at=SYNC, passes=True, since=b"pg_try_advisory_lock", times=1),
    ],
    ids=["while it holds it", "before it hears that it has got it"],
)
async def test_the_lock_is_taken_from_our_own_last_session_when_the_server_has_not_noticed_its_end(
    person: Api, storing: Service, way: FaultProxy, fault: Fault
) -> None:
    """Else we would think that another process serves, and stop working for good."""
    conversation = await person.open()
    holders = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with psycopg.connect(storing.database_url, autocommit=True) as other:

        async def another_holder(than: int = 0) -> int | None:
            found = [pid for (pid,) in other.execute(holders).fetchall()]
            return found[0] if len(found) == 1 and found[0] != than else None

        way.fault = fault
        if fault.since is not None:
            way.break_all()
        await until(there(lambda: way.struck == 1), what="the question", seconds=30)
        before = await until(another_holder, what="a session that is cut off and has it")
        assert before is not None
        await until(partial(another_holder, before), what="the lock in a new session", seconds=30)
    await is_well(person)
    await once(person, conversation["id"], WORDS, "key")


async def test_a_reply_that_ends_while_the_database_is_away_is_stored_when_it_is_back(
    person: Api, way: FaultProxy, model: FakeModel
) -> None:
    conversation = await person.open()
    model.tell(default={"pieces": ["One", " two"], "is_held": True})
    body = {"message_type": "text", "content": WORDS, "client_message_id": "key"}
    async with person.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events):
        start = await anext(events)
        model.tell(release=1)
        assert (await anext(events)).data["text"] == "One"
        way.refuse()
        model.tell(release=10)
        assert (await anext(events)).data["text"] == " two"
        unavailable(await person.get("/api/v2/chat/conversations"))
        way.heal()
        done = await anext(events)
    assert done.event == "done"
    assert done.data["assistant_message"]["content"] == "One two"
    assert done.data["assistant_message"]["attempt"] == 1
    found = await person.history(conversation["id"], include="unfinished")
    assert [message["id"] for message in found[-2:]] == [
        start.data["user_message"]["id"], done.data["assistant_message"]["id"],
    ]  # fmt: skip


async def test_a_database_that_is_slow_is_waited_for(person: Api, way: FaultProxy) -> None:
    conversation = await person.open()
    way.delay_seconds, way.bytes_per_second = 0.01, 500_000
    await person.said(conversation["id"], WORDS)
