"""Names and pictures of people, from the profile service of whoever runs this (contract section 5.3)."""

import time
from urllib.parse import quote

import aiohttp
import msgspec
from loguru import logger

from yral_chat.core.cache import LRUCache
from yral_chat.core.logging import correlation_id

# People wait for their inbox, and a name is not worth more.
TIMEOUT_SECONDS = 2.0
MAX_BYTES = 64 * 1024
# After a failure the service is left alone for a moment; nulls are shown meanwhile.
PAUSE_SECONDS = 30.0


class Profile(msgspec.Struct, frozen=True):
    """What the profile service knows of a person; None where it does not."""

    username: str | None = None
    profile_picture_url: str | None = None


UNKNOWN = Profile()


class ProfileClient:
    """`GET <PROFILE_URL>/<principal>`, cached. Without an address everybody is unknown."""

    def __init__(self, url: str | None, cache: LRUCache) -> None:
        self._url = url.rstrip("/") if url else None
        self._cache = cache
        self._session: aiohttp.ClientSession | None = None
        self._asks_again_at = 0.0
        self.has_failed = False  # the last request did

    @property
    def is_enabled(self) -> bool:
        return self._url is not None

    async def get(self, principal_id: str) -> Profile:
        """The person's profile; one with nulls when the service does not know or does not answer."""
        if self._url is None or time.monotonic() < self._asks_again_at:
            return UNKNOWN

        async def load() -> tuple[Profile, int]:
            return await self._fetch(principal_id), len(principal_id) + 300

        try:
            profile = await self._cache.get(f"profile:{principal_id}", load)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError) as error:
            if not self.has_failed:
                logger.warning("profiles.failed", error=type(error).__name__)
            self.has_failed = True
            self._asks_again_at = time.monotonic() + PAUSE_SECONDS
            return UNKNOWN
        return profile

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _fetch(self, principal_id: str) -> Profile:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        async with self._session.get(
            f"{self._url}/{quote(principal_id, safe='')}",
            headers={"X-Correlation-ID": correlation_id.get()},
            allow_redirects=False,
        ) as response:
            if response.status == 404:
                profile = UNKNOWN
            else:
                response.raise_for_status()
                profile = msgspec.json.decode(await _read(response), type=Profile)
        self.has_failed = False
        return profile


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, however many packets it comes in. Raises aiohttp.ClientPayloadError above the limit."""
    body = bytearray()
    async for packet in response.content.iter_any():
        body += packet
        if len(body) > MAX_BYTES:
            raise aiohttp.ClientPayloadError("too large")
    return bytes(body)
