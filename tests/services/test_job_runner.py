"""Jobs are done once, tried again when they fail, and kept when they cannot be done."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tests.waiting import there, until
from yral_chat.core.clock import SECOND, now
from yral_chat.core.errors import StorageUnavailable
from yral_chat.core.logging import correlation_id
from yral_chat.core.metrics import Metrics
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.services import job_runner
from yral_chat.services.job_runner import JobRunner, Kind

T = TypeVar("T")


class Work:
    """Notes what was done; fails as often as it is told to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.done: list[str] = []
        self.failures: dict[str, int] = {}
        self.failure: type[Exception] = RuntimeError
        self.changed = asyncio.Event()

    async def handle(self, jobs: list[Job]) -> None:
        for job in jobs:
            name = job.payload["name"]
            if self.failures.get(name, 0) > 0:
                self.failures[name] -= 1
                raise self.failure(name)
        await self._database.write(lambda uow: uow.jobs.delete(*(job.id for job in jobs)))
        self.done += [job.payload["name"] for job in jobs]
        self.changed.set()


def add(uow: UnitOfWork, *names: str) -> None:
    for name in names:
        uow.jobs.add("work", {"name": name})


def make_due(uow: UnitOfWork) -> None:
    """As if the wait of every retry and lease were over."""
    connection = uow.jobs._executor.connection
    connection.exec_driver_sql("UPDATE jobs SET run_at = 0")


@pytest.fixture
def work(database: Database) -> Work:
    return Work(database)


@pytest.fixture
def runner(database: Database, work: Work) -> JobRunner:
    runner = JobRunner(database)
    runner._kinds = {"work": Kind(work.handle)}
    return runner


async def test_a_group_is_done_at_once_and_gone(database: Database, runner: JobRunner, work: Work) -> None:
    await database.write(add, "a", "b", "c")
    assert await runner.run_due() == 3
    assert sorted(work.done) == ["a", "b", "c"]
    assert await runner.run_due() == 0


@pytest.mark.usefixtures("still")
async def test_one_that_fails_does_not_hold_up_the_others(database: Database, runner: JobRunner, work: Work) -> None:
    work.failures["b"] = 3
    await database.write(add, "a", "b", "c")
    await runner.run_due()
    assert sorted(work.done) == ["a", "c"]
    assert await runner.run_due() == 0, "its retry is not due yet"
    while len(work.done) < 3:
        await database.write(make_due)
        assert await runner.run_due() == 1
    assert work.done[-1] == "b"


async def test_what_cannot_be_done_is_kept_and_not_tried_for_ever(
    database: Database, runner: JobRunner, work: Work
) -> None:
    work.failures["never"] = 1000
    await database.write(add, "never")
    for _ in range(job_runner.MAX_ATTEMPTS):
        await database.write(make_due)
        assert await runner.run_due() == 1
    await database.write(make_due)
    assert await runner.run_due() == 0

    def kept(uow: UnitOfWork) -> tuple[bool, str]:
        connection = uow.jobs._executor.connection
        row = connection.exec_driver_sql("SELECT is_dead, last_error FROM jobs").one()
        return bool(row[0]), row[1]

    assert await database.read(kept) == (True, "RuntimeError")


async def test_names_do_not_wait_for_each_other_and_keep_their_limits(database: Database, work: Work) -> None:
    running: list[str] = []
    most, let_go, full = 0, asyncio.Event(), asyncio.Event()

    async def hang(jobs: list[Job]) -> None:
        nonlocal most
        (job,) = jobs
        running.append(job.id)
        most = max(most, len(running))
        if len(running) == 2:
            full.set()
        await let_go.wait()
        running.remove(job.id)
        await database.write(lambda uow: uow.jobs.delete(job.id))

    runner = JobRunner(database)
    for _ in range(5):
        await database.write(lambda uow: uow.jobs.add("slow", {}))
    runner.start({"slow": Kind(hang, group=1, at_once=2), "work": Kind(work.handle)}, [])
    async with asyncio.timeout(10):
        await full.wait()
        await database.write(add, "quick")
        runner.wake()
        await work.changed.wait()
    assert (work.done, most) == (["quick"], 2)
    let_go.set()

    async def is_done() -> bool:
        return await database.read(lambda uow: uow.jobs.list_depths()) == []

    await until(is_done, what="all are done")
    await runner.close()
    assert most == 2


