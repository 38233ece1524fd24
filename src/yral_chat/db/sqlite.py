"""SQLite: one writer thread with group commit, a few readers.

The writer takes everything that waits into one transaction, a SAVEPOINT per unit, so that a failing unit fails
alone and many units share one fsync. `synchronous=FULL`: what is acknowledged survives power loss.
"""

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate

from loguru import logger
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from yral_chat.core import deadlines
from yral_chat.core.errors import AppError, ServiceUnavailable, StorageFull
from yral_chat.db.database import Deliveries, Observe, P, T, UnitKind, UnitOfWork, Waiting, Work, unobserved
from yral_chat.db.execution import Executor
from yral_chat.db.failures import DatabaseInUse
from yral_chat.db.files import QUICK_CHECK, check_file, connect_viewer, damage_in, error_code, load_driver, lock_path
from yral_chat.db.repositories.messages import MediaUrl
from yral_chat.db.urls import database_path
from yral_chat.db.waiting import MAX_WAITING, Line, begin

READERS = 2
# Units that share one commit. Bounds how long the first of them waits for the last.
MAX_GROUP = 128
# Reads that share one snapshot. Small, because the last of them waits for the first.
MAX_READ_GROUP = 8
# Two connections that write or checkpoint at once can corrupt a WAL database in between; fixed in 3.51.3.
CORRUPTING = ((3, 7, 0), (3, 51, 3))

SQLITE_FULL = 13
# Another program holds the lock for too long; the file cannot be read, opened, or understood any more.
UNAVAILABLE = frozenset({5, 10, 11, 14, 26})  # BUSY, IOERR, CORRUPT, CANTOPEN, NOTADB

_PRAGMAS = (
    "PRAGMA busy_timeout=5000",
    "PRAGMA page_size=8192",  # of a new file; others keep theirs (docs/decisions/0022)
    "PRAGMA foreign_keys=ON",
    "PRAGMA synchronous=FULL",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA secure_delete=ON",  # what is deleted is written over: somebody has asked for that
)


def is_corrupting(version: tuple[int, ...]) -> bool:
    """True when this SQLite can corrupt a WAL database that a second process checkpoints."""
    return CORRUPTING[0] <= version < CORRUPTING[1]


