"""The line in front of the database threads: who may join it, and for whom it is too late.

A unit with a deadline belongs to a client that waits for it (core/deadlines.py): it is refused while the line is full,
and dropped when its caller has given up before it began. A unit without one is owed: it ends turns, renews leases,
records usage. It is never refused, and bounded by what was accepted before.
"""

import time
from collections import deque
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from yral_chat.core import deadlines
from yral_chat.core.errors import Overloaded
from yral_chat.db.database import Waiting, Work

W = TypeVar("W", bound=Work)

# Units of clients in one line. On SQLite they take a tenth of a second, on a slow disk or server a second.
MAX_WAITING = 1000
# A unit takes milliseconds, seconds on a bad day. A server that says nothing for so long is left: there are clients
# who wait, and give up at 30 s.
SILENCE_SECONDS = 15.0


class Line(Generic[W]):
    """First come, first served. `join` belongs to the event loop, `take` and `take_more` to the threads."""

    def __init__(self, most: int) -> None:
        self._most = most  # clients' units; others may join beyond it
        self._queue: SimpleQueue[W | None] = SimpleQueue()
        # When those that wait joined. Threads that take at the same moment may swap two: nobody needs it finer.
        self._joined: deque[float] = deque()

    def join(self, work: W) -> None:
        """Raises Overloaded when `work` is a client's and the line is full."""
        work.deadline = deadlines.current()
        if work.deadline is not None and len(self._joined) >= self._most:
            raise Overloaded("database_queue")
        self._joined.append(time.monotonic())
        self._queue.put(work)

    def end(self, threads: int = 1) -> None:
        """So many threads get None once everybody before was taken."""
        for _ in range(threads):
            self._queue.put(None)

    def take(self) -> W | None:
        """Waits for the next; None when the line has ended."""
        work = self._queue.get()
        if work is not None:
            self._joined.popleft()
        return work

    def take_more(self, first: W, most: int) -> tuple[list[W], bool]:
        """`first` and what waits behind it, and whether the line has ended."""
        group = [first]
        while len(group) < most:
            try:
                work = self._queue.get_nowait()
            except Empty:
                break
            if work is None:
                return group, True
            self._joined.popleft()
            group.append(work)
        return group, False

    def waiting(self) -> Waiting:
        """How many wait, and how long the first of them has, in seconds."""
        try:
            return Waiting(len(self._joined), time.monotonic() - self._joined[0])
        except IndexError:
            return Waiting(0, 0.0)


def begin(group: Iterable[W]) -> list[W]:
    """Those of `group` that somebody still waits for; the others fail without having run."""
    time_now = time.monotonic()
    wanted = []
    for work in group:
        if work.deadline is None:
            wanted.append(work)
        elif work.future.cancelled():
            continue  # nobody is there to be told
        elif work.deadline <= time_now:
            work.fail(Overloaded("deadline"))
        else:
            wanted.append(work)
    return wanted
