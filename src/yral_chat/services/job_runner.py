"""Runs the jobs of the outbox in this process: leased, retried with backoff, kept when they cannot be done.

A handler gets a group of jobs of one name, does their work in a unit of work, and deletes the jobs in the same
unit: so a job that was done is gone, and one that was not is done again. Names do not wait for each other.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec
from loguru import logger

from yral_chat.clients.language_model import ModelFailure
from yral_chat.clients.push import WebhookFailed, WebhookPaused
from yral_chat.core import crashes, tracing
from yral_chat.core.clock import SECOND, now
from yral_chat.core.errors import AppError, ServiceUnavailable
from yral_chat.core.ids import new_id
from yral_chat.core.metrics import Metrics
from yral_chat.core.trace_context import TraceContext
from yral_chat.core.tracebacks import safe_text
from yral_chat.core.tracing import Cause
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job

Handler = Callable[[list[Job]], Awaitable[None]]
Chore = Callable[[], Awaitable[None]]

LEASE_SECONDS = 60
RENEW_SECONDS = 20.0
GROUP = 200
MAX_ATTEMPTS = 8
# A handler that does not come back must not keep its place for ever.
HANDLER_SECONDS = 300.0
# After a wake-up the runner waits this long, so that the jobs of many turns are done in one transaction.
GATHER_SECONDS = 0.1
IDLE_SECONDS = 1.0
# What is being done at the end gets so long; the rest is done after the next start.
CLOSE_SECONDS = 10.0
# Less is the clock being corrected little by little.
CLOCK_STEP_SECONDS = 5
# Failures of the world around us: in the log, but nobody's mistake.
EXPECTED = (AppError, ModelFailure, WebhookFailed, TimeoutError)
BACKOFF_SECONDS = (1, 600)  # first and longest wait after a failure


class Kind(msgspec.Struct, frozen=True):
    """How jobs of one name are done: so many in one call, and so many calls at the same time.

    A handler that acts outside of the database takes one job a call, so that none is repeated for another's failure.
    What is older than `max_age_seconds` is not done any more, however few attempts there were: an outage may postpone
    it for as long as it likes.
    """

    handle: Handler
    group: int = GROUP
    at_once: int = 1
    attempts: int = MAX_ATTEMPTS
    max_age_seconds: float | None = None


class JobRunner:
    """`start` begins; `wake` says that a job was added; `close` finishes what is being done."""

    def __init__(self, database: Database, metrics: Metrics | None = None) -> None:
        self._database = database
        self._metrics = metrics
        self._kinds: Mapping[str, Kind] = {}
        self._chores: list[tuple[str, float, Chore]] = []
        self._wake = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._is_closing = False
        self._repeating: list[asyncio.Task[None]] = []
        self._running: dict[asyncio.Task[None], tuple[str, list[Job]]] = {}
        self._renewed = time.monotonic()
        self._clock_offset = _clock_offset()

    def start(self, kinds: Mapping[str, Kind], chores: list[tuple[str, float, Chore]]) -> None:
        """`kinds` by job name; `chores` are (name, every so many seconds, what): a run that takes longer is not
        joined by the next."""
        self._kinds = kinds
        self._is_closing = False
        if self._metrics is not None:
            self._metrics.jobs_known([*kinds, *(name for name, _, _ in chores)])
        self._working = asyncio.create_task(self._work(), name="jobs")
        self._repeating = [
            asyncio.create_task(self._repeat(name, seconds, chore), name=name) for name, seconds, chore in chores
        ]

    def wake(self) -> None:
        self._wake.set()

    async def close(self) -> None:
        """Does what is due once more, then ends; what takes too long is left to the next start."""
        for task in self._repeating:
            task.cancel()
        for task in self._repeating:
            with suppress(asyncio.CancelledError):
                await task
        self._is_closing = True
        self.wake()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._working is not None and not self._working.done():
                    await self._working  # not cut: what it has just leased would be done by nobody until that ends
                while await self.run_due():
                    pass
        except TimeoutError:
            logger.warning("jobs.left", names=sorted({name for name, _ in self._running.values()}))
        except Exception:  # noqa: BLE001 - what is left is done after the next start
            logger.exception("jobs.close_failed")
        for task in list(self._running):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def run_due(self) -> int:
        """Does what is due now, to its end; returns how many jobs were taken."""
        count = await self._begin_due()
        while self._running:
            await asyncio.wait(list(self._running))
        return count

    async def _begin_due(self) -> int:
        """Takes what is due and has a place, and begins it."""
        free = {name: kind.group * places for name, kind in self._kinds.items() if (places := self._places(name))}
        until = now() + LEASE_SECONDS * SECOND
        leased = await self._database.write(lambda uow: uow.jobs.lease_due(until, free))
        # A clock that is set forward ends leases of what is still being done here.
        running = {job.id for _, group in self._running.values() for job in group}
        jobs = [job for job in leased if job.id not in running]
        groups: dict[str, list[Job]] = {}
        old = [job for job in jobs if self._is_too_old(job)]
        for job in jobs:
            if job not in old:
                groups.setdefault(job.name, []).append(job)
        for name, found in groups.items():
            size = self._kinds[name].group
            for start in range(0, len(found), size):
                self._begin(name, found[start : start + size])
        if old:
            await self._bury(old)
            self.wake()  # their places are free
        return len(jobs)

    def _is_too_old(self, job: Job) -> bool:
        most = self._kinds[job.name].max_age_seconds
        return most is not None and now() - job.created_at > most * SECOND

    async def _bury(self, jobs: list[Job]) -> None:
        for job in jobs:
            logger.warning("job.too_old", job=job.name, job_id=job.id)
            self._count_failure(job.name)

        def unit(uow: UnitOfWork) -> None:
            for job in jobs:
                uow.jobs.retry(job.id, run_at=now(), error="too old", is_dead=True)

        await self._database.write(unit)

    def _places(self, name: str) -> int:
        return self._kinds[name].at_once - sum(other == name for other, _ in self._running.values())

    def _begin(self, name: str, group: list[Job]) -> None:
        task = asyncio.create_task(self._handle(name, group), name=f"job {name}")
        self._running[task] = (name, group)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._wake.set()  # its place is free
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("jobs.outcome_not_stored")  # the lease ends, and it is done again

    async def _handle(self, name: str, group: list[Job]) -> None:
        cause, links = _cause_of(group)
        cause.enter()
        attributes: dict[str, tracing.Value] = {"yral.job.name": name, "yral.job.count": len(group)}
        attributes["yral.correlation_id"] = cause.correlation_id
        try:
            with self._timed(name), tracing.span(f"job {name}", "consumer", links=links, attributes=attributes):
                async with asyncio.timeout(HANDLER_SECONDS):
                    await self._kinds[name].handle(group)
        except WebhookPaused as error:
            await self._postpone(group, error)
        except Exception as error:  # noqa: BLE001 - a job may fail in any way; it is noted and tried again
            if len(group) > 1:
                for job in group:  # one of them is the culprit: the others must not wait for it
                    await self._handle(name, [job])
                return
            await self._retry(group[0], error)

    async def _postpone(self, group: list[Job], pause: WebhookPaused) -> None:
        """Nothing was tried: it does not count, and is not a failure."""
        run_at = now() + round(max(1.0, pause.seconds) * SECOND)
        for job in group:
            await self._database.write(
                lambda uow, job_id=job.id: uow.jobs.postpone(job_id, run_at=run_at, reason=str(pause))  # type: ignore[misc]
            )

    async def _retry(self, job: Job, error: Exception) -> None:
        # An outage says nothing about the job, and may last longer than the attempts do.
        is_dead = job.attempts >= self._kinds[job.name].attempts and not isinstance(error, ServiceUnavailable)
        first, longest = BACKOFF_SECONDS
        wait = min(longest, first * 2 ** min(job.attempts - 1, 20)) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        logger.opt(exception=error).warning(
            "job.failed", job=job.name, job_id=job.id, attempt=job.attempts, is_dead=is_dead
        )
        if not isinstance(error, EXPECTED):
            crashes.report(error, "job.failed", job=job.name)
        self._count_failure(job.name)
        run_at = now() + round(wait * SECOND)
        await self._database.write(
            lambda uow: uow.jobs.retry(job.id, run_at=run_at, error=_reason(error), is_dead=is_dead)
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            if self._metrics is not None:
                self._metrics.job_duration.labels(name).observe(time.monotonic() - started)

    def _count_failure(self, name: str) -> None:
        if self._metrics is not None:
            self._metrics.jobs_failed.labels(name).inc()

    async def _work(self) -> None:
        has_buried, is_woken = False, True
        while not self._is_closing:
            try:
                if not has_buried:
                    has_buried = await self._bury_strangers()
                await self._follow_clock()
                if is_woken or await self._database.read(lambda uow: uow.jobs.has_due(self._kinds)):
                    await self._begin_due()
                await self._renew()
            except Exception:  # noqa: BLE001 - the runner must outlive a database that is away for a moment
                logger.exception("jobs.round_failed")
            is_woken = await self._woken()

    async def _woken(self) -> bool:
        """Waits for a job, or for the time to look for those that have become due."""
        # Not wait_for: Python 3.11's loses a cancellation that comes with the wake-up (python/cpython#86296).
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await self._wake.wait()
        is_woken = self._wake.is_set()
        if is_woken:
            await asyncio.sleep(GATHER_SECONDS)
            self._wake.clear()
        return is_woken

    async def _bury_strangers(self) -> bool:
        count = await self._database.write(lambda uow: uow.jobs.bury_strangers(list(self._kinds)))
        if count:
            logger.warning("jobs.without_handler", count=count)
        return True

    async def _follow_clock(self) -> None:
        """What waits until a time does not wait an hour longer because somebody has set the clock back by one."""
        offset = _clock_offset()
        back, self._clock_offset = self._clock_offset - offset, offset
        if back > CLOCK_STEP_SECONDS * SECOND:
            moved = await self._database.write(lambda uow: uow.jobs.advance(back))
            logger.warning("jobs.clock_set_back", seconds=back // SECOND, moved=moved)

    async def _renew(self) -> None:
        """What takes long stays ours."""
        if time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = time.monotonic()
        job_ids = [job.id for _, group in self._running.values() for job in group]
        if job_ids:
            until = now() + LEASE_SECONDS * SECOND
            await self._database.write(lambda uow: uow.jobs.renew(job_ids, until))

    async def revive(self, job_id: str | None) -> int:
        """Dead jobs begin anew, this one or all; returns how many."""
        count = await self._database.write(lambda uow: uow.jobs.revive(job_id))
        self.wake()
        return count

    async def purge_dead(self) -> int:
        """Dead jobs are forgotten; returns how many."""
        return await self._database.write(lambda uow: uow.jobs.purge_dead())

    async def measure(self) -> None:
        """Brings the gauges of `/metrics` up to date."""
        if self._metrics is not None:
            depths, dead = await self._database.read(lambda uow: (uow.jobs.list_depths(), uow.jobs.count_dead()))
            time_now = now()
            ages = {depth.name: max(0, time_now - depth.oldest_at) / SECOND for depth in depths}
            counts = dict.fromkeys(self._kinds, 0) | {depth.name: depth.count for depth in depths}
            self._metrics.jobs_measured(counts, ages, dead)

    async def _repeat(self, name: str, seconds: float, chore: Chore) -> None:
        while True:
            started = time.monotonic()
            try:
                with self._timed(name):
                    await chore()
            except Exception as error:  # noqa: BLE001 - as above
                self._count_failure(name)
                logger.exception("chore.failed", chore=name)
                if not isinstance(error, EXPECTED):
                    crashes.report(error, "chore.failed", job=name)
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - started)))


def _clock_offset() -> int:
    """Microseconds between the machine's clock, which may be set, and the one that only goes on."""
    return now() - time.monotonic_ns() // 1_000


def _cause_of(group: list[Job]) -> tuple[Cause, list[TraceContext]]:
    """For whom a group acts, and the traces that it belongs to besides: one cause when all share it, else a new id."""
    causes = {job.cause for job in group}
    if len(causes) == 1 and (cause := causes.pop()).correlation_id:
        return cause, []
    return Cause(new_id()), [cause.trace for cause in causes if cause.trace is not None]


def _reason(error: Exception) -> str:
    """What operators read. Errors of ours speak in fixed words; the texts of others may hold anything."""
    text = safe_text(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
