"""The one pass around every request: correlation id, headers (contract 1.3), CORS, metrics, access log, last resort."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import ResponseValidationError
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from yral_chat.core import crashes
from yral_chat.core.errors import AppError, Forbidden, NotFound
from yral_chat.core.ids import new_id
from yral_chat.core.logging import correlation_id, log, shown_user
from yral_chat.core.metrics import METHODS, Metrics
from yral_chat.core.trace_context import TraceContext, trace, trace_of
from yral_chat.core.tracing import NO_SPAN, Span, is_tracing, start
from yral_chat.middleware.cors import CORS
from yral_chat.middleware.headers import SafeHeaders
from yral_chat.middleware.refusals import rendered

Headers = Sequence[tuple[bytes, bytes]]

_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_VERSION: Final = re.compile(r"/api/(v[123])(?=/|$)")
# GET routes that answer HEAD (contract 1.1). Nothing else does, so that a HEAD never starts work.
_HEAD_PATHS: Final = re.compile(r"/|/health(/.*)?|/(media|static)/.*|/api/v1/influencers(/[^/]+)?")
# Asked every few seconds by machines: their good answers would drown the log.
_PROBES: Final = ("/health", "/metrics")

UNMATCHED: Final = "unmatched"
# Nobody was left to answer (a cancelled request); nginx writes the same number.
_NO_RESPONSE: Final = 499
_MAX_PROBLEMS: Final = 10


class RequestContextMiddleware:
    """Wraps the whole application, CORS included; must be the outermost middleware.

    Puts `correlation_id` into the scope's state and the context variable. A route that knows its user sets
    `request.state.user_id`, and the access log names the hash of it. What is added to the list
    `state.response_headers` is on the answer, whoever gives it. Streams pass through message by message.
    A client's `traceparent` is where the request belongs; a span stands for it where spans are collected.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, cors: Mapping[str, Any], safe: SafeHeaders | None = None
    ) -> None:
        self._app = app
        self._safe = safe or SafeHeaders()
        self._app_with_cors = CORS(app, **cors)
        self._last_resort = CORS(_internal_error, **cors)
        self._metrics = metrics
        self._templates = _RouteTemplates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        _strip_slash(scope)
        scope.setdefault("state", {})["correlation_id"] = request_id
        token = correlation_id.set(request_id)
        place = trace_of(scope["headers"])
        span = _server_span(scope, request_id, place) if is_tracing() else NO_SPAN
        trace_token = trace.set(span.context or place)
        try:
            if scope["type"] == "http":
                await self._http(scope, receive, send, request_id, span)
            else:
                await self._websocket(scope, receive, send, request_id, span)
        finally:
            trace.reset(trace_token)
            correlation_id.reset(token)

    async def _http(self, scope: Scope, receive: Receive, send: Send, request_id: str, span: Span) -> None:
        method = scope["method"]
        if method == "HEAD" and _HEAD_PATHS.fullmatch(scope["path"]):
            # In a copy, because the server looks into its own scope to know that no body follows.
            scope = {**scope, "method": "GET"}
        headers = scope["state"]["response_headers"] = _own_headers(scope, request_id)
        app: ASGIApp = self._app_with_cors
        if not any(name == b"origin" for name, _ in scope["headers"]):
            # Not from a page of another origin: all that CORS would add is this, and it takes ten microseconds for it.
            app = self._app
            headers.append((b"vary", b"Origin"))
        safe = self._safe.of(scope["path"])
        exchange = _HTTPExchange(send, headers, safe, is_head=method == "HEAD", path=scope["path"])
        self._metrics.requests_in_progress.inc()
        try:
            await app(scope, receive, exchange.send)
        except ClientDisconnect:
            pass  # the client left in the middle of a stream: its right, and no fault of ours
        except Exception as error:  # noqa: BLE001  # what rises to here has no handler: the last resort
            _log_failure("request.failed", error, self._templates.of(scope))
            if not exchange.status:
                await self._last_resort(scope, receive, exchange.send)
            # Else the headers are out. The server sees an unfinished answer and cuts the connection, and rightly so.
        finally:
            self._metrics.requests_in_progress.dec()
            self._account(scope, method, exchange)
            self._end_span(span, scope, method, exchange.status or _NO_RESPONSE)

    def _account(self, scope: Scope, method: str, exchange: "_HTTPExchange") -> None:
        seconds = time.perf_counter() - exchange.started
        status = exchange.status or _NO_RESPONSE
        endpoint = self._templates.of(scope)
        self._metrics.request_finished(method, endpoint, status, seconds)
        log.log(
            _level(status, endpoint),
            "request.finished",
            method=method,
            endpoint=endpoint,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            bytes=exchange.sent_bytes,
            **_known_state(scope),
        )

    def _end_span(self, span: Span, scope: Scope, method: str, status: int) -> None:
        """https://opentelemetry.io/docs/specs/semconv/http/http-spans/ but without the path, which names people."""
        if span.context is None:
            return
        endpoint = self._templates.of(scope)
        state = scope["state"]
        user_id = state.get("user_id")
        span.rename(f"{method} {endpoint}")
        span.set(
            {
                "http.route": endpoint,
                "http.response.status_code": status,
                "user.hash": shown_user(user_id) if user_id else None,
                "yral.error": state.get("error_code"),
            }
        )
        if status >= 500:
            span.fail(str(status))
        span.end()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, request_id: str, span: Span) -> None:
        headers = scope["state"]["response_headers"] = _own_headers(scope, request_id)
        safe = self._safe.of(scope["path"])
        exchange = _WebSocketExchange(scope, receive, send, headers, safe, self._metrics)
        try:
            await self._app(scope, receive, exchange.send)
        except WebSocketDisconnect:
            pass  # the client left while we read or wrote
        except Exception as error:  # noqa: BLE001  # as above
            _log_failure("websocket.failed", error, self._templates.of(scope))
            await exchange.fail()
        finally:
            if exchange.is_accepted:
                self._metrics.ws_connections.dec()
            self._end_span(span, scope, "GET", exchange.status or _NO_RESPONSE)
            log.info(
                "websocket.finished",
                endpoint=self._templates.of(scope),
                status=exchange.status,
                close_code=exchange.close_code,
                duration_ms=round((time.perf_counter() - exchange.started) * 1000, 2),
                **_known_state(scope),
            )


