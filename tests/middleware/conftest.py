import asyncio
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
        self._more = asyncio.Event()

    def __call__(self, line: bytes) -> None:
        self.written.append(line)
        self._more.set()

    async def was_written(self, event: str) -> None:
        async with asyncio.timeout(10):
            while not self.of(event):
                await self._more.wait()
                self._more.clear()

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.written) if line["event"] == event]


@pytest.fixture
def lines() -> Iterator[LogLines]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    captured = LogLines()
    configure_logging("DEBUG", "json", write=captured)
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
