"""Names come from the profile service, once per person and a while; without it, nobody has one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes.profiles import ProfileServer
from yral_chat.clients.profiles import UNKNOWN, Profile, ProfileClient
from yral_chat.clients.resilience import CircuitBreaker, Reason
from yral_chat.core.cache import LRUCache


@pytest.fixture
async def profiles() -> AsyncIterator[ProfileServer]:
    async with ProfileServer() as running:
        yield running


async def test_a_profile_is_asked_once(profiles: ProfileServer) -> None:
    client = ProfileClient(profiles.url, LRUCache())
    for _ in range(2):
        assert await client.get("a/b c?") == Profile("ravi", "https://pictures.example/ravi.png")
    assert profiles.asked == ["/people/a%2Fb%20c%3F"]
    await client.close()


async def test_a_profile_may_come_in_pieces(profiles: ProfileServer) -> None:
    profiles.is_slow = True
    client = ProfileClient(profiles.url, LRUCache())
    assert await client.get("somebody") == Profile("ravi", "https://pictures.example/ravi.png")
    await client.close()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"", None),
        (400, b"", None),
        (414, b"", None),
        (422, b"", None),
        (500, b"", "overloaded"),
        (429, b"", "overloaded"),
        (401, b"", "rejected"),
        (302, b"", "unusable"),
        (200, b"<html>", "unusable"),
        (200, b'{"username": 5}', "unusable"),
        (200, b'{"username": "\xff"}', "unusable"),
        (200, b'{"username": "' + b"x" * 70_000 + b'"}', "unusable"),
    ],
)
async def test_what_cannot_be_used_is_nobody(
    profiles: ProfileServer, status: int, body: bytes, reason: Reason | None
) -> None:
    profiles.status, profiles.body = status, body
    client = ProfileClient(profiles.url, LRUCache(), CircuitBreaker(failures=1))
    assert await client.get("somebody") == UNKNOWN
    assert client.breaker.opened_reason == reason
    await client.close()


async def test_a_service_that_fails_is_left_alone_until_one_probe_has_found_it_again(
    profiles: ProfileServer,
) -> None:
    clock = Clock()
    client = ProfileClient(
        profiles.url, LRUCache(), CircuitBreaker(failures=3, open_seconds=30, clock=clock, draw=lambda: 0.5)
    )
    known = await client.get("known")
    profiles.status = 503
    for number in range(5):
        assert await client.get(f"stranger-{number}") == UNKNOWN
    assert len(profiles.asked) == 1 + 3, "an open circuit asks nobody"
    assert await client.get("known") == known, "what is known needs no service"
    waits = []
    for _ in range(2):  # still down: one probe each time, and twice the wait
        clock.now += client.breaker.retry_after
        before = len(profiles.asked)
        together = [client.get(f"probe-{number}") for number in range(5)]
        assert await asyncio.gather(*together) == [UNKNOWN] * 5
        assert len(profiles.asked) == before + 1
        waits.append(client.breaker.retry_after)
    assert waits == [60, 120]
    profiles.status = 200
    clock.now += client.breaker.retry_after
    assert await client.get("somebody") == known
    assert client.breaker.state == "closed"
    await client.close()


async def test_an_absent_service_is_nobody() -> None:
    client = ProfileClient("http://127.0.0.1:1/", LRUCache(), CircuitBreaker(failures=1))
    assert await client.get("somebody") == UNKNOWN
    assert client.breaker.opened_reason == "unreachable"
    await client.close()
    assert await ProfileClient(None, LRUCache()).get("somebody") == UNKNOWN


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