def create_sqlite_engine(
    path: Path, *, is_reader: bool = False, cache_mb: int = 32, is_replicated: bool = False
) -> Engine:
    """An engine whose connections never begin by themselves: the threads below say BEGIN and COMMIT.

    `cache_mb` is what a connection keeps of the file in memory, at most. `is_replicated`: Litestream, which must see
    each change before, brings the log into the file; we do not.
    """
    driver = load_driver()

    def connect() -> Any:
        connection = driver.connect(
            str(path), timeout=5, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.execute(f"PRAGMA cache_size=-{cache_mb * 1024}")
        connection.execute("PRAGMA query_only=ON" if is_reader else "PRAGMA journal_mode=WAL")
        if is_replicated:
            connection.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    return create_engine(
        "sqlite://",
        module=driver,
        creator=connect,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # tracebacks are logged, and parameters are people's messages
    )


def create_viewer_engine(path: Path, options: str = "mode=ro") -> Engine:
    """An engine that cannot change the file: see `connect_viewer`."""
    return create_engine(
        "sqlite://",
        module=load_driver(),
        creator=lambda: connect_viewer(path, options),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
    )


def find_damage(connection: Connection) -> str:
    """What SQLite finds wrong first; empty where nothing is. Raises DBAPIError."""
    return damage_in(connection.exec_driver_sql(QUICK_CHECK).scalar())


def translate(error: Exception) -> Exception:
    """A database failure as the refusal that people read; everything else as it is."""
    code = error_code(error)
    if not code:
        return error
    if code & 0xFF == SQLITE_FULL:
        return StorageFull()
    if code & 0xFF in UNAVAILABLE:
        return ServiceUnavailable("The database cannot be used right now", details={"service": "database"})
    return error


class Checkpoint(Work):
    """Empties the write-ahead log, which keeps older pages with all that was on them: no unit of work can do that."""

    __slots__ = ()

    def __init__(self, future: "asyncio.Future[Any]") -> None:
        super().__init__(_nothing, (), {}, future, "write")

    def checkpoint(self, connection: Connection) -> None:
        """The outcome is whether it is empty now."""
        try:
            row = connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.outcome = (row is not None and row[0] == 0, None)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller, who gets it
            self.fail(translate(error))


def _nothing(uow: UnitOfWork) -> None:
    """What a checkpoint does as a unit of work."""


class SQLiteDatabase:
    """See `Database`."""

    dialect = "sqlite"

    def __init__(
        self,
        url: str,
        media_url: MediaUrl = str,
        *,
        cache_mb: int = 32,
        is_replicated: bool = False,
        max_waiting: int = MAX_WAITING,
        observe: Observe = unobserved,
    ) -> None:
        self.path = database_path(url)
        self._cache_mb = cache_mb
        self._is_replicated = is_replicated
        self._observe = observe
        self._media_url = media_url
        self._writes: Line[Work] = Line(max_waiting)
        self._reads: Line[Work] = Line(max_waiting)
        self._threads: list[threading.Thread] = []
        self._engines: list[Engine] = []
        self._busy = 0
        self._lock_file: int | None = None
        self._is_open = self._was_open = False

    def lock(self) -> None:
        """See `Database.lock`: an flock on `<database>.lock`, freed by the kernel when the process ends."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock_path(self.path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise DatabaseInUse(
                f"{self.path} is served by another process. Stop it first, or set DATA_DIR to another folder."
            ) from error
        self._lock_file = handle

    async def open(self) -> None:
        check_file(self.path)
        self._loop = asyncio.get_running_loop()
        self._deliveries = Deliveries(self._loop, self._observe)
        version = load_driver().sqlite_version_info
        if is_corrupting(version):
            logger.warning("sqlite.version_can_corrupt", version=".".join(map(str, version)), fixed_in="3.51.3")
        self._start("db-writer", self._write_forever, is_reader=False)
        for number in range(READERS):
            self._start(f"db-reader-{number}", self._read_forever, is_reader=True)
        self._is_open = self._was_open = True
        self._note("open")

    def _start(self, name: str, target: Callable[[Connection], None], *, is_reader: bool) -> None:
        engine = create_sqlite_engine(
            self.path, is_reader=is_reader, cache_mb=self._cache_mb, is_replicated=self._is_replicated
        )
        thread = threading.Thread(target=target, args=(engine.connect(),), name=name, daemon=True)
        self._engines.append(engine)
        self._threads.append(thread)
        thread.start()

    async def close(self) -> None:
        """Finishes what was queued, then closes files and frees the lock."""
        self._is_open = False
        self._writes.end()
        self._reads.end(READERS)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()
        for engine in self._engines:
            engine.dispose()
        if self._lock_file is not None:
            if self._was_open:
                self._note("")
            os.close(self._lock_file)
            self._lock_file = None

    def _note(self, word: str) -> None:
        """In the file of the lock: whoever comes next sees whether we have come to a proper end (damage.py)."""
        if self._lock_file is not None:
            os.ftruncate(self._lock_file, 0)
            os.pwrite(self._lock_file, word.encode(), 0)
            os.fsync(self._lock_file)

    def pool(self) -> tuple[int, int]:
        return READERS + 1, self._busy

    def waiting(self) -> dict[str, Waiting]:
        return {"writes": self._writes.waiting(), "reads": self._reads.waiting()}

    async def read(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._submit(self._reads, "read", fn, args, kwargs)

    async def write(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = await self._submit(self._writes, "write", fn, args, kwargs)
        deadlines.stored()
        return result

    async def scrub(self) -> bool:
        """By the writer, which alone checkpoints. False when a reader kept it from emptying the log."""
        checkpoint = Checkpoint(self._loop.create_future())
        with deadlines.owed():
            self._writes.join(checkpoint)
        is_empty: bool = await checkpoint.future
        return is_empty

    def _submit(
        self,
        line: Line[Work],
        kind: UnitKind,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> "asyncio.Future[T]":
        if not self._is_open:
            raise ServiceUnavailable("The database is closed", details={"service": "database"})
        future: asyncio.Future[T] = self._loop.create_future()
        line.join(Work(fn, args, kwargs, future, kind))
        return future

    def _read_forever(self, connection: Connection) -> None:
        uow = UnitOfWork(Executor(connection), self._media_url)
        cursor = connection.connection.cursor()
        while (first := self._reads.take()) is not None:
            self._busy += 1
            group, is_last = self._reads.take_more(first, MAX_READ_GROUP)
            wanted = begin(group)
            # Everybody in the group asked before this snapshot is taken, so that each sees what was committed before.
            try:
                cursor.execute("BEGIN")
            except Exception as error:  # noqa: BLE001 - as below; the thread must live
                for work in wanted:
                    work.fail(translate(error))
            else:
                for work in wanted:
                    self._read(uow, work)
            self._roll_back(connection)
            self._deliveries.post(*group)
            self._busy -= 1
            if is_last:
                break
        connection.close()

    @staticmethod
    def _read(uow: UnitOfWork, work: Work) -> None:
        try:
            work.run(uow)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller, who gets it
            work.fail(translate(error))

    def _write_forever(self, connection: Connection) -> None:
        uow = UnitOfWork(Executor(connection), self._media_url)
        while (first := self._writes.take()) is not None:
            self._busy += 1
            group, is_last = self._writes.take_more(first, MAX_GROUP)
            if units := [work for work in begin(group) if not isinstance(work, Checkpoint)]:
                self._commit_group(connection, uow, units)
            for work in group:
                if isinstance(work, Checkpoint):
                    work.checkpoint(connection)
            self._deliveries.post(*group)
            self._busy -= 1
            if is_last:
                break
        connection.close()

    def _commit_group(self, connection: Connection, uow: UnitOfWork, group: list[Work]) -> None:
        """One transaction for all. When it fails as a whole, each unit gets a transaction of its own."""
        try:
            connection.connection.cursor().execute("BEGIN IMMEDIATE")
        except Exception as error:  # noqa: BLE001 - as below; somebody else has the lock: nobody waits for it twice
            for work in group:
                work.fail(translate(error))
            return
        try:
            self._run_group(connection, uow, group)
        except Exception as error:  # noqa: BLE001 - the threads must live; the callers get the error
            self._roll_back(connection)
            if len(group) == 1:
                group[0].fail(translate(error))
                return
            for work in group:
                self._commit_group(connection, uow, [work])

    def _run_group(self, connection: Connection, uow: UnitOfWork, group: list[Work]) -> None:
        raw = connection.connection.cursor()
        for work in group:
            raw.execute("SAVEPOINT unit")
            try:
                work.run(uow)
            except Exception as error:
                if not self._in_transaction(connection):
                    # SQLite gave up the whole transaction (full disk, I/O error): the others have to run again.
                    raise
                raw.execute("ROLLBACK TO unit")
                if not isinstance(error, AppError) and isinstance(translate(error), AppError):
                    raise  # the disk is full or broken: what follows in this group would fail half-way
                work.fail(translate(error))
            raw.execute("RELEASE unit")
        raw.execute("COMMIT")

    @staticmethod
    def _in_transaction(connection: Connection) -> bool:
        return bool(connection.connection.dbapi_connection.in_transaction)  # type: ignore[union-attr]

    def _roll_back(self, connection: Connection) -> None:
        if self._in_transaction(connection):
            connection.connection.cursor().execute("ROLLBACK")
