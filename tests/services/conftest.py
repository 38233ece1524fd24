"""Services on a real database, and clocks that are set."""

import time
from collections.abc import Iterator

import pytest

from tests.db.conftest import database, database_url
from yral_chat.core import clock

__all__ = ["database", "database_url"]


class StillClock:
    """Stands still at `micros`, until that is set: nothing becomes due, however long a test takes."""

    def __init__(self) -> None:
        self.micros = clock.now()

    def __call__(self) -> int:
        return self.micros * 1000


@pytest.fixture
def still() -> Iterator[StillClock]:
    made = StillClock()
    clock.use(made)
    yield made
    clock.use(time.time_ns)


@pytest.fixture
def moved() -> Iterator[list[int]]:
    """Seconds by which somebody has set the clock; the last one counts."""
    offsets = [0]
    clock.use(lambda: time.time_ns() + offsets[-1] * 1_000_000_000)
    yield offsets
    clock.use(time.time_ns)
