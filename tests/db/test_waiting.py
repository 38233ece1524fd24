"""The lines in front of the database threads: bounded for those who wait as clients, open for what is owed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from tests.waiting import there, until
from yral_chat.core import deadlines
from yral_chat.core.errors import Overloaded
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database, UnitOfWork

MOST = 3


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = create_database(database_url, pool_size=1, max_waiting=MOST)
    await opened.open()
    yield opened
    await opened.close()


@contextmanager
def request_of(seconds: float) -> Iterator[None]:
    """As the gate does it for a request."""
    mark = deadlines.begin(seconds)
    try:
        yield
    finally:
        deadlines.end(mark)


class Stuck:
    """A database whose writer is kept busy until `end`."""

    def __init__(self, database: Database) -> None:
        self._gate, self._began = threading.Event(), threading.Event()
        self._task = asyncio.ensure_future(database.write(self._wait))

    def _wait(self, uow: UnitOfWork) -> None:
        self._began.set()
        self._gate.wait(20)

    async def begun(self) -> None:
        await asyncio.to_thread(self._began.wait, 20)

    async def end(self) -> None:
        self._gate.set()
        await self._task


@pytest.fixture
async def stuck(database: Database) -> AsyncIterator[Stuck]:
    stuck = Stuck(database)
    await stuck.begun()
    yield stuck
    await stuck.end()


def depth(database: Database) -> int:
    return max(line.units for line in database.waiting().values())


async def joined(database: Database, units: int) -> None:
    await until(there(lambda: depth(database) == units), what=f"{units} units that wait")


async def test_a_full_line_refuses_clients_at_once_and_takes_what_is_owed(database: Database, stuck: Stuck) -> None:
    ran: list[str] = []

    def unit(uow: UnitOfWork, name: str) -> None:
        ran.append(name)

    with request_of(30):
        waiting = [asyncio.create_task(database.write(unit, f"client {number}")) for number in range(MOST)]
        await joined(database, MOST)
        with pytest.raises(Overloaded) as refused:
            await database.write(unit, "one too many")
        with deadlines.owed():
            waiting.append(asyncio.create_task(database.write(unit, "owed by a request")))
    waiting.append(asyncio.create_task(database.write(unit, "owed by a turn")))
    assert (refused.value.status, refused.value.code, refused.value.reason) == (503, "overloaded", "database_queue")
    await joined(database, MOST + 2)
    await stuck.end()
    await asyncio.gather(*waiting)
    assert ran == [*(f"client {number}" for number in range(MOST)), "owed by a request", "owed by a turn"]
    assert depth(database) == 0


async def test_a_unit_whose_deadline_has_passed_does_not_run(database: Database, stuck: Stuck) -> None:
    ran: list[str] = []
    with request_of(0.0):
        late = asyncio.create_task(database.write(lambda _: ran.append("late")))
        await joined(database, 1)
    with request_of(30.0):
        timely = asyncio.create_task(database.write(lambda _: ran.append("timely")))
        await joined(database, 2)
    await stuck.end()
    with pytest.raises(Overloaded) as refused:
        await late
    assert refused.value.reason == "deadline"
    await timely
    assert ran == ["timely"]


async def test_what_follows_in_a_request_that_has_stored_something_is_owed(database: Database) -> None:
    with request_of(deadlines.ANSWER_SECONDS):
        await database.write(lambda _: None)
        assert deadlines.to_wait(30) == 0.0, "but it has no more time to wait for others"
        stuck = Stuck(database)
        await stuck.begun()
        following = [asyncio.create_task(database.write(lambda _: True)) for _ in range(MOST + 1)]
        await joined(database, MOST + 1)
    await stuck.end()
    assert all(await asyncio.gather(*following))


async def test_a_unit_whose_caller_has_gone_does_not_run_unless_it_is_owed(database: Database, stuck: Stuck) -> None:
    ran: list[str] = []
    with request_of(30.0):
        wanted = asyncio.create_task(database.write(lambda _: ran.append("a client's")))
    owed = asyncio.create_task(database.write(lambda _: ran.append("owed")))
    await joined(database, 2)
    for task in (wanted, owed):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await stuck.end()
    await database.write(lambda _: None)
    assert ran == ["owed"]


async def test_the_line_tells_how_long_its_first_has_waited(database: Database, stuck: Stuck) -> None:
    waiting = asyncio.create_task(database.write(lambda _: None))
    await joined(database, 1)
    first = max(line.seconds for line in database.waiting().values())
    await until(there(lambda: max(line.seconds for line in database.waiting().values()) > first), what="time passes")
    await stuck.end()
    await waiting
    assert set(database.waiting().values()) == {(0, 0.0)}
