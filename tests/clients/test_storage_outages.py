"""A bucket that is down: said quickly, not asked again and again, and found again when it is back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.object_stores import Rclone, storage_at
from tests.waiting import until
from yral_chat.clients.storage import StorageService
from yral_chat.core.errors import AppError, MediaNotFound, StorageFull, StorageUnavailable

KEY = "a%40b/0198f7c2-5d3e-7a41-9a55-3f5f0e9b1c22.png"
# More than the buffers between two sockets hold.
LARGE = 20 * 1024 * 1024


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Answering:
    """A server that does the same to every request, and counts them."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self.count = 0
        self.url = ""

    async def _count(self, request: web.BaseRequest) -> web.StreamResponse:
        self.count += 1
        return await self._handle(request)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Answering"]:
        # Zero would be "as long as it takes".
        runner = web.ServerRunner(web.Server(self._count), shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = site.name
        try:
            yield self
        finally:
            await runner.cleanup()


def answering(status: int, code: str = "") -> Answering:
    async def handle(request: web.BaseRequest) -> web.Response:
        async for _ in request.content.iter_any():
            pass
        return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>x</Message></Error>")

    return Answering(handle)


async def hang(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def stop_halfway(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"x" * 10)
    return await hang(request)


async def every_use(storage: StorageService, tmp_path: Path) -> list[AppError]:
    """What each of the four ways to ask a bucket raises."""
    source = tmp_path / "upload"
    source.write_bytes(bytes(LARGE))
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: storage.put(KEY, b"x", "image/png"),
        lambda: storage.put_file(KEY, source, "image/png"),
        lambda: storage.get(KEY, max_bytes=1),
        lambda: storage.delete([KEY, KEY]),
    ]
    raised = []
    for use in uses:
        with pytest.raises(AppError) as caught:
            await use()
        raised.append(caught.value)
    return raised


def check_unavailable(error: AppError) -> None:
    assert isinstance(error, StorageUnavailable)
    assert error.details == {"service": "storage"}
    assert error.retry_after is not None
    assert error.retry_after >= 1


async def test_nothing_listens(tmp_path: Path, nowhere: str) -> None:
    async with storage_at(f"http://{nowhere}", tmp_path) as storage:
        for error in await every_use(storage, tmp_path):
            check_unavailable(error)
        assert storage.breaker.state == "open"


async def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    async with (
        Answering(hang).running() as server,
        storage_at(server.url, tmp_path, silence_seconds=0.1, breaker_failures=100) as storage,
    ):
        for error in await every_use(storage, tmp_path):
            check_unavailable(error)
        # Where the machine is busy the time may be over before a question is out.
        assert 0 < server.count <= 5, "a silent server is not asked twice"


async def test_a_file_that_stops_halfway_is_unavailable(tmp_path: Path) -> None:
    async with (
        Answering(stop_halfway).running() as server,
        storage_at(server.url, tmp_path, silence_seconds=0.1) as storage,
    ):
        with pytest.raises(StorageUnavailable):
            await storage.get(KEY, max_bytes=1000)


async def test_a_slow_upload_is_no_silence(tmp_path: Path) -> None:
    """The limit is for a pause, not for the whole: a body of any size may take its time."""
    taken = bytearray()

    async def slowly(request: web.BaseRequest) -> web.Response:
        async for chunk in request.content.iter_chunked(1024 * 1024):
            taken.extend(chunk)
            await asyncio.sleep(0.2)
        return web.Response()

    async with Answering(slowly).running() as server, storage_at(server.url, tmp_path, silence_seconds=3) as storage:
        source = tmp_path / "upload"
        source.write_bytes(bytes(LARGE))
        await storage.put_file(KEY, source, "image/png")
        assert len(taken) == LARGE


async def test_a_failing_server_is_asked_three_times_and_then_left_alone(tmp_path: Path) -> None:
    async with (
        answering(503, "SlowDown").running() as server,
        storage_at(server.url, tmp_path, breaker_failures=2) as storage,
    ):
        for error in await every_use(storage, tmp_path):
            check_unavailable(error)
        assert server.count == 6
        assert storage.breaker.opened_reason == "overloaded"


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "InvalidAccessKeyId"), (404, "NoSuchBucket"), (301, "PermanentRedirect"), (403, "RequestTimeTooSkewed")],
)
async def test_what_somebody_has_to_set_right_is_asked_once(tmp_path: Path, status: int, code: str) -> None:
    async with (
        answering(status, code).running() as server,
        storage_at(server.url, tmp_path, breaker_failures=5) as storage,
    ):
        for error in await every_use(storage, tmp_path):
            check_unavailable(error)
        assert server.count == 5
        assert storage.breaker.opened_reason == "rejected"


@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (400, "KeyTooLongError")])
async def test_a_refused_request_is_no_outage(tmp_path: Path, status: int, code: str) -> None:
    async with (
        answering(status, code).running() as server,
        storage_at(server.url, tmp_path, breaker_failures=1) as storage,
    ):
        for error in await every_use(storage, tmp_path):
            assert isinstance(error, StorageUnavailable)
        assert storage.breaker.state == "closed"


async def test_a_file_that_may_not_be_read_is_not_found(tmp_path: Path) -> None:
    async with (
        answering(403, "AccessDenied").running() as server,
        storage_at(server.url, tmp_path, breaker_failures=1) as storage,
    ):
        with pytest.raises(MediaNotFound):
            await storage.get(KEY, max_bytes=1)
        assert await storage.size_of(KEY) is None
        assert [entry async for entry in storage.list_remote()] == [], "a key that may not list"
        assert storage.breaker.state == "closed"


async def test_keys_that_are_refused_are_not_a_file_that_is_missing(tmp_path: Path) -> None:
    async with answering(403, "SignatureDoesNotMatch").running() as server, storage_at(server.url, tmp_path) as storage:
        with pytest.raises(StorageUnavailable):
            await storage.size_of(KEY)


async def test_a_bucket_that_is_down_lists_nothing_as_unavailable(tmp_path: Path, nowhere: str) -> None:
    async with storage_at(f"http://{nowhere}", tmp_path) as storage:
        with pytest.raises(StorageUnavailable):
            await anext(storage.list_remote())


@pytest.mark.parametrize(("status", "code"), [(507, "XMinioStorageFull"), (403, "QuotaExceeded")])
async def test_a_full_bucket_is_named(tmp_path: Path, status: int, code: str) -> None:
    async with (
        answering(status, code).running() as server,
        storage_at(server.url, tmp_path, breaker_failures=1) as storage,
    ):
        with pytest.raises(StorageFull):
            await storage.put(KEY, b"x", "image/png")
        assert storage.breaker.state == "closed"


async def test_a_bucket_that_is_back_is_found(tmp_path: Path) -> None:
    with Rclone(tmp_path) as server:
        async with storage_at(server.url, tmp_path, breaker_failures=1, breaker_open_seconds=0.05) as storage:
            await storage.put(KEY, b"before", "image/png")
            server.stop()
            with pytest.raises(StorageUnavailable):
                await storage.get(KEY, max_bytes=100)
            assert storage.breaker.opened_reason is not None
            url = storage.url(KEY)  # URLs need no bucket: the history is shown meanwhile
            assert storage.key_of(url) == KEY
            server.start()

            async def read() -> bytes | None:
                try:
                    return await storage.get(KEY, max_bytes=100)
                except StorageUnavailable:
                    return None

            assert await until(read, what="the bucket answers again") == b"before"
            assert storage.breaker.opened_reason is None
