"""Names come from the profile service, once per person and a while; without it, nobody has one."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.profiles import ProfileServer
from yral_chat.clients.profiles import UNKNOWN, Profile, ProfileClient
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
    ("status", "body", "has_failed"),
    [
        (404, b"", False),
        (500, b"", True),
        (302, b"", True),
        (200, b"<html>", True),
        (200, b'{"username": 5}', True),
        (200, b'{"username": "\xff"}', True),
        (200, b'{"username": "' + b"x" * 70_000 + b'"}', True),
    ],
)
async def test_what_cannot_be_used_is_nobody(
    profiles: ProfileServer, status: int, body: bytes, has_failed: bool
) -> None:
    profiles.status, profiles.body = status, body
    client = ProfileClient(profiles.url, LRUCache())
    assert await client.get("somebody") == UNKNOWN
    assert client.has_failed is has_failed
    await client.get("somebody else")
    assert len(profiles.asked) == (1 if has_failed else 2), "one that fails is left alone for a while"
    await client.close()


async def test_an_absent_service_is_nobody() -> None:
    client = ProfileClient("http://127.0.0.1:1/", LRUCache())
    assert await client.get("somebody") == UNKNOWN
    assert client.has_failed
    await client.close()
    assert await ProfileClient(None, LRUCache()).get("somebody") == UNKNOWN