class _HTTPExchange:
    """What one answer needs to be dressed and counted on its way out."""

    __slots__ = ("_headers", "_is_head", "_path", "_safe", "_send", "sent_bytes", "started", "status")

    def __init__(self, send: Send, headers: Headers, safe: Headers, *, is_head: bool, path: str) -> None:
        self._send = send
        self._headers = headers
        self._safe = safe
        self._is_head = is_head
        self._path = path
        self.started = time.perf_counter()
        self.status = 0
        self.sent_bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            if self._is_head:
                message = {**message, "body": b""}
            self.sent_bytes += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", ())
            if self.status == 405 and _HEAD_PATHS.fullmatch(self._path):
                headers = [_with_head(header) for header in headers]
            message = {**message, "headers": _dressed(headers, self._headers, self._safe, self.started)}
        await self._send(message)


class _WebSocketExchange:
    """The handshake and the end of one socket. Frames pass untouched."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, safe: Headers, metrics: Metrics
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = headers
        self._safe = safe
        self._metrics = metrics
        self.started = time.perf_counter()
        self.status = 0
        self.close_code: int | None = None

    @property
    def is_accepted(self) -> bool:
        return self.status == 101

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("websocket.accept", "websocket.http.response.start"):
            self.status = message.get("status", 101)
            if self.is_accepted:
                self._metrics.ws_connections.inc()
            headers = _dressed(message.get("headers", ()), self._headers, self._safe, self.started)
            message = {**message, "headers": headers}
        elif kind == "websocket.close":
            if not self.status and "websocket.http.response" in (self._scope.get("extensions") or {}):
                # Closed before the handshake: the router's way to say that there is no such socket.
                await self._refuse(Forbidden() if "endpoint" in self._scope else NotFound())
                return
            self.close_code = message.get("code", 1000)
        await self._send(message)

    async def fail(self) -> None:
        """Ends the socket after an unhandled exception."""
        if self.close_code is None and (self.is_accepted or not self.status):
            if self.is_accepted:
                await self.send({"type": "websocket.close", "code": 1011})
            else:
                await self._refuse(AppError())

    async def _refuse(self, error: AppError) -> None:
        await rendered(error)(self._scope, self._receive, self.send)


class _RouteTemplates:
    """Which template a request was routed by: `/api/v1/influencers/{influencer_id}`.

    An included router's route knows its path without the prefix of the inclusion, so the templates are read once from
    the application and found by the identity of the route, or of the endpoint where the router names no route.
    """

    def __init__(self) -> None:
        self._by_identity: dict[int, str] = {}

    def of(self, scope: Scope) -> str:
        route, endpoint = scope.get("route"), scope.get("endpoint")
        if endpoint is None:
            return UNMATCHED
        if not self._by_identity:
            self._learn(scope["app"])
        known = self._by_identity.get(id(route)) or self._by_identity.get(id(endpoint))
        return known or str(getattr(route, "path_format", UNMATCHED))

    def _learn(self, app: Any) -> None:
        for context in iter_route_contexts(app.routes):
            if context.path_format is None:
                continue
            self._by_identity[id(context.original_route)] = context.path_format
            # A mount has no endpoint; its application stands in the scope instead.
            endpoint = context.endpoint or getattr(context.original_route, "app", None)
            self._by_identity.setdefault(id(endpoint), context.path_format)


def _server_span(scope: Scope, request_id: str, place: TraceContext | None) -> Span:
    """The span of a request; none for what machines ask every few seconds."""
    if scope["path"].startswith(_PROBES):
        return NO_SPAN
    method = scope.get("method", "GET")
    attributes = {
        "http.request.method": method if method in METHODS else "_OTHER",
        "url.scheme": scope.get("scheme"),
        "yral.correlation_id": request_id,
    }
    return start(method, "server", parent=place, attributes=attributes)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-correlation-id":
            return value.decode("ascii") if _ID.fullmatch(value) else new_id()
    return new_id()


def _own_headers(scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
    version = _VERSION.match(scope["path"])
    return [
        (b"x-correlation-id", request_id.encode("ascii")),
        (b"x-api-version", version[1].encode("ascii") if version else b"v1"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _dressed(headers: Headers, own: Headers, safe: Headers, started: float) -> Headers:
    """The route's headers, ours, those of `safe` that the route has not set, and the time to the first of them."""
    given = {name.lower() for name, _ in headers}
    dressed = [*headers, *own, (b"x-response-time-ms", b"%.2f" % ((time.perf_counter() - started) * 1000))]
    dressed += [header for header in safe if header[0] not in given]
    return dressed


