"""A machine that is behind refuses new work early, with nothing stored; reads go on, and so does what was accepted."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.api.expecting import refused
from tests.client import Api, Document, Json, messages
from tests.overload.wire import metric
from tests.service import FakeModel, Service
from tests.waiting import until

WAITED = 'database_queue_oldest_seconds{queue="writes"}'
BEHIND = 'overload_refusals_total{reason="database_wait"}'


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel, request: pytest.FixtureRequest
) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("behind")
    settings = {"MAX_TURNS": "3", "MAX_REQUESTS_PER_USER": "4", **getattr(request, "param", {})}
    with Service(folder, **settings, **model_process.settings) as running:
        yield running


@pytest.fixture(scope="module")
def document(service: Service) -> Document:
    return Document.of(service)


@contextmanager
def stalled(service: Service) -> Iterator[None]:
    """The database takes no writes: another program has its lock, as a slow disk would have it."""
    with closing(sqlite3.connect(f"{service.folder}/data/yral_chat.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def behind(service: Service, api: Api, conversation_id: str) -> list["asyncio.Task[httpx2.Response]"]:
    """Sends until one waits: the writer takes at once what has come, and only who comes later waits behind that. One
    that was refused, as on a machine that stood still, makes room for another.
    """
    waiting: list[asyncio.Task[httpx2.Response]] = []

    async def look() -> bool:
        if sum(not task.done() for task in waiting) < 3 and not await metric(service.url, WAITED):
            waiting.append(asyncio.create_task(api.send(conversation_id, f"accepted {len(waiting)}")))
            await asyncio.sleep(0.5)
        return await metric(service.url, WAITED) > 0.3

    await until(look, what="the database is behind")
    return waiting


@pytest.mark.parametrize("service", [{"OVERLOAD_SECONDS": "0.3"}], indirect=True, ids=[""])
async def test_new_sends_are_refused_while_the_database_is_behind(service: Service, api: Api) -> None:
    conversation = await api.open()
    path = messages(conversation["id"])
    body = {"message_type": "text", "content": "Hello", "client_message_id": "late"}
    before = await api.history(conversation["id"])
    with stalled(service):
        waiting = await behind(service, api, conversation["id"])
        for refusal in (
            await api.post(path, body),
            await api.post(f"{path}/stream", body),
            await api.post("/v1/chat/completions", completion(conversation)),
        ):
            refused(refusal, 503, "overloaded", retry_after="2")
        upload = {"files": {"file": ("a.png", b"\x89PNG\r\n\x1a\n")}, "data": {"type": "image"}}
        refused(await api.request("POST", "/api/v1/media/upload", **upload), 503, "overloaded")
        assert await api.history(conversation["id"]) == before  # reads go on
        assert (await api.get("/api/v2/chat/conversations")).status_code == 200
        assert (await api.get("/health/ready")).status_code == 200
    answers = await asyncio.gather(*waiting)
    accepted = [f"accepted {number}" for number, answer in enumerate(answers) if answer.status_code == 200]
    assert len(accepted) >= 2, "the writer's own, and one behind it"
    assert await metric(service.url, BEHIND) >= 4
    _, reply = await api.said(conversation["id"], "Hello", client_message_id="late")
    assert reply["content"] == "You said: Hello"
    sent = [message["content"] for message in await api.history(conversation["id"]) if message["role"] == "user"]
    assert sorted(sent) == ["Hello", *accepted]


def completion(conversation: Json) -> Json:
    return {"model": conversation["influencer_id"], "messages": [{"role": "user", "content": "Hello"}]}


async def test_one_reply_too_many_for_the_process_is_refused(
    service: Service, api: Api, other: Api, model: FakeModel
) -> None:
    model.tell(default={"stall_after": 1})
    mine, theirs = await api.open(), await other.open()
    running = [asyncio.create_task(api.send(mine["id"], f"Hello {number}")) for number in range(3)]

    async def all_run() -> bool:
        return await metric(service.url, "turns_in_progress") == 3

    await until(all_run, what="three turns")
    refused(await other.send(theirs["id"], "Hello"), 503, "overloaded", retry_after="2")
    refused(await other.post("/v1/chat/completions", completion(theirs)), 503, "overloaded")
    assert len(await other.history(theirs["id"])) == 1  # the greeting
    assert await metric(service.url, 'overload_refusals_total{reason="turns"}') == 2
    for message in await api.history(mine["id"], include="unfinished"):
        if message["status"] in ("pending", "streaming"):
            await api.post(f"{messages(mine['id'])}/{message['id']}/cancel")
    assert {answer.status_code for answer in await asyncio.gather(*running)} == {409}
    model.reset()
    await other.said(theirs["id"], "Hello")


@pytest.fixture
async def people(service: Service, document: Document) -> AsyncIterator[list[Api]]:
    clients = [Api(service.url, document) for _ in range(5)]
    yield clients
    for client in clients:
        await client.close()


async def test_the_flood_of_one_user_does_not_keep_the_others_out(
    service: Service, api: Api, people: list[Api], model: FakeModel
) -> None:
    """Whose requests hang holds up their own others; everybody else is served meanwhile."""
    conversation = await api.open()
    opened = [await person.open() for person in people]
    uploads = [asyncio.create_task(_endless_upload(api)) for _ in range(4)]
    await until(lambda: _in_progress(service, 4), what="four uploads that take all places of one user")
    async with httpx2.AsyncClient(
        base_url=service.url, headers=api.http.headers, limits=httpx2.Limits(max_connections=200), timeout=60
    ) as many:
        # It is over in two seconds: all of them are connected when it begins.
        await asyncio.gather(*(many.get("/health/live") for _ in range(100)))
        flood = [asyncio.create_task(many.get(messages(conversation["id"]))) for _ in range(100)]
        await until(lambda: _in_progress(service, 90), what="the flood")
        for person, theirs in zip(people, opened, strict=True):
            assert (await person.get(messages(theirs["id"]))).status_code == 200
            await person.said(theirs["id"], "Hello")
        answers = await asyncio.gather(*flood)
    for answer in answers:
        refused(answer, 503, "overloaded", retry_after="2")
    assert await metric(service.url, 'overload_refusals_total{reason="user_requests"}') == 100
    for upload in uploads:
        upload.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)
    await until(lambda: _in_progress(service, 1, most=True), what="the end of the flood")
    assert (await api.get(messages(conversation["id"]))).status_code == 200


async def _in_progress(service: Service, count: int, *, most: bool = False) -> bool:
    """Whether so many requests at least, or `most`, are being answered; this one is one of them."""
    found = await metric(service.url, "http_requests_in_progress")
    return found <= count if most else found > count


async def _endless_upload(api: Api) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with httpx2.AsyncClient(base_url=api.url, headers=api.http.headers, timeout=60) as client:
        await client.post("/api/v1/media/upload", content=body(), headers=headers)


@pytest.mark.long
async def test_a_send_whose_client_has_given_up_before_it_began_is_not_stored(tmp_path: Path, model: FakeModel) -> None:
    """Its deadline has travelled with it into the line of the database."""
    with Service(tmp_path, SEND_TIMEOUT_SECONDS="0.5", **model.settings) as service:
        api = Api(service.url, Document.of(service))
        conversation = await api.open()
        with stalled(service):
            first = asyncio.create_task(api.send(conversation["id"], "First"))  # the writer waits for the lock with it

            async def is_taken() -> bool:
                return await metric(service.url, "db_pool_in_use") >= 1

            await until(is_taken, what="the writer has the first")
            second = asyncio.create_task(api.send(conversation["id"], "Second"))

            async def is_late() -> bool:
                return await metric(service.url, 'database_queue_oldest_seconds{queue="writes"}') > 2.6

            await until(is_late, what="half a second and two more have passed")
        refused(await second, 503, "overloaded", retry_after="2")
        refused(await first, 504, "turn_timeout")  # stored, and late: which takes reading what was stored
        assert await metric(service.url, 'overload_refusals_total{reason="deadline"}') == 1

        async def is_answered() -> bool:
            newest: str = (await api.history(conversation["id"]))[-1]["content"]
            return newest == "You said: First"

        await until(is_answered, what="the reply to the first")
        sent = [message["content"] for message in await api.history(conversation["id"]) if message["role"] == "user"]
        assert sent == ["First"]
        await api.close()
