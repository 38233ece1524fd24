"""Units of work on our database, and the same statements through the usual asynchronous ways to SQLite.

CPU of this process per operation, all threads. `aiosqlite` is a dependency of this file only.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec
from sqlalchemy import Executable, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.rig import Rig
from tests.programs import PrivatePostgres, postgres_binaries
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.execution import Statement
from yral_chat.db.migrations import migrate
from yral_chat.db.tables import conversations, messages, participants
from yral_chat.services.chat import _open

TASKS = (1, 32)
WRITE_TASKS = 32
POOL = 8
PAGE = 50
# One connection per task, so that the comparison is between ways of waiting and not between queues.
PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA busy_timeout=30000")

_COLUMNS = ("id", "conversation_id", "seq", "role", "origin", "message_type", "content", "status", "is_listed",
            "sender_id", "attempt", "last_attempt", "is_handed_over", "created_at", "completed_at")  # fmt: skip
_MESSAGE: dict[str, Any] = {
    "role": "user",
    "origin": "user",
    "message_type": "text",
    "content": "What would you do today? " * 4,
    "status": "delivered",
    "is_listed": True,
    "sender_id": "somebody",
    "attempt": 1,
    "last_attempt": 1,
    "is_handed_over": False,
    "created_at": 1,
    "completed_at": 1,
}
_IN_CONVERSATION = messages.c.conversation_id == bindparam("conversation")
POINT: Executable = select(messages).where(messages.c.id == bindparam("message"))
ROWS: Executable = select(messages).where(_IN_CONVERSATION).order_by(messages.c.seq.desc()).limit(PAGE)
ADD = insert(messages).values({name: bindparam(f"new_{name}") for name in _COLUMNS})
FIND: Executable = select(conversations).where(conversations.c.id == bindparam("conversation"))
NEWEST: Executable = select(messages.c.seq).where(_IN_CONVERSATION).order_by(messages.c.seq.desc()).limit(1)
COUNT: Executable = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"))
    .values(message_count=conversations.c.message_count + 2)
)
TOUCH: Executable = (
    update(participants)
    .where(participants.c.conversation_id == bindparam("conversation"))
    .values(unread_count=participants.c.unread_count + 1)
)
OURS = {source: Statement(source) for source in (POINT, ROWS, ADD, FIND, NEWEST, COUNT, TOUCH)}

Step = tuple[Executable, dict[str, Any], bool]  # statement, parameters, whether it gives rows
Way = Callable[[list[Step], bool], Awaitable[object]]  # runs the steps in one transaction; True: it writes


class Place:
    """A conversation that is read from and written to."""

    def __init__(self, conversation: str) -> None:
        self.conversation = conversation
        self.seq = 1000
        self.message = ""

    def new(self) -> dict[str, Any]:
        self.seq += 1
        identity = {"id": f"{self.conversation}-{self.seq}", "conversation_id": self.conversation, "seq": self.seq}
        return {f"new_{name}": value for name, value in (_MESSAGE | identity).items()}

    def operations(self) -> dict[str, tuple[Callable[[], list[Step]], bool]]:
        """By name: the steps, and whether they write."""
        here = {"conversation": self.conversation}
        return {
            "point read": (lambda: [(POINT, {"message": self.message}, True)], False),
            f"{PAGE}-row page": (lambda: [(ROWS, here, True)], False),
            "durable insert": (lambda: [(ADD, self.new(), False)], True),
            "six-statement turn": (
                lambda: [
                    (FIND, here, True),
                    (NEWEST, here, True),
                    (ADD, self.new(), False),
                    (ADD, self.new(), False),
                    (COUNT, here, False),
                    (TOUCH, here, False),
                ],
                True,
            ),
        }


class Cell(msgspec.Struct, frozen=True):
    """Microseconds of CPU per operation."""

    way: str
    operation: str
    tasks: int
    micros: float


async def measure_writes(rig: Rig) -> dict[str, float]:
    """Durable inserts by 32 tasks: per second of CPU, and by the clock."""
    async with _our_database(f"sqlite:///{rig.folder}/writes.db") as (database, place):
        steps, _ = place.operations()["durable insert"]
        way = _our_way(database)
        await _run(way, steps, True, WRITE_TASKS, 0.2)
        cpu, clock = await _run(way, steps, True, WRITE_TASKS, rig.counts.write_seconds)
    return {"writes": 1 / cpu, "writes_wall": 1 / clock}


async def compare(rig: Rig) -> list[Cell]:
    """Every operation in every way, at one task and at many."""
    folder, seconds = rig.folder, rig.counts.database_seconds
    cells: list[Cell] = []
    async with _our_database(f"sqlite:///{folder}/ours.db") as (database, place):
        cells += await _cells("Database (SQLite)", _our_way(database), place, seconds)
    async with _prepared(folder / "async.db") as (place, path):
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=WRITE_TASKS)
        cells += await _cells("async SQLAlchemy, aiosqlite", _async_way(engine), place, seconds)
        await engine.dispose()
    async with _prepared(folder / "raw.db") as (place, path), _raw_pool(path) as pool:
        cells += await _cells(f"aiosqlite, a pool of {POOL}", _raw_way(pool), place, seconds)
    if (binaries := postgres_binaries()) is not None:
        with PrivatePostgres(binaries) as server:
            async with _our_database(server.create_database()) as (database, place):
                cells += await _cells("Database (PostgreSQL)", _our_way(database), place, seconds)
    return cells


async def _cells(name: str, way: Way, place: Place, seconds: float) -> list[Cell]:
    cells = []
    for operation, (steps, is_write) in place.operations().items():
        for tasks in TASKS:
            await _run(way, steps, is_write, tasks, seconds / 8)
            cpu, _ = await _run(way, steps, is_write, tasks, seconds)
            cells.append(Cell(name, operation, tasks, cpu * 1e6))
    return cells


async def _run(
    way: Way, steps: Callable[[], list[Step]], is_write: bool, tasks: int, seconds: float
) -> tuple[float, float]:
    """Seconds of CPU, and of the clock, per operation."""
    done = 0
    started, cpu = time.perf_counter(), time.process_time()

    async def work() -> None:
        nonlocal done
        while not done or time.perf_counter() - started < seconds:
            await way(steps(), is_write)
            done += 1

    await asyncio.gather(*(work() for _ in range(tasks)))
    return (time.process_time() - cpu) / done, (time.perf_counter() - started) / done


@asynccontextmanager
async def _our_database(url: str, **options: Any) -> AsyncIterator[tuple[Database, Place]]:
    """Ours, opened, with a conversation of some hundred messages."""
    migrate(url)
    database = create_database(url, pool_size=POOL, **options)
    await database.open()
    try:
        yield database, await _fill(database)
    finally:
        await database.close()


@asynccontextmanager
async def _prepared(path: Path) -> AsyncIterator[tuple[Place, Path]]:
    """The file of a database made and filled by ours, and closed again."""
    async with _our_database(f"sqlite:///{path}") as (_, place):
        pass
    yield place, path


async def _fill(database: Database) -> Place:
    def unit(uow: UnitOfWork) -> str:
        uow.influencers.add(
            {"id": "bot", "name": "bot", "name_key": "bot", "display_name": "Bot", "status": "active",
             "status_rank": 0, "is_nsfw": False, "system_instructions": "", "created_at": 1, "updated_at": 1}
        )  # fmt: skip
        return _open(uow, "somebody", "bot")["id"]

    place = Place(await database.write(unit))
    way = _our_way(database)
    for _ in range(200):
        step = (ADD, place.new(), False)
        await way([step], True)
    place.message = f"{place.conversation}-{place.seq}"
    return place


def _our_way(database: Database) -> Way:
    def unit(uow: UnitOfWork, steps: list[Step]) -> None:
        for source, parameters, has_rows in steps:
            statement = OURS[source]
            if has_rows:
                uow.messages._executor.all(statement, parameters)
            else:
                uow.messages._executor.run(statement, parameters)

    async def way(steps: list[Step], is_write: bool) -> None:
        await (database.write if is_write else database.read)(unit, steps)

    return way


def _async_way(engine: Any) -> Way:
    lock = asyncio.Lock()  # without it most writers would get "database is locked"

    async def run(steps: list[Step]) -> None:
        async with engine.begin() as connection:
            for source, parameters, has_rows in steps:
                result = await connection.execute(source, parameters)
                if has_rows:
                    result.all()

    async def way(steps: list[Step], is_write: bool) -> None:
        if not is_write:
            await run(steps)
            return
        async with lock:
            await run(steps)

    return way


@asynccontextmanager
async def _raw_pool(path: Path) -> AsyncIterator["asyncio.Queue[aiosqlite.Connection]"]:
    pool: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        for _ in range(POOL):
            connection = await stack.enter_async_context(aiosqlite.connect(path, isolation_level=None))
            for pragma in PRAGMAS:
                await connection.execute(pragma)
            pool.put_nowait(connection)
        yield pool


def _raw_way(pool: "asyncio.Queue[aiosqlite.Connection]") -> Way:
    async def way(steps: list[Step], is_write: bool) -> None:
        connection = await pool.get()
        try:
            await connection.execute("BEGIN IMMEDIATE" if is_write else "BEGIN")
            for source, parameters, has_rows in steps:
                text, constants = OURS[source].on("sqlite")
                cursor = await connection.execute(text, {**constants, **parameters})
                if has_rows:
                    await cursor.fetchall()
                await cursor.close()
            await connection.execute("COMMIT")
        finally:
            pool.put_nowait(connection)

    return way
