"""How often somebody may ask: two token buckets per key, and where they are kept (contract section 4)."""

import hashlib
import heapq
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol, Self

import msgspec

LimitType = Literal["per_minute", "per_hour"]

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
MAX_KEYS: Final = 100_000
# A longer one is kept as its hash, so that the bound on keys is one on memory.
MAX_KEY_CHARACTERS: Final = 80

_SECOND: Final = 1_000_000_000


class Limit(msgspec.Struct, frozen=True):
    """So many requests a minute and an hour. Made by `of`; the other two are the times to refill one token, in ns."""

    per_minute: int
    per_hour: int
    minute_token_ns: int
    hour_token_ns: int

    @classmethod
    def of(cls, per_minute: int, per_hour: int) -> Self:
        """Whole nanoseconds, rounded down: exact counts, and a refill that is too fast by at most one in 60,000."""
        return cls(per_minute, per_hour, MINUTE_SECONDS * _SECOND // per_minute, HOUR_SECONDS * _SECOND // per_hour)


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of one request. `refused` names the bucket that kept it back longest, and nothing was charged.

    `remaining_…` are whole tokens, `full_in_…` the seconds until the bucket is full again, rounded up. `retry_after`,
    at least 1 where it was refused, is when both buckets will have a token.
    """

    limit: Limit
    remaining_minute: int
    remaining_hour: int
    full_in_minute: int
    full_in_hour: int
    refused: LimitType | None = None
    retry_after: int = 0


class RateLimits(Protocol):
    """Where the buckets are. A shared store does both steps of `take` in one, as a script of its own."""

    async def take(self, key: str, limit: Limit) -> Verdict:
        """Takes a token from both buckets of `key`, or from none. One key always comes with the same limit."""
        ...

    async def look(self, key: str, limit: Limit) -> Verdict:
        """What `take` would say, and nothing is taken."""
        ...


class _Buckets(msgspec.Struct, gc=False):
    """When each will be full, and the second under which the key is filed. What is missing is the time until then."""

    minute_full_at: int
    hour_full_at: int
    second: int


class MemoryRateLimits:
    """The buckets of one process. For one event loop: `take` never waits, so that it is exact under concurrency.

    A full bucket equals an absent one and is forgotten. Beyond `max_keys` those that would be full soonest go first:
    a reset then gives back as few tokens as possible. To have a bucket of his forgotten from which he took n tokens,
    an attacker needs `max_keys` other addresses with as many requests each, and so many requests he was free to make
    with those addresses anyway. (Were the oldest to go, one request from each would do; were new ones refused, the
    first to come with many addresses would lock out everybody else.)

    The clock gives nanoseconds. Where it goes back, no time has passed; a jump ahead refills, and no more than that.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._read_at = clock()
        self._now = 0
        self._buckets: dict[str, _Buckets] = {}
        # The keys by the second in which their buckets are full, and a heap of these seconds.
        self._filed: dict[int, dict[str, None]] = {}
        self._seconds: list[int] = []

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._buckets)

    async def take(self, key: str, limit: Limit) -> Verdict:
        return self._decide(key, limit, is_charged=True)

    async def look(self, key: str, limit: Limit) -> Verdict:
        return self._decide(key, limit, is_charged=False)

    def _decide(self, key: str, limit: Limit, *, is_charged: bool) -> Verdict:
        if len(key) > MAX_KEY_CHARACTERS:
            key = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        now = self._time()
        self._forget_full(now)
        held = self._buckets.get(key)
        # How much is missing, as the time that refills it.
        minute = hour = 0
        if held is not None:
            minute, hour = max(0, held.minute_full_at - now), max(0, held.hour_full_at - now)
        minute_wait = minute - (limit.per_minute - 1) * limit.minute_token_ns
        hour_wait = hour - (limit.per_hour - 1) * limit.hour_token_ns
        if minute_wait <= 0 and hour_wait <= 0:
            if is_charged:
                minute += limit.minute_token_ns
                hour += limit.hour_token_ns
                self._keep(key, held, now + minute, now + hour)
            return _verdict(limit, minute, hour, None, 0)
        refused: LimitType = "per_minute" if minute_wait > hour_wait else "per_hour"
        return _verdict(limit, minute, hour, refused, _seconds_up(max(minute_wait, hour_wait)))

    def _time(self) -> int:
        read_at = self._clock()
        if read_at > self._read_at:
            self._now += read_at - self._read_at
        self._read_at = read_at
        return self._now

    def _keep(self, key: str, held: _Buckets | None, minute_full_at: int, hour_full_at: int) -> None:
        second = max(minute_full_at, hour_full_at) // _SECOND
        if held is None:
            if len(self._buckets) >= self._max_keys:
                self._forget_one(self._soonest())
            self._buckets[key] = _Buckets(minute_full_at, hour_full_at, second)
            self._file(key, second)
            return
        held.minute_full_at = minute_full_at
        held.hour_full_at = hour_full_at
        if second != held.second:
            del self._filed[held.second][key]
            held.second = second
            self._file(key, second)

    def _file(self, key: str, second: int) -> None:
        filed = self._filed.get(second)
        if filed is None:
            filed = self._filed[second] = {}
            heapq.heappush(self._seconds, second)
        filed[key] = None

    def _forget_full(self, now: int) -> None:
        """Two at a time: as many leave as can come, and no request pays for a crowd."""
        this_second = now // _SECOND
        for _ in range(2):
            if not self._seconds or self._seconds[0] >= this_second:
                return
            soonest = self._soonest()
            if soonest is None or soonest >= this_second:
                return
            self._forget_one(soonest)

    def _soonest(self) -> int | None:
        """The first second in which buckets will be full, or None when there are no buckets."""
        while self._seconds:
            soonest = self._seconds[0]
            if self._filed[soonest]:
                return soonest
            heapq.heappop(self._seconds)
            del self._filed[soonest]
        return None

    def _forget_one(self, second: int | None) -> None:
        if second is not None:
            key, _ = self._filed[second].popitem()
            del self._buckets[key]


def _verdict(limit: Limit, minute: int, hour: int, refused: LimitType | None, retry_after: int) -> Verdict:
    """`minute` and `hour` are what is missing, in nanoseconds of refilling."""
    return Verdict(
        limit,
        limit.per_minute - -(-minute // limit.minute_token_ns),
        limit.per_hour - -(-hour // limit.hour_token_ns),
        _seconds_up(minute),
        _seconds_up(hour),
        refused,
        retry_after,
    )


def _seconds_up(nanoseconds: int) -> int:
    return -(-nanoseconds // _SECOND)
