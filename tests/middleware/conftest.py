import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from loguru import logger

from tests.middleware.application import Gates, application, client_of
from yral_chat.core.logging import configure_logging
from yral_chat.core.metrics import Metrics


class LogLines:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.written) if line["event"] == event]


@pytest.fixture
def lines() -> Iterator[LogLines]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    captured = LogLines()
    configure_logging("DEBUG", "json", write=captured.written.append)
    yield captured
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def gates() -> Gates:
    return Gates()


@pytest.fixture
async def app(metrics: Metrics, gates: Gates) -> FastAPI:
    return application(metrics, gates)


@pytest.fixture
async def client(app: FastAPI) -> httpx2.AsyncClient:
    return client_of(app)
