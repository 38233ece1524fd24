"""Token buckets: exact against a reference, whatever the clock does, and bounded however many ask."""

import asyncio
import tracemalloc
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yral_chat.core.rate_limits import MAX_KEYS, Limit, MemoryRateLimits, Verdict

SECOND = 1_000_000_000
HOUR = 3600 * SECOND

SMALL = st.integers(1, 12)
LIMITS = st.builds(Limit.of, SMALL, st.integers(1, 30))
# Nothing, moments, about a token, and a clock that is set an hour forth or back.
STEPS = st.one_of(
    st.just(0), st.integers(1, 1000), st.integers(1, 20 * SECOND), st.integers(1, 20).map(lambda n: n * 5 * SECOND),
    st.sampled_from([HOUR, -HOUR, -SECOND]),
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 7 * HOUR

    def __call__(self) -> int:
        return self.now


class Reference:
    """One key's two buckets as one would explain them: tokens that drip in, at most `limit` of them."""

    def __init__(self, limit: Limit) -> None:
        self._rates = (Fraction(1, limit.minute_token_ns), Fraction(1, limit.hour_token_ns))
        self._capacities = (limit.per_minute, limit.per_hour)
        self.tokens: list[Fraction] = [Fraction(capacity) for capacity in self._capacities]

    def elapse(self, nanoseconds: int) -> None:
        self.tokens = [
            min(Fraction(capacity), tokens + nanoseconds * rate)
            for tokens, rate, capacity in zip(self.tokens, self._rates, self._capacities, strict=True)
        ]

    def take(self) -> bool:
        if min(self.tokens) < 1:
            return False
        self.tokens = [tokens - 1 for tokens in self.tokens]
        return True

    def remaining(self) -> list[int]:
        return [int(tokens) for tokens in self.tokens]

    def seconds_to(self, wanted: tuple[int, int]) -> list[int]:
        """Until each bucket has so many."""
        return [
            -int(-max(Fraction(0), want - tokens) / rate // SECOND)
            for want, tokens, rate in zip(wanted, self.tokens, self._rates, strict=True)
        ]


def drained(buckets: MemoryRateLimits, key: str, limit: Limit) -> int:
    """How many of a hundred requests in one moment pass."""
    return sum(verdict.refused is None for verdict in asyncio.run(ask(buckets, [key] * 100, limit)))


async def ask(buckets: MemoryRateLimits, keys: list[str], limit: Limit) -> list[Verdict]:
    return [await buckets.take(key, limit) for key in keys]


@given(limit=LIMITS, steps=st.lists(st.tuples(STEPS, st.sampled_from("abc"), st.integers(1, 15)), max_size=40))
def test_every_verdict_is_that_of_the_reference(limit: Limit, steps: list[tuple[int, str, int]]) -> None:
    clock = Clock()
    buckets = MemoryRateLimits(clock=clock)
    references = {key: Reference(limit) for key in "abc"}
    for step, key, times in steps:
        clock.now += step
        for reference in references.values():
            reference.elapse(max(0, step))
        for verdict in asyncio.run(ask(buckets, [key] * times, limit)):
            reference = references[key]
            is_taken = reference.take()
            assert (verdict.refused is None) == is_taken
            assert [verdict.remaining_minute, verdict.remaining_hour] == reference.remaining()
            capacities = (limit.per_minute, limit.per_hour)
            assert [verdict.full_in_minute, verdict.full_in_hour] == reference.seconds_to(capacities)
            assert verdict.retry_after == (0 if is_taken else max(reference.seconds_to((1, 1))))
            if not is_taken:
                minute, hour = reference.tokens
                assert (minute if verdict.refused == "per_minute" else hour) < 1


@given(per_minute=st.integers(1, 90), per_hour=st.integers(1, 90), at=st.integers(0, HOUR))
def test_as_many_pass_at_once_as_the_limit_says(per_minute: int, per_hour: int, at: int) -> None:
    clock = Clock()
    clock.now += at
    assert drained(MemoryRateLimits(clock=clock), "a", Limit.of(per_minute, per_hour)) == min(per_minute, per_hour)


@given(limit=LIMITS, early=st.integers(1, SECOND))
def test_waiting_as_told_is_enough(limit: Limit, early: int) -> None:
    clock = Clock()
    buckets = MemoryRateLimits(clock=clock)
    drained(buckets, "a", limit)
    [refusal] = asyncio.run(ask(buckets, ["a"], limit))
    assert refusal.retry_after >= 1
    clock.now += (refusal.retry_after - 1) * SECOND - early
    if clock.now > 7 * HOUR:
        assert asyncio.run(buckets.look("a", limit)).refused == refusal.refused
    clock.now += SECOND + early
    assert asyncio.run(buckets.take("a", limit)).refused is None


def test_a_refusal_by_one_bucket_takes_nothing_from_the_other() -> None:
    clock = Clock()
    buckets = MemoryRateLimits(clock=clock)
    limit = Limit.of(2, 5)
    assert drained(buckets, "a", limit) == 2
    clock.now += 60 * SECOND
    assert drained(buckets, "a", limit) == 2
    clock.now += 60 * SECOND
    # One of the hour is left, and no refusal has taken it.
    last, refusal = asyncio.run(ask(buckets, ["a", "a"], limit))
    assert last.refused is None
    assert (refusal.refused, refusal.remaining_minute, refusal.remaining_hour) == ("per_hour", 1, 0)
    assert refusal.retry_after == 720 - 120


def test_the_bucket_that_takes_longest_is_named() -> None:
    verdicts = asyncio.run(ask(MemoryRateLimits(clock=Clock()), ["a"] * 3, Limit.of(2, 2)))
    assert [verdict.refused for verdict in verdicts] == [None, None, "per_hour"]
    assert verdicts[-1].retry_after == 1800


def test_looking_takes_nothing() -> None:
    buckets = MemoryRateLimits(clock=Clock())
    limit = Limit.of(1, 5)
    for _ in range(3):
        assert asyncio.run(buckets.look("a", limit)).refused is None
    assert len(buckets) == 0
    assert asyncio.run(buckets.take("a", limit)).refused is None
    assert asyncio.run(buckets.look("a", limit)).refused == "per_minute"


def test_a_clock_that_is_set_back_locks_nobody_out_and_gives_nothing_away() -> None:
    clock = Clock()
    buckets = MemoryRateLimits(clock=clock)
    limit = Limit.of(60, 1000)
    assert drained(buckets, "a", limit) == 60
    clock.now -= HOUR
    assert drained(buckets, "a", limit) == 0
    clock.now += SECOND
    assert drained(buckets, "a", limit) == 1
    clock.now += 2 * HOUR
    assert drained(buckets, "a", limit) == 60


@given(
    cap=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from([0, SECOND, 5 * SECOND, HOUR]), st.integers(0, 12)), max_size=80),
)
def test_there_are_never_more_keys_than_the_cap(cap: int, steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    buckets = MemoryRateLimits(max_keys=cap, clock=clock)
    for step, key in steps:
        clock.now += step
        asyncio.run(buckets.take(str(key), Limit.of(3, 7)))
        assert 1 <= len(buckets) <= cap


def test_a_crowd_of_addresses_does_not_reset_whoever_is_at_his_limit() -> None:
    buckets = MemoryRateLimits(max_keys=100, clock=Clock())
    limit = Limit.of(60, 1000)
    assert drained(buckets, "attacker", limit) == 60
    for round_ in range(30):
        asyncio.run(ask(buckets, [f"address {round_} {number}" for number in range(100)], limit))
        assert asyncio.run(buckets.look("attacker", limit)).refused == "per_minute"


def test_full_buckets_are_forgotten_as_others_ask() -> None:
    clock = Clock()
    buckets = MemoryRateLimits(clock=clock)
    limit = Limit.of(60, 1000)
    asyncio.run(ask(buckets, [f"early {number}" for number in range(50)], limit))
    assert len(buckets) == 50
    clock.now += 10 * SECOND
    asyncio.run(ask(buckets, ["late"] * 30, limit))
    assert len(buckets) == 1


def test_long_keys_are_told_apart() -> None:
    buckets = MemoryRateLimits(clock=Clock())
    limit = Limit.of(1, 1)
    first, second, again = asyncio.run(ask(buckets, ["x" * 300, "x" * 299 + "\ud800", "x" * 300], limit))
    assert [first.refused, second.refused, again.refused] == [None, None, "per_hour"]


@pytest.mark.long
def test_a_million_keys_take_at_most_50_megabytes() -> None:
    buckets = MemoryRateLimits(clock=Clock())

    async def crowd() -> None:
        limit = Limit.of(60, 1000)
        for number in range(1_000_000):
            await buckets.take(f"standard:address:{number:08x}::/64", limit)

    tracemalloc.start()
    try:
        asyncio.run(crowd())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(buckets) == MAX_KEYS
    assert peak < 50e6
