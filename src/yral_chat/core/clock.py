"""Time, in one shape: integer microseconds since the epoch, UTC. Text only at the edge."""

import time
from datetime import UTC, datetime, timedelta

MILLISECOND = 1_000
SECOND = 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """The present as microseconds since the epoch."""
    return time.time_ns() // 1_000


def to_text(micros: int) -> str:
    """RFC 3339 with six fraction digits and Z: `2026-03-01T09:30:00.123456Z`."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds")[:26] + "Z"
