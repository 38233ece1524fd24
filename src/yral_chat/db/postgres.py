"""PostgreSQL: a bounded pool of connections, one thread each, psycopg 3.

Isolation is READ COMMITTED; a unit that changes a conversation takes that row's lock first, which gives the same
order as SQLite's single writer. Deadlocks and serialisation failures run the unit again.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Concatenate

from loguru import logger
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from yral_chat.core import deadlines
from yral_chat.core.errors import AppError, ServiceUnavailable, StorageFull
from yral_chat.db.database import Deliveries, Observe, P, T, UnitOfWork, Waiting, Work, unobserved
from yral_chat.db.execution import Executor
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.repositories.messages import MediaUrl
from yral_chat.db.serve_lock import ServeLock, session_name
from yral_chat.db.sessions import Session
from yral_chat.db.waiting import MAX_WAITING, SILENCE_SECONDS, Line, begin

ATTEMPTS = 5
# https://www.postgresql.org/docs/15/errcodes-appendix.html
RETRYABLE = frozenset({"40001", "40P01"})
DISK_FULL = "53100"
# When we want to end, a silent server gets so long.
CLOSE_SECONDS = 5.0
WATCH_SECONDS = 0.5


try:
    from psycopg import Error as _DriverError
    from psycopg import OperationalError as _LostConnection
except ImportError:  # without the extra no unit ever runs here: `create_postgres_engine` says what to install

    class _DriverError(Exception):  # type: ignore[no-redef]
        pass

    class _LostConnection(_DriverError):  # type: ignore[no-redef]
        pass


def driver_url(url: str) -> URL:
    return make_url(url).set(drivername="postgresql+psycopg")


def create_postgres_engine(url: str, pool_size: int = 1, name: str = "yral-chat") -> Engine:
    """An engine with at most `pool_size` connections, by which the server knows us as `name`. Raises DatabaseUnusable
    without the extra."""
    try:
        return create_engine(
            driver_url(url),
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            hide_parameters=True,  # as for SQLite
            connect_args={"connect_timeout": 5, "application_name": name},
        )
    except ModuleNotFoundError as error:
        raise DatabaseUnusable("PostgreSQL needs the extra: pip install 'yral-chat[postgres]'") from error


def connect_postgres(engine: Engine, url: str) -> Connection:
    """A connection; raises DatabaseUnusable with what to look at."""
    try:
        return engine.connect()
    except DBAPIError as error:
        address = make_url(url)
        raise DatabaseUnusable(
            f"PostgreSQL at {address.host}:{address.port or 5432} cannot be reached or refuses the login. "
            "Check DATABASE_URL and that the server runs."
        ) from error


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """One connection, for a command. Raises DatabaseUnusable."""
    engine = create_postgres_engine(url)
    try:
        with connect_postgres(engine, url) as connection:
            yield connection
    finally:
        engine.dispose()


def translate(error: Exception) -> Exception:
    """A database failure as the refusal that people read; everything else as it is."""
    if isinstance(error, AppError):
        return error
    if _state(error) == DISK_FULL:
        return StorageFull()
    if is_disconnect(error):
        return ServiceUnavailable("The database cannot be reached right now", details={"service": "database"})
    return error


def _state(error: Exception) -> str | None:
    """The SQLSTATE of a driver's error, wrapped by SQLAlchemy or not."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def is_disconnect(error: Exception) -> bool:
    """Whether the connection is gone, so that the next unit needs a new one."""
    original = getattr(error, "orig", error)
    if not isinstance(original, _DriverError):
        return False
    state = _state(error) or ""
    # No state at all: the server never answered. 08 connection, 57P0x shutdown, 53300 too many connections, 25P03 we
    # were silent for too long.
    if not state:
        return isinstance(original, _LostConnection)
    return state in ("53300", "25P03") or state.startswith(("08", "57P0"))


class _Unit(Work):
    __slots__ = ("is_read",)

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        future: "asyncio.Future[Any]",
        *,
        is_read: bool,
    ) -> None:
        super().__init__(fn, args, kwargs, future, "read" if is_read else "write")
        self.is_read = is_read


