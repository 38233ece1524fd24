"""Answers without a conversation while they are written: how many there are, and what they cost."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

from yral_chat.clients.language_model import ModelCall
from yral_chat.core.errors import QuotaExceeded, TooManyTurns
from yral_chat.core.metrics import Metrics
from yral_chat.db.database import UnitOfWork
from yral_chat.services.turns.accepting import too_many
from yral_chat.services.usage import Bound, Tab, Tabs


class Entry:
    """One answer: `calls` are the vendor's, the judge's are in `judging`."""

    def __init__(self, user_id: str, influencer_id: str) -> None:
        self.user_id = user_id
        self.tab = Tab(user_id, influencer_id, turns=1)
        self.calls: list[ModelCall] = []
        self.judging: list[ModelCall] = []
        self.started = time.monotonic()


class Ledger:
    """Every `enter` that returns is followed by one `leave`."""

    def __init__(self, metrics: Metrics, tabs: Tabs, *, most_per_user: int) -> None:
        self._metrics = metrics
        self._tabs = tabs
        self._most = most_per_user
        self._in_progress: Counter[str] = Counter()  # by user
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def __len__(self) -> int:
        """How many are being written."""
        return self._in_progress.total()

    async def enter(self, user_id: str, influencer_id: str, bound: Bound) -> Entry:
        """An answer begins, which uses `bound` at most. It counts with the user's turns: both are calls of the model
        that run.

        Raises TooManyTurns, QuotaExceeded.
        """
        entry = Entry(user_id, influencer_id)
        most = self._most - self._in_progress[user_id]

        def check(uow: UnitOfWork) -> None:
            if uow.turns.count_of_user(user_id) >= most:
                raise too_many(self._most)

        self._begin(user_id)  # before it waits: those that ask at the same time count
        try:
            await self._tabs.open(entry.tab, bound, check)
        except BaseException as error:
            self._end(user_id)
            if isinstance(error, TooManyTurns | QuotaExceeded):
                self._metrics.limit_refused(error.details["limit_type"])
            raise
        self._metrics.turns_in_progress.inc()
        return entry

    def first_token(self, entry: Entry) -> None:
        """The first text is there."""
        self._metrics.turn_first_token.observe(time.monotonic() - entry.started)

    async def leave(self, entry: Entry) -> None:
        """It ended, whatever way: what it has cost is written, also when nobody waits for that any more."""
        self._end(entry.user_id)
        self._count(entry)
        entry.tab.calls += entry.calls + entry.judging
        await self._tabs.close(entry.tab)

    def _begin(self, user_id: str) -> None:
        self._in_progress[user_id] += 1
        self._is_idle.clear()

    def _end(self, user_id: str) -> None:
        self._in_progress[user_id] -= 1
        if not self._in_progress[user_id]:
            del self._in_progress[user_id]
        if not self._in_progress:
            self._is_idle.set()

    def _count(self, entry: Entry) -> None:
        metrics, seconds = self._metrics, time.monotonic() - entry.started
        metrics.turns_in_progress.dec()
        if entry.calls:
            last = entry.calls[-1]
            metrics.turn_finished(last.provider, last.model, last.outcome or "cancelled", seconds)
        else:
            metrics.turn_finished("none", "none", "not_asked", seconds)

    async def drain(self, seconds: float) -> None:
        """Lets what runs end within `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_idle.wait()
