"""What many ask for and few should fetch: one answer for a moment, one fetch at a time, and nobody waits for long."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """The answer of `ask`, at most `seconds` old.

    However many ask, `ask` runs once at a time, and again at the earliest `seconds` after it ended; an exception is an
    answer, too. One that hangs is waited for until `patience` seconds after it began, and not begun again. Nobody's
    cancellation ends it but `close`.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], *, seconds: float = 1.0, patience: float = 2.5) -> None:
        self._ask = ask
        self._seconds = seconds
        self._patience = patience
        self._task: asyncio.Task[T] | None = None
        self._began_at = 0.0
        self._ended_at = 0.0

    async def get(self) -> T:
        """Raises TimeoutError when the answer does not come in time, and what `ask` raises."""
        task = self._task
        if task is None or (task.done() and time.monotonic() - self._ended_at >= self._seconds):
            task = self._begin()
        if not task.done():
            left = self._began_at + self._patience - time.monotonic()
            # Not wait_for, which would cancel it.
            await asyncio.wait([task], timeout=max(0.0, left))
        if not task.done():
            raise TimeoutError
        return task.result()

    async def close(self) -> None:
        """Ends what is running."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _begin(self) -> "asyncio.Task[T]":
        self._began_at = time.monotonic()
        # In a context of its own: the correlation id and the deadline of the first who asks are not everybody's.
        self._task = asyncio.get_running_loop().create_task(_awaited(self._ask), context=Context())
        self._task.add_done_callback(self._end)
        return self._task

    def _end(self, task: "asyncio.Task[Any]") -> None:
        self._ended_at = time.monotonic()
        if not task.cancelled():
            task.exception()  # seen: everybody may have left meanwhile


async def _awaited(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()
