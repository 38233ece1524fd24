"""What every request gets before it is worked on: bounds for its head, a deadline, and a place among its user's own."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yral_chat.core import deadlines
from yral_chat.core.errors import AddressTooLong, AppError, HeadTooLarge, Overloaded
from yral_chat.core.metrics import Metrics
from yral_chat.middleware.refusals import refuse
from yral_chat.middleware.shares import Shares

# A token may stand in the query of a socket's address: 16,384 characters (contract section 17), and a path.
MAX_ADDRESS_BYTES: Final = 20 * 1024
# Twice a token in a header, and some cookies of a proxy. Node.js and nginx allow 16 and 32 KiB by default.
MAX_HEADER_BYTES: Final = 48 * 1024
MAX_HEADERS: Final = 100
# So long one request waits for its user's others; it counts as part of the deadline.
SHARE_SECONDS: Final = 2.0

# Probes and files are no work that somebody's other work should wait for.
_SHARED: Final = ("/api/", "/v1/")

UserOf = Callable[[Scope, str], str | None]


class GateMiddleware:
    """`user_of(scope, authorization header)` names the user of a token that is known already, without checking it.

    Requests without a token have no share of their own: what they can ask for costs little.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, send_seconds: float, max_per_user: int, user_of: UserOf
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._seconds = send_seconds + deadlines.ANSWER_SECONDS
        self._shares = Shares(max_per_user)
        self._user_of = user_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        mark = deadlines.begin(self._seconds)
        try:
            if scope["type"] == "http":
                await self._http(scope, _timed(receive), send)
            else:
                await self._app(scope, receive, send)
        finally:
            deadlines.end(mark)
            if (reason := scope["state"].get("overload_reason")) is not None:
                self._metrics.overload_refused(reason)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (error := head_error(len(scope["path"]) + len(scope["query_string"]), scope["headers"])) is not None:
            await refuse(error, scope, receive, send)
            return
        key = self._key(scope)
        if key is None:
            await self._app(scope, receive, send)
        elif self._shares.take_now(key) or await self._shares.take(key, SHARE_SECONDS):
            await self._in_its_place(key, scope, receive, send)
        else:
            scope["state"]["overload_reason"] = "user_requests"
            await refuse(Overloaded("user_requests"), scope, receive, send)

    async def _in_its_place(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        """The place is given back when the answer begins: what streams from then on costs little and may last."""
        is_held = True

        async def freeing_send(message: Message) -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._shares.free(key)
            await send(message)

        try:
            await self._app(scope, receive, freeing_send)
        finally:
            if is_held:
                self._shares.free(key)

    def _key(self, scope: Scope) -> str | None:
        if not scope["path"].startswith(_SHARED):
            return None
        if (caller := scope["state"].get("caller")) is not None:  # who the rate limits found
            return None if isinstance(caller, AppError) else caller.user_id
        for name, value in scope["headers"]:
            if name == b"authorization":
                header: str = value.decode("latin-1")
                return self._user_of(scope, header) or header
        return None


def _timed(receive: Receive) -> Receive:
    async def timed_receive() -> Message:
        began = time.monotonic()
        message = await receive()
        if message["type"] == "http.request":
            deadlines.wait_for_client(time.monotonic() - began)
        return message

    return timed_receive


def head_error(address_bytes: int, headers: Sequence[tuple[bytes, bytes]]) -> AppError | None:
    """What is too much of a request's head, if anything."""
    if address_bytes > MAX_ADDRESS_BYTES:
        return AddressTooLong()
    if len(headers) > MAX_HEADERS or sum([len(name) + len(value) for name, value in headers]) > MAX_HEADER_BYTES:
        return HeadTooLarge()
    return None
