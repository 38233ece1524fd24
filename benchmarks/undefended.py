"""The service without what guards and watches it, to measure what that costs; nobody else has a use for this.

Off: rate limits and the log's lines (by settings), the gate with its deadlines and shares, the counts of requests and
of units of work. Limits on bodies and the headers stay: no client could do without them.
"""

import sys
from typing import Any, cast

from fastapi import FastAPI

from yral_chat import cli, main, serving
from yral_chat.core.config import Settings
from yral_chat.middleware.gate import GateMiddleware
from yral_chat.resources import Resources

SETTINGS = {"RATE_LIMIT_ENABLED": "false", "LOG_LEVEL": "ERROR"}
COMMAND = [sys.executable, __file__, "serve"]


def undefended(settings: Settings, resources: Resources) -> FastAPI:
    """The application without its gate, and with metrics that count nothing on the way of a request."""
    app = main.create_app(settings, resources)
    app.user_middleware = [entry for entry in app.user_middleware if entry.cls != cast(object, GateMiddleware)]
    setattr(resources.metrics, "request_finished", _nothing)  # noqa: B010 - a method, which mypy guards
    return app


def _nothing(*_: Any) -> None:
    """What is done instead."""


if __name__ == "__main__":
    setattr(serving, "create_app", undefended)  # noqa: B010 - what `serving` imports for itself
    cli.app()