class PostgresDatabase:
    """See `Database`."""

    dialect = "postgresql"

    def __init__(
        self,
        url: str,
        *,
        pool_size: int,
        media_url: MediaUrl = str,
        max_waiting: int = MAX_WAITING,
        silence_seconds: float = SILENCE_SECONDS,
        observe: Observe = unobserved,
    ) -> None:
        self._observe = observe
        self._media_url = media_url
        self._size = pool_size
        self._line: Line[_Unit] = Line(max_waiting)
        self._threads: list[threading.Thread] = []
        self._silence_seconds = silence_seconds
        self._engine = create_postgres_engine(url, pool_size)
        lock_name = session_name()
        self._lock = ServeLock(partial(connect_postgres, create_postgres_engine(url, name=lock_name), url), lock_name)
        self._sessions = [self._lock.session, *(Session() for _ in range(pool_size))]
        self._watching: asyncio.TimerHandle | None = None
        self._busy = 0
        self._is_open = False

    def lock(self) -> None:
        """See `Database.lock`: a session's advisory lock, freed by the server when the connection ends."""
        self._lock.take()

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deliveries = Deliveries(self._loop, self._observe)
        for number, session in enumerate(self._sessions[1:]):
            thread = threading.Thread(target=self._work_forever, args=(session,), name=f"db-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._lock.keep()
        self._is_open = True
        self._watch()

    def _watch(self) -> None:
        """Ends what waits too long for the server, again and again."""
        limit = self._silence_seconds if self._is_open else min(self._silence_seconds, CLOSE_SECONDS)
        late = sum(session.cut_if_late(limit) for session in self._sessions)
        if late:
            logger.error("postgres.silent", connections=late, seconds=limit)
        self._watching = self._loop.call_later(WATCH_SECONDS, self._watch)

    async def close(self) -> None:
        self._is_open = False
        self._line.end(len(self._threads))
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()
        self._engine.dispose()
        await asyncio.to_thread(self._lock.close)
        if self._watching is not None:
            self._watching.cancel()

    async def scrub(self) -> bool:
        """The server's own log and its vacuum are its operator's (docs/operations.md)."""
        return True

    def pool(self) -> tuple[int, int]:
        return self._size, self._busy

    def waiting(self) -> dict[str, Waiting]:
        return {"all": self._line.waiting()}

    async def read(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._submit(fn, args, kwargs, is_read=True)

    async def write(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = await self._submit(fn, args, kwargs, is_read=False)
        deadlines.stored()
        return result

    def _submit(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_read: bool
    ) -> "asyncio.Future[T]":
        if not self._is_open:
            raise ServiceUnavailable("The database is closed", details={"service": "database"})
        if self._lock.is_displaced:
            raise ServiceUnavailable("Another process serves this database", details={"service": "database"})
        future: asyncio.Future[T] = self._loop.create_future()
        self._line.join(_Unit(fn, args, kwargs, future, is_read=is_read))
        return future

    def _work_forever(self, session: Session) -> None:
        uow: UnitOfWork | None = None
        while (work := self._line.take()) is not None:
            if not begin((work,)):
                self._deliveries.post(work)
                continue
            self._busy += 1
            session.was_cut = False
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    if session.connection is None or uow is None:
                        uow = UnitOfWork(Executor(self._connect(session)), self._media_url)
                    self._run(session, uow, work)
                    break
                except Exception as error:  # noqa: BLE001 - the thread must live; the caller gets the error
                    # Who was silent for so long is not asked the same again: somebody waits for an answer.
                    is_last = attempt == ATTEMPTS or session.was_cut
                    is_lost = is_disconnect(error)
                    if is_lost:
                        session.drop()
                    if not is_last and self._may_repeat(error, work, is_lost=is_lost, attempt=attempt):
                        continue
                    work.fail(translate(error))
                    break
            self._busy -= 1
            self._deliveries.post(work)
        session.drop()

    def _connect(self, session: Session) -> Connection:
        """A new connection. The server, too, gives up a transaction when we are silent: it would keep its locks until
        TCP notices, which takes two hours. Sooner than we do, so that whoever waits for such a lock still gets it.
        """
        connection = session.use(self._engine.connect())
        milliseconds = round(self._silence_seconds * 1000 / 2)
        session.begin()
        try:
            connection.exec_driver_sql(f"SET SESSION idle_in_transaction_session_timeout = {milliseconds}")
            connection.commit()
        except DBAPIError:
            session.drop()
            raise
        finally:
            session.end()
        return connection

    @staticmethod
    def _may_repeat(error: Exception, work: Work, *, is_lost: bool, attempt: int) -> bool:
        """Whether running the unit again cannot do its work twice: not when its COMMIT may have arrived."""
        if is_lost:
            return attempt == 1 and not work.is_committing
        state = _state(error)
        if state in RETRYABLE:
            logger.debug("postgres.unit_repeated", sqlstate=state, attempt=attempt)
            return True
        return False

    @staticmethod
    def _run(session: Session, uow: UnitOfWork, work: _Unit) -> None:
        assert session.connection is not None  # noqa: S101 - just opened
        work.is_committing = False
        session.begin()
        try:
            with session.connection.begin() as transaction:
                if work.is_read:
                    # One snapshot for all statements of a read, as on SQLite.
                    session.connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                work.run(uow)
                work.is_committing = not work.is_read
                transaction.commit()
        finally:
            session.end()
