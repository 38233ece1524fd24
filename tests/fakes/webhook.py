"""A receiver of webhooks on loopback: verifies signatures as its documentation says, fails when told to, hangs."""

import asyncio
import hashlib
import hmac
import json
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web

TOLERANCE_SECONDS = 300
HANG = 0  # as a status: no answer at all


class Delivery(NamedTuple):
    """One call that came in."""

    payload: dict[str, Any]
    key: str
    is_signed: bool
    answered: int


class WebhookReceiver:
    """`statuses` are the answers to the coming calls, then 204; a redirect points back here."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self.statuses: list[int] = []
        self.received: list[Delivery] = []
        self.url = ""
        self._ending = asyncio.Event()

    @property
    def taken(self) -> list[Delivery]:
        """Those that were answered with success."""
        return [delivery for delivery in self.received if 200 <= delivery.answered < 300]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._receive)
        # A hanging call is ended by its client; what is left of it must not hold up the end of a test.
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/told?a=b"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.statuses.pop(0) if self.statuses else 204
        is_signed = self._is_signed(request.headers.get("X-Yral-Signature", ""), body)
        key = request.headers.get("Idempotency-Key", "")
        self.received.append(Delivery(json.loads(body or b"{}"), key, is_signed, status))
        if status == HANG:
            await self._ending.wait()
        headers = {"Location": self.url} if 300 <= status < 400 else None
        return web.Response(status=status or 204, headers=headers)

    def _is_signed(self, header: str, body: bytes) -> bool:
        parts = dict(part.partition("=")[::2] for part in header.split(","))
        if not parts.get("t", "").isdigit() or abs(time.time() - int(parts["t"])) > TOLERANCE_SECONDS:
            return False
        digest = hmac.new(self._secret, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(digest, parts.get("v1", ""))
