"""What is refused below the application, before there is a whole request: the same shape, headers and log line."""

from collections.abc import Sequence
from contextlib import suppress

from starlette.types import Message, Receive, Scope, Send

from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.metrics import Metrics
from yral_chat.middleware.cors import cors_options
from yral_chat.middleware.headers import safe_headers
from yral_chat.middleware.refusals import refuse
from yral_chat.middleware.request_context import RequestContextMiddleware

Headers = Sequence[tuple[bytes, bytes]]


class RefusalsBelow:
    """Made once, because each answer asks for it."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._app = RequestContextMiddleware(
            _refuse_as_told, metrics=metrics, cors=cors_options(settings), safe=safe_headers(settings)
        )

    def answer(self, error: AppError, address: bytes, headers: Headers) -> tuple[Headers, bytes]:
        """(headers, body) for the answer to a request of which so much is known."""
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": address.decode("latin-1").partition("?")[0] or "/",
            "query_string": b"",
            "headers": list(headers),
            "state": {"refusal": error},
        }
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        with suppress(StopIteration):  # nothing in there waits, so that one step is all
            self._app(scope, _no_body, send).send(None)
        start, body = messages
        return start["headers"], body["body"]


async def _refuse_as_told(scope: Scope, receive: Receive, send: Send) -> None:
    await refuse(scope["state"]["refusal"], scope, receive, send)


async def _no_body() -> Message:
    return {"type": "http.disconnect"}
