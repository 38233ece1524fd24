"""Waiting for conditions instead of for time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


async def until(look: Callable[[], Awaitable[T | None]], *, what: str, seconds: float = 60.0) -> T:
    """Looks again and again until what it sees is true; returns that. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}; last seen: {seen!r}"
        await asyncio.sleep(POLL_SECONDS)


async def room_in(period: float, seconds: float) -> None:
    """Returns when at least so many seconds are left of this `period` of the clock, as of a minute (60), or a day in
    UTC (86,400): for what has to fall into one of them.
    """
    room = there(lambda: period - time.time() % period >= seconds)
    await until(room, what="the next one to begin", seconds=2 * seconds)


def there(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    """A plain look as `until` wants it."""

    async def seen() -> bool:
        return look()

    return seen
