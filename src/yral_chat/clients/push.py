"""Tells others over HTTP what has happened: a signed POST to an address of whoever runs this.

The signature is Stripe's scheme, `t=<unix seconds>,v1=<hex of HMAC-SHA256 over "<t>.<body>">`: the receiver checks it
with the shared secret and refuses what is old (https://docs.stripe.com/webhooks#verify-manually).
"""

import hashlib
import hmac
from typing import Any

import aiohttp
import orjson

from yral_chat.clients.circuits import reason_of
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.core import clock
from yral_chat.core.tracing import outgoing_headers
from yral_chat.core.version import SERVICE_NAME, VERSION

# A job waits for it, and nobody else.
TIMEOUT_SECONDS = 10.0
USER_AGENT = f"{SERVICE_NAME.replace(' ', '-')}/{VERSION}"


class WebhookFailed(Exception):
    """It was not taken. The message is fixed words and a status: nothing of the address or the answer."""


class WebhookPaused(Exception):
    """The circuit is open: nothing was sent. `seconds` until it is worth another try."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the circuit is open")
        self.seconds = seconds


class Webhook:
    """One address. Without one, nobody is told and `is_enabled` is false."""

    def __init__(
        self, url: str | None, secret: str | None, breaker: CircuitBreaker, *, seconds: float = TIMEOUT_SECONDS
    ) -> None:
        """`seconds` is how long the receiver has for its answer."""
        self.breaker = breaker
        self._url = url
        self._secret = secret.encode() if secret else None
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_enabled(self) -> bool:
        return self._url is not None

    async def send(self, payload: dict[str, Any], key: str) -> None:
        """Sends `payload` as JSON; `key` (header Idempotency-Key) is the same in every repetition.

        Raises WebhookFailed unless the receiver answers with 2xx, WebhookPaused while it is given time to recover.
        """
        if self._url is None:
            return
        admission = self.breaker.admit()
        if admission is None:
            raise WebhookPaused(self.breaker.retry_after)
        with admission:
            try:
                status = await self._post(self._url, orjson.dumps(payload), key)
            except (aiohttp.ClientError, TimeoutError) as error:
                admission.fail(reason_of(error))
                raise WebhookFailed(type(error).__name__) from None  # their texts name the address
            if status < 500:  # it lives, whatever it thinks of this one
                admission.succeed()
            else:
                admission.fail("overloaded")
        if not 200 <= status < 300:
            raise WebhookFailed(f"status {status}")

    async def _post(self, url: str, body: bytes, key: str) -> int:
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT, "Idempotency-Key": key}
        headers |= outgoing_headers()
        if self._secret is not None:
            headers["X-Yral-Signature"] = signature(self._secret, body, int(clock.seconds_now()))
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar())
        # A redirect could lead anywhere, and the body with it. The answer's body is not read: nobody needs it.
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def signature(secret: bytes, body: bytes, unix_seconds: int) -> str:
    """The header's value for `body` sent at this time."""
    digest = hmac.new(secret, b"%d.%b" % (unix_seconds, body), hashlib.sha256).hexdigest()
    return f"t={unix_seconds},v1={digest}"
