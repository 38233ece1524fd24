"""Clients that are slow, too many or too loud are let go, and nobody else notices."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from tests.client import Api, Document, Json, messages, text_of
from tests.overload.wire import Wire, head, metric
from tests.service import FakeModel, Service
from tests.waiting import there, until

SLOW_SECONDS = "1"
LIVE = head("GET", "/health/live")
FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
UPLOAD = {"Content_Type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel, request: pytest.FixtureRequest
) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("slow")
    settings = {"SLOW_CLIENT_SECONDS": SLOW_SECONDS, "MAX_CONNECTIONS": "40", "STREAM_COALESCE_MS": "0"}
    settings |= getattr(request, "param", {})
    with Service(folder, **settings, LOG_LEVEL="INFO", **model_process.settings) as running:
        yield running


@pytest.fixture(scope="module")
def document(service: Service) -> Document:
    return Document.of(service)


async def lives(service: Service) -> bool:
    async with Wire(service.url) as wire:
        await wire.send(LIVE)
        return (await wire.answer()).status == 200


async def test_a_head_that_does_not_come_is_not_waited_for(service: Service) -> None:
    async with Wire(service.url) as silent, Wire(service.url) as slow:
        await slow.send(b"GET /health/live HTTP/1.1\r\nHost: local")
        assert await lives(service)
        for wire in (silent, slow):
            answer = await wire.answer()
            assert (answer.status, answer.error["error"]) == (408, "bad_request")
            assert await wire.ended() == b""


async def test_the_second_head_of_a_connection_has_no_more_time_than_the_first(service: Service) -> None:
    async with Wire(service.url) as wire:
        await wire.send(LIVE)
        assert (await wire.answer()).status == 200
        await wire.send(b"GET /health/live HTT")
        assert (await wire.answer()).status == 408


@pytest.mark.long
async def test_a_body_that_trickles_ends_the_connection(service: Service, api: Api) -> None:
    conversation = await api.open()
    path = messages(conversation["id"])
    for request in (
        head("POST", path, api.user_id, Content_Type="application/json", Content_Length="100") + b'{"message',
        head("POST", "/api/v1/media/upload", api.user_id, **UPLOAD, Content_Length="5000") + FILE,
    ):
        async with Wire(service.url) as wire:
            await wire.send(request)
            trickling = asyncio.create_task(_trickle(wire))
            answer = await wire.answer()
            assert (answer.status, answer.error["error"]) == (408, "bad_request")
            await wire.ended()
            await trickling
    assert [message["role"] for message in await api.history(conversation["id"])] == ["assistant"]  # the greeting


async def _trickle(wire: Wire) -> None:
    """A byte now and then, which is no reason to wait longer."""
    try:
        while True:
            await wire.send(b" ")
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass


@pytest.mark.long
async def test_a_body_that_comes_fast_enough_may_take_its_time(service: Service, api: Api) -> None:
    """For longer than the limit, in pieces of more than the least rate."""
    body = b'{"influencer_id": "' + b"x" * 12_000 + b'"}'
    async with Wire(service.url) as wire:
        length = str(len(body))
        await wire.send(head("POST", "/api/v1/chat/conversations", api.user_id, Content_Length=length))
        for start in range(0, len(body), 1000):
            await wire.send(body[start : start + 1000])
            await asyncio.sleep(0.2)
        assert (await wire.answer()).status == 422


@pytest.mark.long
async def test_a_reader_who_takes_nothing_is_dropped_and_gets_everything_later(
    service: Service, api: Api, model: FakeModel
) -> None:
    """The turn does not wait, others follow it, and a resume brings every word."""
    model.tell(default={"chunks": 300, "chunk_text": "word " * 2000})  # twice that is more than a kernel keeps
    conversation = await api.open()
    body = b'{"content": "Tell me", "message_type": "text"}'
    request = head(
        "POST",
        f"{messages(conversation['id'])}/stream",
        api.user_id,
        Content_Type="application/json",
        Content_Length=str(len(body)),
    )
    async with Wire(service.url, is_deaf=True) as wire:
        await wire.send(request + body)
        history = await _delivered(api, conversation["id"])
        (reply,) = [message for message in history if message["origin"] == "model"]
        told = "connection.reader_too_slow"
        await until(there(lambda: told in service.process.output), what=told, seconds=30)
        events = await api.resume(conversation["id"], reply["id"])
        assert text_of(events) == reply["content"]
        assert len(reply["content"]) == 3_000_000
        assert events[-1].event == "done"
        assert not (await wire.ended()).endswith(b"0\r\n\r\n")  # only what lay in the kernel's buffers


@pytest.mark.long
async def test_a_reader_who_is_slow_and_steady_gets_everything(service: Service, api: Api, model: FakeModel) -> None:
    """The kernel asks for more only when a third of its megabytes is gone, which takes him longer than the limit."""
    model.tell(default={"chunks": 300, "chunk_text": "word " * 2000})
    conversation = await api.open()
    body = b'{"content": "Tell me", "message_type": "text"}'
    length = {"Content_Type": "application/json", "Content_Length": str(len(body)), "Connection": "close"}
    async with Wire(service.url, is_deaf=True) as wire:
        await wire.send(head("POST", f"{messages(conversation['id'])}/stream", api.user_id, **length) + body)
        received = bytearray()
        while piece := await wire.reader.read(65536):
            received += piece
            await asyncio.sleep(len(piece) / 400_000)
    assert received.endswith(b"0\r\n\r\n")
    assert received.count(b"event: done") == 1


async def _delivered(api: Api, conversation_id: str) -> list[Json]:
    async def look() -> list[Json]:
        history = await api.history(conversation_id)
        return history if any(message["origin"] == "model" for message in history) else []

    return await until(look, what="the end of the turn", seconds=30) or []


async def test_a_head_without_end_is_cut_off_and_not_kept(service: Service) -> None:
    for endless in (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"GET /"):
        async with Wire(service.url) as wire:
            await wire.send(endless)
            sent = 0
            try:
                while not wire.reader.at_eof() and sent < 100 * 2**20:
                    await wire.send(b"a" * 65536)
                    sent += 65536
            except ConnectionError:
                pass
            assert sent < 16 * 2**20  # what lies in the buffers of both kernels
            assert await lives(service)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/health/live?" + "a" * 21_000, {}, 414),
        ("/" + "a" * 21_000, {}, 414),
        ("/health/live", {f"X-{number}": "a" for number in range(101)}, 431),
        ("/health/live", {"X-Long": "a" * 50_000}, 431),
        ("/health/live?" + "a" * 8_000, {"X-Long": "a" * 40_000}, 200),
    ],
)
async def test_a_head_beyond_its_bounds_is_refused(
    service: Service, path: str, headers: dict[str, str], status: int
) -> None:
    async with Wire(service.url) as wire:
        await wire.send(head("GET", path, None, **headers))
        answer = await wire.answer()
        assert answer.status == status
        assert status == 200 or answer.error["error"] == "bad_request"


async def test_what_is_no_http_gets_the_one_shape(service: Service) -> None:
    async with Wire(service.url) as wire:
        await wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over TLS\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.error["error"]) == (400, "bad_request")


async def test_some_requests_may_be_sent_ahead_and_thousands_may_not(service: Service) -> None:
    async with Wire(service.url) as wire:
        await wire.send(LIVE * 10)
        assert [(await wire.answer()).status for _ in range(10)] == [200] * 10
    async with Wire(service.url) as wire:
        await wire.send(LIVE * 5000)
        assert (await wire.ended()).count(b"HTTP/1.1 200") < 100
    assert await lives(service)


@pytest.mark.parametrize("service", [{"SLOW_CLIENT_SECONDS": "60"}], indirect=True, ids=[""])
async def test_one_connection_too_many_is_told_so(service: Service) -> None:
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire(service.url)) for _ in range(40)]
        await wires[0].send(LIVE)
        assert (await wires[0].answer()).status == 200  # those that are there are served
        async with Wire(service.url) as surplus:
            answer = await surplus.answer()
            assert (answer.status, answer.error["error"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert await surplus.ended() == b""

    async def has_room() -> bool:
        with suppress(EOFError, ConnectionError):
            return await lives(service)
        return False

    await until(has_room, what="there is room again, as soon as they have gone")
    assert await metric(service.url, 'overload_refusals_total{reason="connections"}') >= 1
