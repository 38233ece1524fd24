"""Names and pictures of people, from the profile service of whoever runs this (contract section 5.3)."""

from urllib.parse import quote

import aiohttp
import msgspec

from yral_chat.clients.circuits import reason_of
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.core.cache import LRUCache
from yral_chat.core.decoding import decode
from yral_chat.core.logging import log
from yral_chat.core.tracing import outgoing_headers

# People wait for their inbox, and a name is not worth more.
TIMEOUT_SECONDS = 2.0
MAX_BYTES = 64 * 1024
# Said of one id, which anybody may have made up: no reason to ask for nobody else.
NOBODY = (400, 404, 410, 414, 422)


class Profile(msgspec.Struct, frozen=True):
    """What the profile service knows of a person; None where it does not."""

    username: str | None = None
    profile_picture_url: str | None = None


UNKNOWN = Profile()
_FAILURES = (aiohttp.ClientError, TimeoutError, msgspec.DecodeError)


class _Paused(Exception):
    """The circuit is open: nothing was asked."""


class ProfileClient:
    """`GET <PROFILE_URL>/<principal>`, cached. Without an address everybody is unknown.

    While `breaker` is open only what is cached is known; everybody else is shown with nulls.
    """

    def __init__(self, url: str | None, cache: LRUCache, breaker: CircuitBreaker | None = None) -> None:
        self.breaker = breaker or CircuitBreaker("profiles")
        self._url = url.rstrip("/") if url else None
        self._cache = cache
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_enabled(self) -> bool:
        return self._url is not None

    async def get(self, principal_id: str) -> Profile:
        """The person's profile; one with nulls when the service does not know or does not answer."""
        if self._url is None:
            return UNKNOWN

        async def load() -> tuple[Profile, int]:
            return await self._ask(principal_id), len(principal_id) + 300

        try:
            return await self._cache.get(f"profile:{principal_id}", load)
        except (_Paused, *_FAILURES):
            return UNKNOWN

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(self, principal_id: str) -> Profile:
        admission = self.breaker.admit()
        if admission is None:
            raise _Paused
        with admission:
            try:
                profile = await self._fetch(principal_id)
            except _FAILURES as error:
                log.debug("profiles.failed", error=type(error).__name__)
                admission.fail(reason_of(error))
                raise
            admission.succeed()
        return profile

    async def _fetch(self, principal_id: str) -> Profile:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        async with self._session.get(
            f"{self._url}/{quote(principal_id, safe='')}",
            headers=outgoing_headers(),
            allow_redirects=False,
        ) as response:
            if response.status in NOBODY:
                return UNKNOWN
            response.raise_for_status()
            return decode(await _read(response), Profile)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, however many packets it comes in. Raises aiohttp.ClientPayloadError above the limit."""
    body = bytearray()
    async for packet in response.content.iter_any():
        body += packet
        if len(body) > MAX_BYTES:
            raise aiohttp.ClientPayloadError("too large")
    return bytes(body)
