"""Services on a real database."""

import time
from collections.abc import Iterator

import pytest

from tests.db.conftest import database, database_url
from yral_chat.core import clock

__all__ = ["database", "database_url"]


@pytest.fixture
def _still() -> Iterator[None]:
    """The clock stands still: nothing becomes due, however long the test takes."""
    time_now = time.time_ns()
    clock.use(lambda: time_now)
    yield
    clock.use(time.time_ns)
