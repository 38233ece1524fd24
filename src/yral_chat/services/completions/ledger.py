"""Answers without a conversation while they are written: how many there are, and what they cost."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from loguru import logger

from yral_chat.clients.language_model import ModelCall
from yral_chat.core import deadlines
from yral_chat.core.errors import AppError
from yral_chat.core.ids import new_id
from yral_chat.core.metrics import Metrics
from yral_chat.db.database import Database
from yral_chat.services.turns.accepting import too_many
from yral_chat.services.turns.ending import RECORD_JOB
from yral_chat.services.turns.engine import count_tokens


class Entry:
    """One answer: `calls` are the vendor's, the judge's are in `judging`."""

    def __init__(self, user_id: str, influencer_id: str) -> None:
        self.user_id = user_id
        self.influencer_id = influencer_id
        self.calls: list[ModelCall] = []
        self.judging: list[ModelCall] = []
        self.started = time.monotonic()


class Ledger:
    """Every `enter` that returns is followed by one `leave`."""

    def __init__(
        self, database: Database, metrics: Metrics, *, most_per_user: int, wake_jobs: Callable[[], None]
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._most = most_per_user
        self._wake_jobs = wake_jobs
        self._in_progress: Counter[str] = Counter()  # by user
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._recording: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many are being written."""
        return self._in_progress.total()

    async def enter(self, user_id: str, influencer_id: str) -> Entry:
        """An answer begins. It counts with the user's turns: both are calls of the model that run.

        Raises TooManyTurns.
        """
        # A write, because PostgreSQL counts under a lock; nothing is written.
        turns = await self._database.write(lambda uow: uow.turns.count_of_user(user_id))
        if turns + self._in_progress[user_id] >= self._most:
            self._metrics.limit_refused("concurrent_turns")
            raise too_many(self._most)
        self._in_progress[user_id] += 1
        self._is_idle.clear()
        self._metrics.turns_in_progress.inc()
        return Entry(user_id, influencer_id)

    def first_token(self, entry: Entry) -> None:
        """The first text is there."""
        self._metrics.turn_first_token.observe(time.monotonic() - entry.started)

    async def leave(self, entry: Entry) -> None:
        """It ended, whatever way: what it has cost is written, also when nobody waits for that any more."""
        self._in_progress[entry.user_id] -= 1
        if not self._in_progress[entry.user_id]:
            del self._in_progress[entry.user_id]
        if not self._in_progress:
            self._is_idle.set()
        self._count(entry)
        if entry.calls or entry.judging:
            task = asyncio.create_task(self._record(entry))
            self._recording.add(task)
            task.add_done_callback(self._recording.discard)
            await asyncio.shield(task)

    def _count(self, entry: Entry) -> None:
        metrics, seconds = self._metrics, time.monotonic() - entry.started
        metrics.turns_in_progress.dec()
        count_tokens(metrics, entry.calls + entry.judging)
        if entry.calls:
            last = entry.calls[-1]
            metrics.turn_finished(last.provider, last.model, last.outcome or "cancelled", seconds)
        else:
            metrics.turn_finished("none", "none", "not_asked", seconds)

    async def _record(self, entry: Entry) -> None:
        """Through the job that records turns; there is no turn and no conversation."""
        payload: dict[str, Any] = {
            "turn_id": new_id(),
            "attempt": 1,
            "user_id": entry.user_id,
            "influencer_id": entry.influencer_id,
            "conversation_id": "",
            "listed": 0,
            "calls": [msgspec.to_builtins(call) for call in entry.calls + entry.judging],
        }
        try:
            with deadlines.owed():
                await self._database.write(lambda uow: uow.jobs.add(RECORD_JOB, payload))
            self._wake_jobs()
        except AppError as error:  # a database that is away must not take the answer from whoever waits for it
            logger.error("completion.usage_not_recorded", error=error.code)

    async def drain(self, seconds: float) -> None:
        """Lets what runs end within `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_idle.wait()

    async def close(self) -> None:
        """Waits until all costs are written."""
        await asyncio.gather(*self._recording)
