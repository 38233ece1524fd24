"""How many requests of one user are worked on at once: the others wait behind their own, and nobody behind them."""

import asyncio
from collections import deque


class Shares:
    """At most `most` places for each key. A key without places or waiters takes no memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[str, int] = {}
        self._lines: dict[str, deque[asyncio.Future[bool]]] = {}

    def take_now(self, key: str) -> bool:
        """A place if one is free."""
        taken = self._taken.get(key, 0)
        if taken >= self._most:
            return False
        self._taken[key] = taken + 1
        return True

    async def take(self, key: str, seconds: float) -> bool:
        """A place as soon as one is free; False after `seconds` without one."""
        if self.take_now(key):
            return True
        loop = asyncio.get_running_loop()
        place: asyncio.Future[bool] = loop.create_future()
        line = self._lines.setdefault(key, deque())
        line.append(place)
        timer = loop.call_later(seconds, _give_up, place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.free(key)
            raise
        finally:
            timer.cancel()
            self._leave(key, line, place)

    def _leave(self, key: str, line: "deque[asyncio.Future[bool]]", place: "asyncio.Future[bool]") -> None:
        if place in line:
            line.remove(place)
        if not line and self._lines.get(key) is line:
            del self._lines[key]

    def free(self, key: str) -> None:
        """Gives a place back: to the first that waits, if any."""
        line = self._lines.get(key)
        while line:
            place = line.popleft()
            if not place.done():
                place.set_result(True)
                return
        taken = self._taken[key] - 1
        if taken:
            self._taken[key] = taken
        else:
            del self._taken[key]


def _give_up(place: "asyncio.Future[bool]") -> None:
    if not place.done():
        place.set_result(False)
