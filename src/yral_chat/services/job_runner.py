"""Runs the jobs of the outbox in this process: leased, retried with backoff, kept when they cannot be done.

A handler gets a group of jobs of one name, does their work in a unit of work, and deletes the jobs in the same
unit: so a job that was done is gone, and one that was not is done again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from loguru import logger

from yral_chat.core.clock import SECOND, now
from yral_chat.core.errors import ServiceUnavailable
from yral_chat.db.database import Database
from yral_chat.db.repositories.jobs import Job

Handler = Callable[[list[Job]], Awaitable[None]]
Chore = Callable[[], Awaitable[None]]

LEASE_SECONDS = 60
GROUP = 200
MAX_ATTEMPTS = 8
# After a wake-up the runner waits this long, so that the jobs of many turns are done in one transaction.
GATHER_SECONDS = 0.1
IDLE_SECONDS = 5.0
BACKOFF_SECONDS = (1, 600)  # first and longest wait after a failure


class JobRunner:
    """`start` begins; `wake` says that a job was added; `close` finishes what is being done."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._handlers: Mapping[str, Handler] = {}
        self._chores: list[tuple[str, float, Chore]] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, handlers: Mapping[str, Handler], chores: list[tuple[str, float, Chore]]) -> None:
        """`handlers` by job name; `chores` are (name, every so many seconds, what)."""
        self._handlers = handlers
        self._tasks = [asyncio.create_task(self._work(), name="jobs")]
        self._tasks += [
            asyncio.create_task(self._repeat(name, seconds, chore), name=name) for name, seconds, chore in chores
        ]

    def wake(self) -> None:
        self._wake.set()

    async def close(self) -> None:
        """Does what is due once more, then ends."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        try:
            while await self.run_due():
                pass
        except Exception:  # noqa: BLE001 - what is left is done after the next start
            logger.exception("jobs.close_failed")

    async def run_due(self) -> int:
        """Does what is due now; returns how many jobs were taken."""
        jobs = await self._database.write(lambda uow: uow.jobs.lease_due(now() + LEASE_SECONDS * SECOND, GROUP))
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.name, []).append(job)
        for name, group in groups.items():
            await self._handle(name, group)
        return len(jobs)

    async def _handle(self, name: str, group: list[Job]) -> None:
        handler = self._handlers.get(name)
        try:
            if handler is None:
                raise LookupError(f"no handler for {name}")
            await handler(group)
        except Exception as error:  # noqa: BLE001 - a job may fail in any way; it is noted and tried again
            if len(group) > 1:
                for job in group:  # one of them is the culprit: the others must not wait for it
                    await self._handle(name, [job])
                return
            await self._retry(group[0], error)

    async def _retry(self, job: Job, error: Exception) -> None:
        # An outage says nothing about the job, and may last longer than the attempts do.
        is_dead = job.attempts >= MAX_ATTEMPTS and not isinstance(error, ServiceUnavailable)
        first, longest = BACKOFF_SECONDS
        wait = min(longest, first * 2 ** (job.attempts - 1)) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        logger.opt(exception=error).warning(
            "job.failed", job=job.name, job_id=job.id, attempt=job.attempts, is_dead=is_dead
        )
        run_at = now() + round(wait * SECOND)
        await self._database.write(
            lambda uow: uow.jobs.retry(job.id, run_at=run_at, error=type(error).__name__, is_dead=is_dead)
        )

    async def _work(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), IDLE_SECONDS)
            self._wake.clear()
            await asyncio.sleep(GATHER_SECONDS)
            try:
                if await self.run_due() == GROUP:
                    self._wake.set()
            except Exception:  # noqa: BLE001 - the runner must outlive a database that is away for a moment
                logger.exception("jobs.round_failed")

    async def _repeat(self, name: str, seconds: float, chore: Chore) -> None:
        while True:
            started = time.monotonic()
            try:
                await chore()
            except Exception:  # noqa: BLE001 - as above
                logger.exception("chore.failed", chore=name)
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - started)))
