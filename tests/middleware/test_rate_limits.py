"""The limits around routes that the service has not: one that breaks, and one that would read its body."""

from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request

from tests.middleware.application import client_of
from tests.middleware.conftest import LogLines
from tests.service import SECRET, token
from yral_chat.api import errors
from yral_chat.clients.identity import TokenVerifier
from yral_chat.core.config import Settings
from yral_chat.core.credentials import ClientAddresses
from yral_chat.core.metrics import Metrics
from yral_chat.core.rate_limits import MemoryRateLimits
from yral_chat.middleware.cors import cors_options
from yral_chat.middleware.rate_limits import RateLimitMiddleware
from yral_chat.middleware.request_context import RequestContextMiddleware
from yral_chat.services.rate_limits import RateLimitService


class Held:
    """What the middleware needs of the resources."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.verifier = TokenVerifier(settings, SECRET.encode())
        self.rate_limits = RateLimitService(settings, MemoryRateLimits(), metrics)
        self.client_addresses = ClientAddresses(settings.trusted_proxies)


@pytest.fixture
def limited(metrics: Metrics, tmp_path: Path) -> FastAPI:
    settings = Settings(_env_file=None, environment="test", data_dir=tmp_path, rate_limit_per_minute=1)
    app = FastAPI(
        middleware=[
            Middleware(RequestContextMiddleware, metrics=metrics, cors=cors_options(settings)),
            Middleware(RateLimitMiddleware),
        ]
    )
    app.state.resources = Held(settings, metrics)
    app.state.entered = 0
    errors.install(app)

    @app.post("/api/v1/broken")
    async def broken(request: Request) -> None:
        app.state.entered += 1
        await request.body()
        raise RuntimeError("secret detail of the inside")

    return app


async def call(app: FastAPI, body: bytes = b"") -> httpx2.Response:
    async with client_of(app) as client:
        return await client.post(
            "/api/v1/broken", content=body, headers={"Authorization": f"Bearer {token('somebody')}"}
        )


async def test_an_answer_of_last_resort_has_the_headers(limited: FastAPI) -> None:
    response = await call(limited)
    assert response.status_code == 500
    assert response.headers["x-ratelimit-remaining-minute"] == "0"
    assert response.headers["ratelimit"].startswith('"minute";r=0;t=60, "hour";r=999;t=4')


async def test_the_route_is_not_entered_and_the_log_names_the_user_by_hash(limited: FastAPI, lines: LogLines) -> None:
    await call(limited)
    response = await call(limited, b"x" * 1000)
    assert response.status_code == 429
    assert limited.state.entered == 1
    _, line = lines.of("request.finished")
    assert (line["status"], line["error"]) == (429, "rate_limit_exceeded")
    assert "somebody" not in line["user"]
