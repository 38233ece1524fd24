"""Names come from the profile service, once per person and a while; without it, nobody has one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from yral_chat.clients.profiles import UNKNOWN, Profile, ProfileClient
from yral_chat.core.cache import LRUCache


class ProfileServer:
    """A profile service that can break."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.is_slow = False
        self.body = b'{"username": "ravi", "profile_picture_url": "https://pictures.example/ravi.png", "more": 1}'

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if self.is_slow:
            response = web.StreamResponse()
            await response.prepare(request)
            for start in range(0, len(self.body), 20):
                await response.write(self.body[start : start + 20])
                await asyncio.sleep(0.01)  # so that each is a packet of its own
            return response
        return web.Response(status=self.status, body=self.body, content_type="application/json")


@pytest.fixture
async def server() -> AsyncIterator[tuple[ProfileServer, str]]:
    profiles = ProfileServer()
    app = web.Application()
    app.router.add_get("/people/{principal:.*}", profiles.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield profiles, f"http://127.0.0.1:{runner.addresses[0][1]}/people/"
    await runner.cleanup()


async def test_a_profile_is_asked_once(server: tuple[ProfileServer, str]) -> None:
    profiles, url = server
    client = ProfileClient(url, LRUCache())
    for _ in range(2):
        assert await client.get("a/b c?") == Profile("ravi", "https://pictures.example/ravi.png")
    assert profiles.asked == ["/people/a%2Fb%20c%3F"]
    await client.close()


async def test_a_profile_may_come_in_pieces(server: tuple[ProfileServer, str]) -> None:
    profiles, url = server
    profiles.is_slow = True
    client = ProfileClient(url, LRUCache())
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
    server: tuple[ProfileServer, str], status: int, body: bytes, has_failed: bool
) -> None:
    profiles, url = server
    profiles.status, profiles.body = status, body
    client = ProfileClient(url, LRUCache())
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
