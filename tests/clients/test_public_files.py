"""Files from hosts that the operator allows: a host that is down is left alone, one that refuses a file is not."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.fakes.switched import SwitchedServer
from yral_chat.clients.public_files import PublicFiles
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.core.errors import MediaNotFound, PayloadTooLarge, StorageUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def answer(request: web.Request) -> web.Response:
    if request.path.startswith("/status/"):
        headers = {"Location": "http://elsewhere.example/"} if "30" in request.path else None
        return web.Response(status=int(request.path.rpartition("/")[2]), headers=headers)
    return web.Response(body=b"x" * 100)


@pytest.fixture
async def host() -> AsyncIterator[SwitchedServer]:
    async with SwitchedServer(answer) as server:
        yield server


@pytest.fixture
async def files() -> AsyncIterator[tuple[PublicFiles, CircuitBreaker, Clock]]:
    clock = Clock()
    breaker = CircuitBreaker("files:127.0.0.1", failures=3, open_seconds=30, clock=clock, draw=lambda: 0.5)
    made = PublicFiles(lambda _: True, {"127.0.0.1": breaker})
    yield made, breaker, clock
    await made.close()


async def test_a_host_that_fails_is_left_alone_until_one_probe_has_found_it_again(
    host: SwitchedServer, files: tuple[PublicFiles, CircuitBreaker, Clock]
) -> None:
    client, breaker, clock = files
    host.is_good = False
    for _ in range(5):
        with pytest.raises(StorageUnavailable):
            await client.get(host.url, max_bytes=100)
    assert (host.count, breaker.opened_reason) == (3, "overloaded")
    with pytest.raises(StorageUnavailable) as refused:
        await client.get(host.url, max_bytes=100)
    assert refused.value.retry_after == 30
    clock.now += 30
    asking = [client.get(f"{host.url}/{number}", max_bytes=100) for number in range(5)]
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(result) for result in results} == {StorageUnavailable}
    assert (host.count, breaker.retry_after) == (4, 60)
    clock.now += 60
    host.is_good = True
    assert await client.get(host.url, max_bytes=100) == b"x" * 100
    assert breaker.state == "closed"


@pytest.mark.parametrize("path", ["status/403", "status/400", "status/404", "status/302", "too-large"])
async def test_a_file_that_cannot_be_had_closes_its_host_to_nobody(
    host: SwitchedServer, files: tuple[PublicFiles, CircuitBreaker, Clock], path: str
) -> None:
    client, breaker, _ = files
    for _ in range(5):
        with pytest.raises((StorageUnavailable, MediaNotFound, PayloadTooLarge)):
            await client.get(f"{host.url}/{path}", max_bytes=50)
    assert breaker.state == "closed"
    assert await client.get(host.url, max_bytes=100) == b"x" * 100
