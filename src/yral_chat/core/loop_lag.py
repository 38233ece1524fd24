"""How late the event loop is: what every request waits for when the process has more to do than it can."""

import asyncio
from collections.abc import Callable

# Two wake-ups a second cost nothing, and a stall of a second is seen by at least one of them.
INTERVAL_SECONDS = 0.5


class LoopLag:
    """Asks to be called at a time, and sees how much later that was. `seconds` is the last figure."""

    def __init__(self, observe: Callable[[float], None], interval_seconds: float = INTERVAL_SECONDS) -> None:
        self.seconds = 0.0
        self._observe = observe
        self._interval = interval_seconds
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins in the running loop."""
        self._schedule(asyncio.get_running_loop())

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval
        self._handle = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.seconds = max(0.0, loop.time() - due)
        self._observe(self.seconds)
        self._schedule(loop)
