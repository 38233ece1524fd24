"""What is read often and changes seldom: one bounded cache, and bodies that are encoded and compressed once."""

import asyncio
import gzip
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from yral_chat.core import deadlines
from yral_chat.core.sizes import MEBIBYTE

T = TypeVar("T")

Load = Callable[[], Awaitable[tuple[T, int]]]

# Contract 1.1: bodies of 1 KiB or more leave compressed.
GZIP_MIN_BYTES = 1024
# Measured on a list of 38 KB: level 9 takes a fifth more time than level 6 and saves one byte.
GZIP_LEVEL = 6


class CacheCounters(NamedTuple):
    """Totals since the start, and what is held now."""

    hits: int
    misses: int
    evictions: int
    items: int
    bytes: int


class _Entry(msgspec.Struct, gc=False):
    value: Any
    size: int
    expires_at: float


class _Flight:
    """A load in progress. Its identity says whether its result is still wanted: `drop` takes it off the list."""

    __slots__ = ("task",)
    task: "asyncio.Task[Any]"


class LRUCache:
    """Values by key: the least recently used go first, each one lives for a limited time, each miss is loaded once.

    For one event loop; no method blocks. A value of `None` means "there is no such thing" and is remembered
    for `absent_ttl_seconds` only, because it may come into being on another way than through us.
    """

    def __init__(
        self,
        *,
        max_items: int = 1000,
        max_bytes: int = 64 * MEBIBYTE,
        ttl_seconds: float = 300.0,
        absent_ttl_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._ttl_seconds = ttl_seconds
        self._absent_ttl_seconds = absent_ttl_seconds
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0

    async def get(self, key: str, load: Load[T], *, ttl_seconds: float | None = None) -> T:
        """The value of `key`, from memory or from `load`, which returns the value and its size in bytes.

        However many ask at once, `load` runs once and everybody gets its result or its exception; an exception
        is not remembered. The load belongs to nobody: a caller that is cancelled leaves it running for the others.
        A value larger than the whole cache is returned and not kept.
        """
        entry = self._entries.get(key)
        if entry is not None:
            if entry.expires_at > self._clock():
                self._entries.move_to_end(key)
                self._hits += 1
                return entry.value  # type: ignore[no-any-return]  # what `load` of this key returned
            self._forget(key)
        self._misses += 1
        flight = self._flights.get(key) or self._start(key, load, ttl_seconds)
        return await asyncio.shield(flight.task)

    def drop(self, key: str) -> None:
        """Forgets `key`. The result of a load that is running now reaches those who wait for it, and is not kept."""
        self._flights.pop(key, None)
        self._forget(key)

    def drop_prefix(self, prefix: str) -> None:
        """Forgets every key that begins with `prefix`; looks at all keys."""
        for key in [key for key in (*self._entries, *self._flights) if key.startswith(prefix)]:
            self.drop(key)

    def counters(self) -> CacheCounters:
        return CacheCounters(self._hits, self._misses, self._evictions, len(self._entries), self._bytes)

    async def close(self) -> None:
        """Ends the loads that are still running."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: str, load: Load[Any], ttl_seconds: float | None) -> _Flight:
        flight = _Flight()
        self._flights[key] = flight
        flight.task = asyncio.get_running_loop().create_task(self._fly(key, flight, load, ttl_seconds))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._landed)
        return flight

    async def _fly(self, key: str, flight: _Flight, load: Load[Any], ttl_seconds: float | None) -> Any:
        try:
            with deadlines.owed():  # not the one of whoever came first
                value, size = await load()
            if self._flights.get(key) is flight:
                self._store(key, value, size, ttl_seconds)
            return value
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _landed(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: when every caller has left, nobody else collects it

    def _store(self, key: str, value: Any, size: int, ttl_seconds: float | None) -> None:
        if size > self._max_bytes:
            return
        if value is None:
            ttl_seconds = self._absent_ttl_seconds
        elif ttl_seconds is None:
            ttl_seconds = self._ttl_seconds
        self._entries[key] = _Entry(value, size, self._clock() + ttl_seconds)
        self._bytes += size
        while len(self._entries) > self._max_items or self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.size
            self._evictions += 1

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size


class EncodedBody(msgspec.Struct, frozen=True):
    """A response body, ready to be sent as it is and compressed: a hit costs neither again.

    `gzip` is None where it would not pay: below 1 KiB, or when compression gains nothing. `etag` is the quoted
    strong validator of the uncompressed content, as it stands in the header.
    """

    body: bytes
    gzip: bytes | None
    etag: str

    @classmethod
    def of(cls, body: bytes) -> Self:
        packed = gzip.compress(body, GZIP_LEVEL, mtime=0) if len(body) >= GZIP_MIN_BYTES else None
        if packed is not None and len(packed) >= len(body):
            packed = None
        return cls(body, packed, f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"')

    @property
    def size(self) -> int:
        """What it weighs in the cache, in bytes."""
        return len(self.body) + len(self.gzip or b"")
