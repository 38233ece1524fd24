"""What the count of one request costs, and what a crowd of addresses leaves in memory."""

import time
import tracemalloc
from collections.abc import Iterable

from benchmarks.rig import Rig, median_of
from yral_chat.core.rate_limits import Limit, MemoryRateLimits

LIMIT = Limit.of(60, 1000)
CALLERS = 1000


async def measure(rig: Rig) -> dict[str, float]:
    """Microseconds of CPU for a known caller and for a new one when no room is left, and megabytes at their peak."""
    counts = rig.counts
    known = MemoryRateLimits()
    callers = [_address(number) for number in range(CALLERS)]
    repeated = [callers[number % CALLERS] for number in range(counts.rate_checks)]
    crowded = MemoryRateLimits()
    numbers = iter(range(10**9))

    async def of_known() -> float:
        return await _cpu(known, repeated)

    async def of_new() -> float:
        return await _cpu(crowded, [_address(next(numbers)) for _ in range(counts.rate_checks)])

    await _cpu(crowded, (_address(next(numbers)) for _ in range(counts.rate_keys // 5)))
    return {
        "rate_check": await median_of(counts.rounds, of_known) * 1e6,
        "rate_check_new": await median_of(counts.rounds, of_new) * 1e6,
        "rate_memory": await _peak(counts.rate_keys) / 1e6,
    }


async def _cpu(buckets: MemoryRateLimits, keys: Iterable[str]) -> float:
    """Seconds of CPU for each."""
    count = 0
    started = time.process_time()
    for key in keys:
        await buckets.take(key, LIMIT)
        count += 1
    return (time.process_time() - started) / max(1, count)


async def _peak(keys: int) -> float:
    """The most bytes that so many callers take at a time."""
    tracemalloc.start()
    try:
        buckets = MemoryRateLimits()
        for number in range(keys):
            await buckets.take(_address(number), LIMIT)
        return float(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def _address(number: int) -> str:
    return f"standard:address:{number:016x}::/64"
