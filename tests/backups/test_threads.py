"""What blocks, beside the event loop."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from yral_chat.services.backups.threads import in_thread

SECONDS = 60


async def test_what_has_begun_also_ends_when_nobody_waits_for_it_any_more() -> None:
    """A database that is being made when the drill is ended would stay for ever."""
    has_begun, may_go_on = threading.Event(), threading.Event()
    steps: list[str] = []

    @contextmanager
    def slow() -> Iterator[None]:
        has_begun.set()
        may_go_on.wait(SECONDS)
        steps.append("begun")
        yield
        steps.append("ended")

    async def use() -> None:
        async with in_thread(slow()):
            steps.append("used")

    using = asyncio.create_task(use())
    await asyncio.to_thread(has_begun.wait, SECONDS)
    using.cancel()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert steps == ["begun", "ended"]
