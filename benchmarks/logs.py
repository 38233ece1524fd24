"""What one line of the access log costs, and what a client's trace adds to it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from loguru import logger

from benchmarks.rig import Rig, median_of
from yral_chat.core.config import Settings
from yral_chat.core.logging import configure_logging
from yral_chat.core.metrics import Metrics
from yral_chat.middleware.cors import cors_options
from yral_chat.middleware.request_context import RequestContextMiddleware

Headers = list[tuple[bytes, bytes]]

USUAL: Headers = [(b"host", b"chat.example.org"), (b"authorization", b"Bearer x"), (b"user-agent", b"an app")]
TRACE: Headers = [(b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), (b"tracestate", b"a=1")]


async def measure(rig: Rig) -> dict[str, float]:
    """Microseconds of CPU: the pass around a request with the line against without it, the line as JSON for nobody."""
    counts = rig.counts

    async def line() -> float:
        return await _pass("INFO", USUAL, counts.lines) - await _pass("CRITICAL", USUAL, counts.lines)

    async def traced() -> float:
        return await _pass("INFO", USUAL + TRACE, counts.lines) - await _pass("INFO", USUAL, counts.lines)

    return {
        "access_line": await median_of(counts.rounds, line) * 1e6,
        "access_trace": await median_of(counts.rounds, traced) * 1e6,
    }


async def _pass(level: str, headers: Headers, count: int) -> float:
    """Seconds of CPU for each request that passes through."""
    middleware = RequestContextMiddleware(
        _answer, metrics=Metrics(), cors=cors_options(Settings(_env_file=None, environment="test"))
    )
    app = FastAPI()
    with _logging_to_nobody(level):
        started = time.process_time()
        for _ in range(count):
            await middleware(_scope(app, headers), _receive, _send)
        return (time.process_time() - started) / count


@contextmanager
def _logging_to_nobody(level: str) -> Iterator[None]:
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    configure_logging(level, "json", write=len)
    try:
        yield
    finally:
        logger.remove()
        root.handlers[:] = handlers
        root.setLevel(before)


def _scope(app: FastAPI, headers: Headers) -> dict[str, Any]:
    path = "/api/v2/chat/conversations"
    return {"type": "http", "method": "GET", "path": path, "headers": headers, "app": app, "state": {}}


async def _answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - an ASGI application
    scope["state"]["user_id"] = "a-person-with-a-principal-of-usual-length"
    scope["endpoint"] = _answer
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def _receive() -> Any:
    raise AssertionError("nothing is read")


async def _send(message: Any) -> None:
    """It goes nowhere."""
