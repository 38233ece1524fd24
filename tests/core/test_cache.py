"""The cache computes once, forgets in time and never keeps what was dropped while it was being read."""

import asyncio
import gc
import gzip
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yral_chat.core import deadlines
from yral_chat.core.cache import EncodedBody, LRUCache

Reply = tuple[str | None, int]


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Source:
    """Stands for what is slow to read: counts the reads, and holds them back until `gate` is set."""

    def __init__(self, *values: str | None, size: int = 1, is_open: bool = True) -> None:
        self._values = list(values)
        self._size = size
        self.reads = 0
        self.gate = asyncio.Event()
        self.has_begun = asyncio.Event()
        if is_open:
            self.gate.set()

    async def __call__(self) -> Reply:
        value = self._values[min(self.reads, len(self._values) - 1)]
        self.reads += 1
        self.has_begun.set()
        await self.gate.wait()
        return value, self._size


def constant(value: str | None, size: int = 1) -> Callable[[], Awaitable[Reply]]:
    async def load() -> Reply:
        return value, size

    return load


async def test_a_hundred_concurrent_misses_compute_once() -> None:
    cache, source = LRUCache(), Source("value", is_open=False)
    callers = [asyncio.create_task(cache.get("key", source)) for _ in range(100)]
    await source.has_begun.wait()
    source.gate.set()
    assert await asyncio.gather(*callers) == ["value"] * 100
    assert source.reads == 1
    assert await cache.get("key", source) == "value"
    assert (cache.counters().hits, cache.counters().misses) == (1, 100)


async def test_a_failed_load_reaches_every_caller_and_is_not_kept() -> None:
    cache = LRUCache()
    gate, reads = asyncio.Event(), 0

    async def failing() -> Reply:
        nonlocal reads
        reads += 1
        await gate.wait()
        raise ConnectionError("gone")

    callers = [asyncio.create_task(cache.get("key", failing)) for _ in range(10)]
    await asyncio.sleep(0)
    gate.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionError] * 10
    assert reads == 1
    assert await cache.get("key", constant("recovered")) == "recovered"


async def test_a_cancelled_caller_does_not_cancel_the_load_of_the_others() -> None:
    cache, source = LRUCache(), Source("value", is_open=False)
    first = asyncio.create_task(cache.get("key", source))
    second = asyncio.create_task(cache.get("key", source))
    await source.has_begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert await second == "value"
    assert source.reads == 1


async def test_a_load_whose_every_caller_left_is_finished_and_kept() -> None:
    cache, source = LRUCache(), Source("value", "second", is_open=False)
    only = asyncio.create_task(cache.get("key", source))
    await source.has_begun.wait()
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    source.gate.set()
    assert await cache.get("key", source) == "value"
    assert source.reads == 1


async def test_a_load_that_fails_after_every_caller_left_disturbs_nobody() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    cache, gate, has_ended = LRUCache(), asyncio.Event(), asyncio.Event()

    async def failing() -> Reply:
        try:
            await gate.wait()
            raise ConnectionError
        finally:
            has_ended.set()

    only = asyncio.create_task(cache.get("key", failing))
    await asyncio.sleep(0)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    gate.set()
    await has_ended.wait()
    await asyncio.sleep(0)
    gc.collect()  # an exception that nobody has seen complains when its task is collected
    assert complaints == []


async def test_a_value_lives_for_its_time_and_is_then_read_again() -> None:
    clock = Clock()
    cache, source = LRUCache(ttl_seconds=300, clock=clock), Source("old", "new")
    assert await cache.get("key", source) == "old"
    clock.seconds += 299.9
    assert await cache.get("key", source) == "old"
    clock.seconds += 0.1
    assert await cache.get("key", source) == "new"


async def test_a_key_may_have_a_time_of_its_own() -> None:
    clock = Clock()
    cache, source = LRUCache(ttl_seconds=300, clock=clock), Source("old", "new")
    await cache.get("key", source, ttl_seconds=10)
    clock.seconds += 10
    assert await cache.get("key", source) == "new"


async def test_absence_is_remembered_for_a_short_time_only() -> None:
    clock = Clock()
    cache, source = LRUCache(ttl_seconds=300, absent_ttl_seconds=5, clock=clock), Source(None, "made since")
    assert await cache.get("key", source, ttl_seconds=200) is None
    clock.seconds += 4.9
    assert await cache.get("key", source) is None
    clock.seconds += 0.1
    assert await cache.get("key", source) == "made since"


