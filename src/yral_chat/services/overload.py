"""Admission: whether the machine is behind, and new work had better come again in a moment (docs/decisions/0017)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from yral_chat.core.config import Settings
from yral_chat.core.errors import Overloaded
from yral_chat.db.database import Database

# How often the event loop is asked whether it is on time. A round of a busy loop takes milliseconds.
PULSE_SECONDS = 0.1


class Admission:
    """What begins work that takes long (replies, pictures, personas, uploads) calls `check` first; reads do not.

    The signal is waiting time: how long the first unit in a line of the database has waited, and by how much the
    event loop is late. Both are a few milliseconds until something is behind, whatever the machine.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        count_turns: Callable[[], int],
        *,
        observe_lateness: Callable[[float], None],
    ) -> None:
        """`observe_lateness` is told after each pulse how late it was, in seconds."""
        self._observe_lateness = observe_lateness
        self._most_turns = settings.max_turns
        self._seconds = settings.overload_seconds
        self._database = database
        self._count_turns = count_turns
        self._pulse: asyncio.Task[None] | None = None
        self._due = 0.0  # `loop.time()` of the next pulse
        self._late = 0.0  # by so many seconds the last pulse was

    def check(self) -> None:
        """Raises Overloaded."""
        if self._count_turns() >= self._most_turns:
            raise Overloaded("turns")
        if any(line.seconds > self._seconds for line in self._database.waiting().values()):
            raise Overloaded("database_wait")
        if self.lateness() > self._seconds:
            raise Overloaded("event_loop")

    def lateness(self) -> float:
        """By how many seconds the event loop is behind, at its last pulse or right now."""
        if self._pulse is None:
            return 0.0
        return max(self._late, asyncio.get_running_loop().time() - self._due)

    def start(self) -> None:
        self._due = asyncio.get_running_loop().time() + PULSE_SECONDS
        self._pulse = asyncio.create_task(self._beat(), name="overload.pulse")

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._due = loop.time() + PULSE_SECONDS
            await asyncio.sleep(PULSE_SECONDS)
            self._late = loop.time() - self._due
            self._observe_lateness(self._late)

    async def close(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            with suppress(asyncio.CancelledError):
                await self._pulse
