"""Time, in one shape: integer microseconds since the epoch, UTC. Text only at the edge."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

MILLISECOND = 1_000
SECOND = 1_000_000
DAY = 24 * 60 * 60 * SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTES_A_DAY = 24 * 60
_MINUTES = tuple(f"{minute // 60:02d}:{minute % 60:02d}" for minute in range(_MINUTES_A_DAY))


Source = Callable[[], int]

_source: Source = time.time_ns


def now() -> int:
    """The present as microseconds since the epoch.

    It may jump, when somebody sets the machine's clock: durations are measured with `time.monotonic()`.
    """
    return _source() // 1_000


def seconds_now() -> float:
    """The same in seconds."""
    return _source() / 1e9


def use(source: Source) -> None:
    """From now on the present is what `source` says, in nanoseconds: for tests that move the clock."""
    global _source
    _source = source


def day_of(micros: int) -> int:
    """The UTC day of a time, counted from the epoch."""
    return micros // DAY


@lru_cache(maxsize=1024)
def date_text(days: int) -> str:
    """The date of a day since the epoch: `2026-03-01`."""
    return (_EPOCH + timedelta(days=days)).date().isoformat()


def from_text(text: str) -> int:
    """The time that an RFC 3339 text names, with an offset or Z. Raises ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time needs an offset, or Z at its end")
    return (at - _EPOCH) // timedelta(microseconds=1)


def stamp(micros: int) -> str:
    """The second of a time, for the name of a file: `20260301T093000Z`."""
    return f"{_EPOCH + timedelta(microseconds=micros):%Y%m%dT%H%M%SZ}"


def to_text(micros: int) -> str:
    """RFC 3339 with six fraction digits and Z: `2026-03-01T09:30:00.123456Z`.

    A page of messages has a hundred times: datetime's own formatting takes three times as long.
    """
    seconds, fraction = divmod(micros, SECOND)
    minutes, second = divmod(seconds, 60)
    days, minute = divmod(minutes, _MINUTES_A_DAY)
    return f"{date_text(days)}T{_MINUTES[minute]}:{second:02d}.{fraction:06d}Z"