async def test_urgent_ones_come_first(database: Database, work: Work) -> None:
    runner = JobRunner(database)
    runner._kinds = {"work": Kind(work.handle, group=1)}
    for name, priority in (("first", 0), ("urgent", 5), ("late", -1)):
        await database.write(lambda uow, n, p: uow.jobs.add("work", {"name": n}, priority=p), name, priority)
    while await runner.run_due():
        pass
    assert work.done == ["urgent", "first", "late"]


async def test_a_job_that_nobody_can_do_is_kept_for_the_operator(database: Database, work: Work) -> None:
    runner = JobRunner(database)
    await database.write(lambda uow: uow.jobs.add("of another version", {}))
    runner.start({"work": Kind(work.handle)}, [])

    async def is_buried() -> int:
        return await database.read(lambda uow: uow.jobs.count_dead())

    await until(is_buried, what="it is kept as dead")
    await runner.close()
    (dead,) = await database.read(lambda uow: uow.jobs.list_queued(is_dead=True, most=10))
    assert (dead.name, dead.last_error) == ("of another version", "no handler")
    assert await database.write(lambda uow: uow.jobs.purge_dead()) == 1


async def test_the_gauges_tell_depth_age_failures_and_the_dead(database: Database, work: Work) -> None:
    metrics = Metrics()
    runner = JobRunner(database, metrics)
    runner._kinds = {"work": Kind(work.handle, attempts=1)}
    work.failures["never"] = 1
    await database.write(add, "never")
    await runner.run_due()
    await database.write(add, "waits", "waits too")
    await runner.measure()
    shown = metrics.render().decode()
    assert 'job_queue_depth{name="work"} 2.0' in shown
    assert 'jobs_failed_total{name="work"} 1.0' in shown
    assert "jobs_dead 1.0" in shown
    await runner.run_due()
    await runner.measure()
    assert 'job_queue_depth{name="work"} 0.0' in metrics.render().decode()
    assert 'job_oldest_seconds{name="work"} 0.0' in metrics.render().decode()


async def test_what_waits_for_somebody_who_is_away_is_tried_until_they_are_back(
    database: Database, runner: JobRunner, work: Work
) -> None:
    work.failure, work.failures["later"] = StorageUnavailable, 3 * job_runner.MAX_ATTEMPTS
    await database.write(add, "later")
    for _ in range(3 * job_runner.MAX_ATTEMPTS + 1):
        await database.write(make_due)
        assert await runner.run_due() == 1
    assert work.done == ["later"]


async def test_a_leased_job_is_nobody_elses_until_the_lease_ends(database: Database) -> None:
    await database.write(add, "mine")
    lease_until = now() + 60 * SECOND
    first = await database.write(lambda uow: uow.jobs.lease_due(lease_until, {"work": 10}))
    assert [job.attempts for job in first] == [1]
    assert await database.write(lambda uow: uow.jobs.lease_due(lease_until, {"work": 10})) == []
    await database.write(make_due)  # its process died
    again = await database.write(lambda uow: uow.jobs.lease_due(lease_until, {"work": 10}))
    assert [(job.id, job.attempts) for job in again] == [(first[0].id, 2)]


async def test_the_runner_works_when_woken_and_finishes_before_it_closes(database: Database, work: Work) -> None:
    runner = JobRunner(database)
    ran = asyncio.Event()

    async def chore() -> None:
        ran.set()

    runner.start({"work": Kind(work.handle)}, [("a chore", 3600, chore)])
    await database.write(add, "soon")
    runner.wake()
    async with asyncio.timeout(10):
        await ran.wait()
        await work.changed.wait()
    await database.write(add, "late")
    await runner.close()
    assert work.done == ["soon", "late"]