async def test_the_least_recently_used_goes_when_there_are_too_many() -> None:
    cache = LRUCache(max_items=2)
    for key in ("a", "b"):
        await cache.get(key, constant(key))
    await cache.get("a", constant("unused"))
    await cache.get("c", constant("c"))
    assert await cache.get("a", constant("read again")) == "a"
    assert await cache.get("b", constant("read again")) == "read again"
    assert cache.counters().evictions == 2


async def test_bytes_are_bounded_and_too_large_a_value_is_not_kept() -> None:
    cache = LRUCache(max_bytes=100)
    await cache.get("a", constant("a", 60))
    await cache.get("b", constant("b", 60))
    assert (cache.counters().items, cache.counters().bytes) == (1, 60)
    assert await cache.get("huge", constant("huge", 101)) == "huge"
    assert (cache.counters().items, cache.counters().bytes) == (1, 60)


async def test_a_dropped_key_is_read_again() -> None:
    cache, source = LRUCache(), Source("old", "new")
    await cache.get("key", source)
    cache.drop("key")
    assert cache.counters().bytes == 0
    assert await cache.get("key", source) == "new"


async def test_a_drop_during_a_load_keeps_its_result_out() -> None:
    cache, stale, fresh = LRUCache(), Source("stale", is_open=False), Source("fresh")
    before = asyncio.create_task(cache.get("key", stale))
    await stale.has_begun.wait()
    cache.drop("key")
    assert await cache.get("key", fresh) == "fresh"
    stale.gate.set()
    assert await before == "stale"
    assert await cache.get("key", stale) == "fresh"


async def test_drop_prefix_takes_its_keys_and_running_loads_and_no_others() -> None:
    cache, stale = LRUCache(), Source("stale", is_open=False)
    await cache.get("list:1", constant("old"))
    await cache.get("one:1", constant("kept"))
    running = asyncio.create_task(cache.get("list:2", stale))
    await stale.has_begun.wait()
    cache.drop_prefix("list:")
    stale.gate.set()
    assert await running == "stale"
    assert await cache.get("list:1", constant("new")) == "new"
    assert await cache.get("list:2", constant("new")) == "new"
    assert await cache.get("one:1", constant("new")) == "kept"


async def test_close_ends_what_is_running() -> None:
    cache, source = LRUCache(), Source("never", is_open=False)
    caller = asyncio.create_task(cache.get("key", source))
    await source.has_begun.wait()
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await caller


Step = tuple[str, str, int]
STEPS = st.lists(st.tuples(st.sampled_from(["get", "drop", "later"]), st.sampled_from("abcdef"), st.integers(0, 60)))


@given(STEPS)
@settings(max_examples=100)
def test_its_bounds_hold_whatever_is_done(steps: list[Step]) -> None:
    async def run() -> None:
        clock = Clock()
        cache = LRUCache(max_items=3, max_bytes=100, ttl_seconds=30, clock=clock)
        for action, key, number in steps:
            if action == "get":
                assert await cache.get(key, constant(key, number)) == key
            elif action == "drop":
                cache.drop(key)
            else:
                clock.seconds += number
            counters = cache.counters()
            assert counters.items <= 3
            assert 0 <= counters.bytes <= 100

    asyncio.run(run())


async def test_a_load_is_owed_to_all_who_wait_for_it() -> None:
    """A running turn among them, which must not fail because the request in front of it is out of time."""

    async def load() -> tuple[bool, int]:
        return deadlines.current() is None, 1

    mark = deadlines.begin(30.0)
    assert await LRUCache().get("key", load)
    assert deadlines.current() is not None, "the request's own deadline stays"
    deadlines.end(mark)


def test_a_body_of_1_kib_is_compressed_once_and_a_smaller_one_never() -> None:
    assert EncodedBody.of(b"x" * 1023).gzip is None
    packed = EncodedBody.of(b"x" * 1024).gzip
    assert packed is not None
    assert gzip.decompress(packed) == b"x" * 1024


def test_compression_that_gains_nothing_is_left_out() -> None:
    assert EncodedBody.of(random.Random(1).randbytes(2048)).gzip is None


def test_the_etag_is_quoted_and_follows_the_content() -> None:
    one, same, other = EncodedBody.of(b"one"), EncodedBody.of(b"one"), EncodedBody.of(b"other")
    assert one == same
    assert one.etag != other.etag
    assert one.etag[0] == one.etag[-1] == '"'
    assert one.size == 3
