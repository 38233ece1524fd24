"""What browsers are told with every kind of answer, and which pages of other origins may call."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.api.access.callers import ISSUER, PUBLIC_PEM, SETTINGS
from tests.api.access.world import CONVERSATIONS, World, client_of
from tests.api.conftest import StartService
from tests.files import picture
from tests.service import FakeModel, Service
from yral_chat.core.config import Settings
from yral_chat.main import create_app

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
FILE_POLICY = "default-src 'none'; sandbox"
NO_FILE = {"other": ("x", b"x")}
LISTED, ALSO_LISTED = "https://app.example", "https://other.example:8443"


@pytest.fixture
def guarded(service_with: StartService, model: FakeModel) -> Service:
    """As in production, behind TLS."""
    return service_with(**SETTINGS, **model.picture_settings)


@pytest.fixture
def world(guarded: Service) -> Iterator[World]:
    with client_of(guarded) as client:
        yield World(guarded, client)


def answers(world: World) -> dict[str, httpx2.Response]:
    """One answer for every way in which one comes about."""
    uploaded = world.call(
        "user", "POST", "/api/v1/media/upload", data={"type": "image"}, files={"file": ("x", picture())}
    ).json()
    media = uploaded["url"].removeprefix("https://chat.example")
    messages = f"{CONVERSATIONS}/{world.conversation}/messages"
    says = {"message_type": "text", "content": "Hello"}

    def get(path: str, **headers: str) -> httpx2.Response:
        return world.client.get(path, headers=headers)

    def post(path: str, **body: Any) -> httpx2.Response:
        return world.call("user", "POST", path, **body)

    etag = get(media).headers["etag"]
    return {
        "200 json": get("/"),
        "200 compressed": get("/openapi.json"),
        "200 cached": get("/api/v1/influencers"),
        "200 text": world.call("scraper", "GET", "/metrics"),
        "200 page": get("/", Accept="text/html"),
        "200 docs": get("/docs"),
        "200 redoc": get("/redoc"),
        "200 script": get("/static/chat/main.js"),
        "200 icon": get("/favicon.ico"),
        "200 picture": get("/static/personas/leelaonlove.webp"),
        "200 media": get(media),
        "200 stream": post(f"{messages}/stream", json=says),
        "200 export": world.call("user", "GET", "/api/v1/users/me/export"),
        "200 head": world.client.head("/"),
        "200 preflight": world.client.options(
            messages, headers={"Origin": LISTED, "Access-Control-Request-Method": "POST"}
        ),
        "206 media": get(media, Range="bytes=0-9"),
        "304 media": get(media, **{"If-None-Match": etag}),
        "304 script": get("/static/chat/main.js", **{"If-None-Match": get("/static/chat/main.js").headers["etag"]}),
        "400 preflight": world.client.options(
            messages, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        ),
        "400 multipart": post("/api/v1/media/upload", data={f"f{number}": "x" for number in range(20)}, files=NO_FILE),
        "401 json": get("/api/v1/auth/me"),
        "403 json": world.call("other", "GET", messages),
        "403 media": get(f"{media}x"),
        "404 json": get("/nowhere"),
        "404 static": get("/static/nothing.js"),
        "405 json": world.client.put("/health"),
        "413 json": post(messages, content=b"x" * 1_048_577),
        "416 media": get(media, Range="bytes=999999-"),
        "422 json": post(messages, json={}),
        "422 query": get(f"/?{'a' * 8193}"),
        "503 json": post("/api/v1/influencers/validate-and-generate-metadata", json={"system_instructions": "x"}),
    }


def test_every_kind_of_answer_tells_browsers_how_far_to_trust_it(world: World) -> None:
    wrong = []
    for kind, response in answers(world).items():
        status, name = kind.split()
        assert response.status_code == int(status), f"{kind}: {response.text[:300]}"
        is_page, is_file = name in ("page", "docs", "redoc"), name == "media" and response.is_success
        expected = {
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "x-frame-options": "DENY",
            "strict-transport-security": "max-age=31536000",
            "cross-origin-resource-policy": "cross-origin" if name in ("media", "picture") else "same-origin",
            "content-security-policy": FILE_POLICY if is_file else API_POLICY,
        }
        if is_page:
            del expected["content-security-policy"]
            expected["cross-origin-opener-policy"] = "same-origin"
            assert "microphone=(self)" in response.headers["permissions-policy"]
            policy = response.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
            assert ("unsafe-inline" in policy) == (name != "page")
        for header, value in expected.items():
            if response.headers.get_list(header) != [value]:
                wrong.append(f"{kind}: {header}: {response.headers.get_list(header)}")
        assert "server" not in response.headers
        assert "x-powered-by" not in response.headers
        assert len(response.headers.get_list("cache-control")) == 1, kind
    assert wrong == []


def test_without_tls_browsers_are_not_sent_there(service: Service) -> None:
    with client_of(service) as client:
        assert "strict-transport-security" not in client.get("/health/live").headers


# --- CORS


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "http://app.example", "https://app.example.evil.example", "https://app.example:444",
        "https://evilapp.example", "https://app.example/", "https://sub.app.example", "HTTPS://APP.EXAMPLE", "*", "",
        "https://app.example, https://evil.example", "https://app.example@evil.example", "https://other.example",
    ],
)  # fmt: skip
def test_an_origin_that_is_not_listed_is_told_nothing(world: World, origin: str) -> None:
    for path in ("/", "/nowhere", "/api/v1/auth/me"):
        for cookie in ({}, {"Cookie": "a=b"}):
            response = world.client.get(path, headers={"Origin": origin, **cookie})
            assert [name for name in response.headers if name.startswith("access-control-")] == []
            assert "origin" in response.headers["vary"].lower()
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    response = world.client.options("/api/v1/chat/conversations", headers={"Origin": origin, **asks})
    assert response.status_code == 400
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", [LISTED, ALSO_LISTED])
def test_a_listed_origin_may_call_with_credentials(world: World, origin: str) -> None:
    for path, status in (("/", 200), ("/nowhere", 404), ("/api/v1/auth/me", 401)):
        response = world.client.get(path, headers={"Origin": origin})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == origin
        assert response.headers["access-control-allow-credentials"] == "true"
        assert "origin" in response.headers["vary"].lower()
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    response = world.client.options("/api/v1/chat/conversations", headers={"Origin": origin, **asks})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-max-age"] == "600"


async def test_in_production_no_origin_is_listed_by_itself() -> None:
    given: dict[str, Any] = {
        "environment": "production",
        "auth_issuers": [{"issuer": ISSUER, "public_keys": [PUBLIC_PEM]}],
        "media_signing_key": SETTINGS["MEDIA_SIGNING_KEY"],
        "allow_offline_model": True,
    }
    app = create_app(Settings(_env_file=None, **given))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://testserver") as client:
        for origin in (LISTED, "http://testserver", "null", "*"):
            response = await client.get("/", headers={"Origin": origin})
            assert response.status_code == 200
            assert [name for name in response.headers if name.startswith("access-control-")] == []
