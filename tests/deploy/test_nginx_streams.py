"""The real service behind nginx: replies arrive as they are written, and outlive a reload."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator

import psutil
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.api.sockets import WAIT_SECONDS, address, socket_at
from tests.client import Api, Event, Json, messages
from tests.deploy.conftest import StartNginx
from tests.deploy.proxy import PrivateNginx
from tests.files import UPLOAD, picture, upload
from tests.programs import require
from tests.service import FakeModel, Service, token
from tests.waiting import there, until

PIECES = ("One", " piece", " after", " the", " other", ".")
# What the vendor says after its last piece of text.
ENDING = 10
SECONDS = 30


def hold(model: FakeModel) -> None:
    """Each piece waits for the test."""
    model.tell(default={"pieces": PIECES, "is_held": True})


async def one_by_one(events: AsyncIterator[Event], model: FakeModel, pieces: tuple[str, ...]) -> list[str]:
    """Lets the vendor say a piece only when everything before it has arrived; returns what arrived each time."""
    found = []
    for _ in pieces:
        model.tell(release=1)
        event = await asyncio.wait_for(anext(events), SECONDS)
        found.append(event.data["text"])
    return found


def listener(front: PrivateNginx, person: Api, **query: str) -> str:
    return address(front.url, person.user_id, **query)


async def is_heard(socket: ClientConnection) -> list[Json]:
    """Waits for an answer over this socket; returns what came before it."""
    await socket.send("ping")
    frames = []
    while (text := await asyncio.wait_for(socket.recv(decode=True), WAIT_SECONDS)) != "pong":
        frames.append(json.loads(text))
    return frames


async def test_a_reply_arrives_piece_by_piece(person: Api, model: FakeModel) -> None:
    conversation = await person.open()
    hold(model)
    body = {"message_type": "text", "content": "Hello"}
    async with person.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (response, events):
        assert response.http_version == "HTTP/1.1"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store"
        assert (await anext(events)).event == "start"
        assert await one_by_one(events, model, PIECES) == list(PIECES)
        model.tell(release=ENDING)
        assert (await anext(events)).event == "done"


async def test_a_reply_arrives_piece_by_piece_over_http_2(front: PrivateNginx, person: Api, model: FakeModel) -> None:
    conversation = await person.open()
    hold(model)
    curl = await asyncio.create_subprocess_exec(
        *(require("curl", shutil.which("curl")), "--silent", "--no-buffer", "--http2", "--include"),
        *("--cacert", str(front.certificate.file), f"{front.url}{messages(conversation['id'])}/stream"),
        *("--header", f"Authorization: Bearer {token(person.user_id)}", "--json"),
        json.dumps({"message_type": "text", "content": "Hello"}),
        stdout=asyncio.subprocess.PIPE,
    )
    assert curl.stdout is not None
    assert (await asyncio.wait_for(curl.stdout.readline(), SECONDS)).split()[:2] == [b"HTTP/2", b"200"]
    events = _events(curl.stdout)
    assert (await anext(events)).event == "start"
    assert await one_by_one(events, model, PIECES) == list(PIECES)
    model.tell(release=ENDING)
    assert (await anext(events)).event == "done"
    assert await curl.wait() == 0


async def _events(output: asyncio.StreamReader) -> AsyncIterator[Event]:
    lines: list[str] = []
    async for line in output:
        text = line.decode().rstrip("\r\n")
        if text.startswith(("id: ", "event: ", "data: ")):
            lines.append(text)
        elif not text and lines:
            yield Event(lines)
            lines = []


async def test_a_stream_and_a_socket_outlive_a_reload(front: PrivateNginx, person: Api, model: FakeModel) -> None:
    conversation = await person.open()
    hold(model)
    body = {"message_type": "text", "content": "Hello"}
    where, tls = listener(front, person, token=token(person.user_id)), front.certificate.context
    async with (
        socket_at(where, ssl=tls) as socket,
        person.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (_, events),
    ):
        await is_heard(socket)
        assert (await anext(events)).event == "start"
        before = await one_by_one(events, model, PIECES[:3])
        (old,) = await front.reload()
        async with socket_at(where, ssl=tls) as fresh:
            await is_heard(fresh)
        after = await one_by_one(events, model, PIECES[3:])
        assert (*before, *after) == PIECES
        model.tell(release=ENDING)
        done = await anext(events)
        assert done.data["assistant_message"]["content"] == "".join(PIECES)
        heard = await is_heard(socket)
        assert psutil.pid_exists(old), "this socket is still in the old worker's hands"
        (told,) = [frame["data"]["message"] for frame in heard if frame["event"] == "new_message"]
        assert told["id"] == done.data["assistant_message"]["id"]
    await until(there(lambda: not psutil.pid_exists(old)), what="the end of the old worker")


async def test_a_socket_that_outlives_its_worker_too_long_is_cut(
    nginx_for: StartNginx, deployed: Service, person: Api
) -> None:
    impatient = {"worker_shutdown_timeout 130s;": "worker_shutdown_timeout 1s;"}
    nginx = nginx_for(deployed.url.removeprefix("http://"), edits=impatient)
    where, tls = listener(nginx, person, token=token(person.user_id)), nginx.certificate.context
    async with socket_at(where, ssl=tls) as socket:
        await is_heard(socket)
        await nginx.reload()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), SECONDS)
    async with socket_at(where, ssl=tls) as again:
        await is_heard(again)


async def test_a_socket_opens_with_its_token_as_a_protocol(front: PrivateNginx, person: Api) -> None:
    where, tls = listener(front, person), front.certificate.context
    async with socket_at(where, "bearer", token(person.user_id), ssl=tls) as socket:
        assert socket.subprotocol == "bearer"
        await is_heard(socket)


async def test_a_socket_that_is_refused_tells_its_reason(front: PrivateNginx, person: Api) -> None:
    async with socket_at(listener(front, person, token="no-token"), ssl=front.certificate.context) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), WAIT_SECONDS)
        assert socket.response is not None
        asked = socket.response.headers["x-correlation-id"]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4001
    assert "no-token" not in await front.access_log(1, of=asked) + front.error_log


async def test_an_upload_comes_back_through_nginx(front: PrivateNginx, person: Api) -> None:
    response = await upload(person, "image", picture(size=(640, 480)))
    assert response.status_code == 200, response.text
    path = response.json()["url"].split("/media/", 1)[1]
    found = await person.http.get(f"/media/{path}")
    assert found.status_code == 200
    assert found.headers["cache-control"].startswith("private, max-age=")
    part = await person.http.get(f"/media/{path}", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, found.content[:10])
    for answer in (response, found, part):
        assert "sig=" not in await front.access_log(1, of=answer.headers["x-correlation-id"]) + front.error_log


async def test_a_large_upload_of_a_stranger_gets_the_answer_of_the_service(person: Api) -> None:
    """The service answers while the body is still on its way."""
    person.http.headers["Authorization"] = "Bearer a.b.c"
    response = await person.http.post(
        UPLOAD, content=bytes(20 * 1024 * 1024), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert (response.status_code, response.json()["error"]) == (401, "unauthorized")


async def test_the_headers_of_the_service_come_once(person: Api) -> None:
    response = await person.get("/api/v1/influencers", headers={"X-Correlation-ID": "mine"})
    names = [name.lower() for name, _ in response.headers.multi_items() if name.lower() != "vary"]
    assert len(names) == len(set(names)), names
    assert response.headers["x-correlation-id"] == "mine"
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers["content-encoding"] == "gzip"
    again = await person.get("/api/v1/influencers", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
