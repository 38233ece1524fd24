"""How much may come in."""

from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yral_chat.core.errors import AppError, Invalid, NotFound, PayloadTooLarge
from yral_chat.middleware.refusals import refuse

MAX_BODY_BYTES: Final = 1024 * 1024
# A path of ours has two ids of at most 255 characters, which may be 12 bytes each when they are escaped; a query a few
# short values. Web servers draw the line in the same place: nginx and Apache at 8 KiB.
MAX_PATH_BYTES: Final = 8192
MAX_QUERY_BYTES: Final = 8192
MAX_QUERY_PARAMETERS: Final = 100


class BodyLimitMiddleware:
    """Refuses addresses that are too long, and with 413 a body above the limit: before a byte is read when its length
    is announced, else while reading.

    `by_prefix` sets other limits, in bytes, for paths that begin so; the longest prefix counts. FastAPI's own
    `max_body_size` is not used: it answers in plain text, and only after the route has begun.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int = MAX_BODY_BYTES, by_prefix: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._by_prefix = sorted((by_prefix or {}).items(), key=lambda item: len(item[0]), reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (refusal := _unfit_address(scope)) is not None:
            await refuse(refusal, scope, receive, send)
            return
        limit = self._limit_of(scope["path"])
        announced = _content_length(scope)
        if announced is not None and announced > limit:
            await refuse(_too_large(limit), scope, receive, send)
        elif announced is None and not _is_bodyless(scope):
            await self._count(limit, scope, receive, send)
        else:  # the server itself holds a body to its announced length
            await self._app(scope, receive, send)

    def _limit_of(self, path: str) -> int:
        for prefix, limit in self._by_prefix:
            if path.startswith(prefix):
                return limit
        return self._max_bytes

    async def _count(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0
        has_started = False

        async def counted_receive() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise _too_large(limit)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, counted_receive, watched_send)
        except PayloadTooLarge:
            # FastAPI's handlers have rendered it unless it was read outside of a route.
            if has_started:
                raise
            await refuse(_too_large(limit), scope, receive, send)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(details={"limit": limit, "unit": "bytes"})


def _unfit_address(scope: Scope) -> AppError | None:
    """Such an id is unknown (contract section 1.1), and so is what a query as long as that asks for."""
    query = scope.get("query_string", b"")  # optional in ASGI
    if len(scope["path"]) > MAX_PATH_BYTES:
        return NotFound()
    if len(query) > MAX_QUERY_BYTES:
        return Invalid.field(["query"], f"At most {MAX_QUERY_BYTES} bytes", "query_too_long")
    if query.count(b"&") >= MAX_QUERY_PARAMETERS:
        return Invalid.field(["query"], f"At most {MAX_QUERY_PARAMETERS} parameters", "too_many_parameters")
    return None


def _is_bodyless(scope: Scope) -> bool:
    """RFC 9112, section 6.3: a request that announces neither length nor chunks has no body. HTTP/2 need not tell."""
    return scope.get("http_version") == "1.1" and not any(
        name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]
    )


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
