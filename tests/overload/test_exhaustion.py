"""No file descriptors, no memory: what is there goes on, what is new is refused, and nothing acknowledged is lost."""

import asyncio
import io
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx2
import psutil
import pytest
from PIL import Image

from tests.api.expecting import refused
from tests.client import Api, Document, messages
from tests.overload.wire import Wire, head, metric
from tests.service import FakeModel, Service
from tests.waiting import until

pytestmark = pytest.mark.long

LIVE = head("GET", "/health/live")
OPEN_FILES = 160
# A picture of 49 megapixels takes four bytes each while it is decoded.
ROOM_BYTES = 96 * 2**20
AT_ONCE = 32
HELD_SECONDS = 0.2


@pytest.fixture
def service(tmp_path: Path, model: FakeModel) -> Iterator[Service]:
    with Service(tmp_path, SLOW_CLIENT_SECONDS="60", **model.settings) as service:
        yield service


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Api]:
    client = Api(service.url, Document.of(service))
    yield client
    await client.close()


async def serves(service: Service) -> bool:
    with suppress(EOFError, ConnectionError):
        async with Wire(service.url) as wire:
            await wire.send(LIVE)
            return (await wire.answer()).status == 200
    return False


async def test_connections_stop_where_files_would_run_out(tmp_path: Path, model: FakeModel) -> None:
    """With a limit from the start there is always a file left for what was accepted."""
    service = Service(tmp_path, SLOW_CLIENT_SECONDS="60", **model.settings)
    service.command = ["prlimit", f"--nofile={OPEN_FILES}:{OPEN_FILES}", *service.command]
    with service:
        api = Api(service.url, Document.of(service))
        conversation = await api.open()
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(Wire(service.url)) for _ in range(2 * OPEN_FILES)]
            told = 0
            for wire in wires:
                told += await _is_refused(wire)
                await api.get("/health/live")  # its connection is kept: another one would be refused, too
            assert told >= len(wires) - (OPEN_FILES - 64) // 2
            # Those that are connected are served in full: with the model asked, files written, rows stored.
            await api.said(conversation["id"], "Hello")
            upload = {"files": {"file": ("a.png", _picture(40))}, "data": {"type": "image"}}
            assert (await api.request("POST", "/api/v1/media/upload", **upload)).status_code == 200
        await until(lambda: serves(service), what="there is room again")
        assert "Too many open files" not in service.process.output
        await api.close()


async def _is_refused(wire: Wire) -> bool:
    """Those above the bound are told at once; the others wait for a request."""
    try:
        async with asyncio.timeout(0.05):
            return (await wire.answer()).status == 503
    except TimeoutError:
        return False
    except (EOFError, ConnectionError):
        return True


async def test_no_file_left_is_survived(service: Service, api: Api) -> None:
    """The limit sinks while the service runs: connections that it has are served, new ones wait or are closed, and
    the loop does not spin."""
    conversation = await api.open()
    await api.said(conversation["id"], "Before")
    process = psutil.Process(service.pid)
    hard = process.rlimit(psutil.RLIMIT_NOFILE)[1]
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), hard))
    async with AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(Wire(service.url))
        assert not await serves(service)
        before = process.cpu_times()
        for _ in range(20):  # on the connections that were there
            assert (await api.history(conversation["id"]))[-1]["content"] == "You said: Before"
            await asyncio.sleep(0.1)
        after = process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        assert spent < 1.0, "two seconds of twenty reads: the rest is spinning"
        answer = await api.send(conversation["id"], "In between")  # stored, whatever becomes of its reply
        assert answer.status_code in (200, 503)
    process.rlimit(psutil.RLIMIT_NOFILE, (hard, hard))
    await until(lambda: serves(service), what="it accepts again")
    _, reply = await api.said(conversation["id"], "After")
    assert reply["content"] == "You said: After"
    sent = [message["content"] for message in await api.history(conversation["id"]) if message["role"] == "user"]
    assert sent == ["Before", "In between", "After"]
    assert service.stop() == 0


async def test_no_memory_left_refuses_what_is_large_and_keeps_what_is_small(service: Service, api: Api) -> None:
    conversation = await api.open()
    # What is loaded with the first picture needs address space of its own.
    upload = {"files": {"file": ("a.png", _picture(40))}, "data": {"type": "image"}}
    assert (await api.request("POST", "/api/v1/media/upload", **upload)).status_code == 200
    await api.said(conversation["id"], "Before")
    process = psutil.Process(service.pid)
    limit = process.memory_info().vms + ROOM_BYTES
    process.rlimit(psutil.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    large = {"files": {"file": ("a.png", _picture(7000))}, "data": {"type": "image"}}
    refused(await api.request("POST", "/api/v1/media/upload", **large), 503, "overloaded")
    assert await metric(service.url, 'overload_refusals_total{reason="memory"}') == 1
    _, reply = await api.said(conversation["id"], "In between")
    assert reply["content"] == "You said: In between"
    assert (await api.request("POST", "/api/v1/media/upload", **upload)).status_code == 200
    process.rlimit(psutil.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (await api.request("POST", "/api/v1/media/upload", **large)).status_code == 200
    history = await api.history(conversation["id"])
    assert [message["content"] for message in history if message["role"] == "user"] == ["Before", "In between"]
    assert service.stop() == 0


async def test_a_process_that_has_no_memory_for_anything_loses_nothing(service: Service, api: Api) -> None:
    """Many large things at once: it refuses them, or ends where native code gets no memory. What was acknowledged
    is there after the next start."""
    conversation = await api.open()
    said = [(await api.said(conversation["id"], "Before"))[0]["content"]]
    refusals = 0
    process = psutil.Process(service.pid)
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + ROOM_BYTES // 8, resource.RLIM_INFINITY))
    for number in range(20):
        body = {"content": f"Word {number}", "message_type": "text"}
        sent, *others = await asyncio.gather(
            api.http.post(messages(conversation["id"]), json=body),
            *(api.http.post("/api/v1/chat/conversations", content=_held()) for _ in range(AT_ONCE)),
            return_exceptions=True,
        )
        if isinstance(sent, httpx2.Response) and sent.status_code == 200:
            said.append(body["content"])
        refusals += sum(not isinstance(other, httpx2.Response) or other.status_code == 503 for other in others)
    assert refusals > 0
    service.kill()
    service.start()
    history = await api.history(conversation["id"])
    stored = [message["content"] for message in history if message["role"] == "user"]
    assert [text for text in stored if text in said] == said
    assert len(stored) == len(set(stored))


async def _held() -> AsyncIterator[bytes]:
    """Almost as much as a body may have, of which the end comes when that of the others has arrived as well."""
    yield b'"' + b"x" * 1_000_000
    await asyncio.sleep(HELD_SECONDS)


def _picture(side: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(data, "PNG", compress_level=1)
    return data.getvalue()