class HeldDatabase:
    """Of its writes those that take jobs are told only once they are let go; committed they are at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.read = database.read
        self.has_leased = asyncio.Event()
        self.is_let_go = asyncio.Event()

    async def write(self, unit: Callable[[UnitOfWork], T]) -> T:
        result = await self._database.write(unit)
        if isinstance(result, list) and result:
            self.has_leased.set()
            await self.is_let_go.wait()
        return result


async def test_what_was_just_leased_when_it_closes_is_done(database: Database, work: Work) -> None:
    """Else it would wait for the end of its lease, with nobody at work on it."""
    held = HeldDatabase(database)
    runner = JobRunner(held)  # type: ignore[arg-type]
    runner.start({"work": Kind(work.handle)}, [])
    await database.write(add, "late")
    runner.wake()
    await until(there(held.has_leased.is_set), what="it to be leased")
    closing = asyncio.create_task(runner.close())
    await asyncio.sleep(0)
    held.is_let_go.set()
    await closing
    assert work.done == ["late"]


async def test_a_chore_that_fails_is_repeated(database: Database) -> None:
    runner = JobRunner(database)
    twice = asyncio.Event()
    runs: list[int] = []

    async def chore() -> None:
        runs.append(1)
        if len(runs) == 2:
            twice.set()
        raise RuntimeError("on purpose")

    failing: Callable[[], Awaitable[None]] = chore
    runner.start({}, [("a chore", 0.01, failing)])
    async with asyncio.timeout(10):
        await twice.wait()
    await runner.close()


@pytest.mark.parametrize("steps", range(5))
async def test_a_runner_that_is_woken_in_its_last_moment_ends(database: Database, work: Work, steps: int) -> None:
    runner = JobRunner(database)
    runner.start({"work": Kind(work.handle)}, [])
    await database.write(add, "first")
    runner.wake()
    async with asyncio.timeout(10):
        await work.changed.wait()
        runner.wake()
        for _ in range(steps):
            await asyncio.sleep(0)
        await runner.close()


async def test_what_runs_is_not_begun_again_when_the_clock_is_set_forward(
    database: Database, work: Work, moved: list[int]
) -> None:
    runner = JobRunner(database)
    gate = asyncio.Event()
    begun: list[str] = []

    async def handle(jobs: list[Job]) -> None:
        begun.extend(job.payload["name"] for job in jobs)
        await gate.wait()
        await work.handle(jobs)

    runner._kinds = {"work": Kind(handle, group=1, at_once=3)}
    await database.write(add, "slow")
    await runner._begin_due()
    await until(there(lambda: begun == ["slow"]), what="the job runs")
    moved.append(3600)
    assert await runner._begin_due() == 0
    gate.set()
    assert await runner.run_due() == 0
    assert (begun, work.done) == (["slow"], ["slow"])


async def test_what_waits_does_not_wait_longer_when_the_clock_is_set_back(
    database: Database, runner: JobRunner, work: Work, moved: list[int]
) -> None:
    await database.write(add, "due")
    moved.append(-3600)
    assert await runner.run_due() == 0, "by the new time it is due in an hour"
    await runner._follow_clock()
    assert await runner.run_due() == 1
    assert work.done == ["due"]


async def test_what_is_too_old_does_not_hold_up_what_is_new(database: Database, work: Work, moved: list[int]) -> None:
    """After a long outage of a receiver there may be very many of them."""
    runner = JobRunner(database)
    await database.write(add, *map(str, range(160)))
    moved.append(3600)
    await database.write(add, "new")
    runner.start({"work": Kind(work.handle, group=1, at_once=8, max_age_seconds=60)}, [])
    await until(there(lambda: work.done == ["new"]), what="the new one")
    await runner.close()
    assert await database.read(lambda uow: uow.jobs.count_dead()) == 160


class Listener:
    """Notes for whom it works."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.heard: list[tuple[list[str], str]] = []

    async def handle(self, jobs: list[Job]) -> None:
        self.heard.append((sorted(job.payload["name"] for job in jobs), correlation_id.get()))
        assert all("cause" not in job.payload for job in jobs)
        await self._database.write(lambda uow: uow.jobs.delete(*(job.id for job in jobs)))


async def add_for(database: Database, request: str, *names: str) -> None:
    token = correlation_id.set(request)
    await database.write(add, *names)
    correlation_id.reset(token)


async def test_jobs_run_under_the_id_of_the_request_that_caused_them(database: Database) -> None:
    runner, listener = JobRunner(database), Listener(database)
    runner._kinds = {"work": Kind(listener.handle)}
    await add_for(database, "request-1", "a", "b")
    await runner.run_due()
    assert listener.heard == [(["a", "b"], "request-1")]


async def test_work_for_several_requests_has_an_id_of_its_own(database: Database) -> None:
    runner, listener = JobRunner(database), Listener(database)
    runner._kinds = {"work": Kind(listener.handle)}
    await add_for(database, "request-1", "a")
    await add_for(database, "request-2", "b")
    await database.write(add, "c")  # by nobody in particular
    await runner.run_due()
    [(names, own)] = listener.heard
    assert names == ["a", "b", "c"]
    assert own not in ("", "request-1", "request-2")