def _strip_slash(scope: Scope) -> None:
    """A path with one trailing slash is the same route, without a redirect."""
    path: str = scope["path"]
    if path.endswith("/") and path != "/":
        scope["path"] = path[:-1]


def _log_failure(event: str, error: Exception, endpoint: str) -> None:
    crashes.report(error, event, endpoint=endpoint)
    if isinstance(error, ResponseValidationError | ValidationError):
        # Their texts and tracebacks repeat the values, which may be what somebody wrote.
        problems = [f"{problem['type']} at {'.'.join(map(str, problem['loc']))}" for problem in error.errors()]
        log.error(event, endpoint=endpoint, exception=type(error).__name__, problems=problems[:_MAX_PROBLEMS])
    else:
        log.opt(exception=error).error(event, endpoint=endpoint)


def _known_state(scope: Scope) -> dict[str, str]:
    state = scope["state"]
    known = {}
    if (user_id := state.get("user_id")) and (user := shown_user(user_id)):
        known["user"] = user
    if error := state.get("error_code"):
        known["error"] = error
    return known


def _level(status: int, endpoint: str) -> str:
    if status >= 500:
        return "WARNING"
    return "DEBUG" if status < 400 and endpoint.startswith(_PROBES) else "INFO"


def _with_head(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = header
    methods = {method.strip() for method in value.split(b",")}
    if name.lower() != b"allow" or b"GET" not in methods:
        return header
    return name, b", ".join(sorted(methods | {b"HEAD"}))


async def _internal_error(scope: Scope, receive: Receive, send: Send) -> None:
    await rendered(AppError())(scope, receive, send)
