"""Who asks too often is refused before anything is done: no route runs, no body is read (contract section 4)."""

import re
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from yral_chat.core.credentials import header, socket_token
from yral_chat.core.errors import AppError, Unauthorized
from yral_chat.core.rate_limits import HOUR_SECONDS, MINUTE_SECONDS, Limit, Verdict
from yral_chat.middleware.refusals import refuse
from yral_chat.resources import Resources
from yral_chat.services.rate_limits import RouteClass, refusal

RATE_LIMITED: Final = 4029

# Everything below these, known or not; every WebSocket; and no preflight, which CORS answers before it comes here.
_LIMITED: Final = ("/api/", "/v1/")
_EXCLUDED: Final = "/api/v1/chat/ws/docs"
# What existing clients poll.
_LIGHT: Final = re.compile(
    r"/api/v2/(discovery|chat/conversations)/search"
    r"|/api/v1/creator/conversations/[^/]+/(human-creator-takeover-status|messages)"
)
# A token says nothing about who may come in here, the admin key does: tried keys are counted where they come from,
# or each of a guest's many accounts would bring as many tries.
_BY_ADDRESS: Final = "/api/v1/admin/"


class RateLimitMiddleware:
    """Counts every request on a limited route: on the user of its token, else on the address.

    The token is verified here, once: `state.caller` is the identity, or the AppError with which a route that needs one
    refuses. Needs RequestContextMiddleware around it, for the headers, which are then on whatever answer comes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._fixed_headers: dict[Limit, list[tuple[bytes, bytes]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route_class = _class_of(scope)
        if route_class is None:
            await self._app(scope, receive, send)
            return
        resources: Resources = scope["app"].state.resources
        caller = await _identify(resources, scope)
        verdict = await _take(resources, caller, scope, route_class)
        state = scope["state"]
        state["caller"] = caller
        state["response_headers"] += self._headers(verdict)
        if verdict.refused is None:
            await self._app(scope, receive, send)
            return
        if not isinstance(caller, AppError):
            state["user_id"] = caller.user_id  # for the access log
        error = refusal(verdict)
        if scope["type"] == "http":
            await refuse(error, scope, receive, send)
        else:
            state["error_code"] = error.code
            await _close(WebSocket(scope, receive, send), error)

    def _headers(self, verdict: Verdict) -> list[tuple[bytes, bytes]]:
        fixed = self._fixed_headers.get(verdict.limit)
        if fixed is None:
            fixed = self._fixed_headers[verdict.limit] = _fixed_headers(verdict.limit)
        return [
            *fixed,
            (b"x-ratelimit-remaining-minute", b"%d" % verdict.remaining_minute),
            (b"x-ratelimit-remaining-hour", b"%d" % verdict.remaining_hour),
            (
                b"ratelimit",
                b'"minute";r=%d;t=%d, "hour";r=%d;t=%d'
                % (verdict.remaining_minute, verdict.full_in_minute, verdict.remaining_hour, verdict.full_in_hour),
            ),
        ]


def _fixed_headers(limit: Limit) -> list[tuple[bytes, bytes]]:
    policy = b'"minute";q=%d;w=%d, "hour";q=%d;w=%d' % (limit.per_minute, MINUTE_SECONDS, limit.per_hour, HOUR_SECONDS)
    return [
        (b"x-ratelimit-limit-minute", b"%d" % limit.per_minute),
        (b"x-ratelimit-limit-hour", b"%d" % limit.per_hour),
        (b"ratelimit-policy", policy),
    ]


def _class_of(scope: Scope) -> RouteClass | None:
    kind = scope["type"]
    if kind == "websocket":
        return "standard"
    if kind != "http":
        return None
    path: str = scope["path"]
    if path == _EXCLUDED or not (path.startswith(_LIMITED) or f"{path}/" in _LIMITED):
        return None
    return "light" if scope["method"] in ("GET", "HEAD") and _LIGHT.fullmatch(path) else "standard"


async def _take(resources: Resources, caller: Any, scope: Scope, route_class: RouteClass) -> Verdict:
    if isinstance(caller, AppError) or scope["path"].startswith(_BY_ADDRESS):
        return await resources.rate_limits.take_for_address(resources.client_addresses.key_of(scope), route_class)
    return await resources.rate_limits.take_for_user(caller.user_id, route_class)


async def _identify(resources: Resources, scope: Scope) -> Any:
    """The Identity of the token, or the AppError that says why there is none."""
    try:
        if scope["type"] == "http":
            return await resources.verifier.authenticate(header(scope, b"authorization"))
        token, _ = socket_token(scope)
        if token is None:
            return Unauthorized("Missing authentication token")
        return await resources.verifier.verify(token)
    except AppError as error:  # a bad token, or keys out of reach
        return error


async def _close(socket: WebSocket, error: AppError) -> None:
    """Accepts first, so that browsers see code and reason."""
    _, subprotocol = socket_token(socket.scope)
    await socket.accept(subprotocol)
    await socket.close(RATE_LIMITED, f"{error.message} Try again in {error.retry_after} s.")
