"""One moment of a SQLite database that a server writes: held still for milliseconds, and then looked at for longer.

For a process of its own, in which nobody else opens that file: to close any handle of it would take away the locks.
"""

from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from yral_chat.db.damage import INTERRUPT
from yral_chat.db.database import DatabaseUnusable
from yral_chat.db.sqlite import DatabaseDamaged, check_log, create_viewer_engine, error_code, find_damage
from yral_chat.db.verification import TableSum, TableUnreadable, sum_tables

# How long we wait for the server's transactions to end: each takes milliseconds.
PATIENCE_MS = 5000
# Whoever reads all of it once comes back to none of it.
CACHE_KIB = 256


class Pinned:
    """The database as it was at one moment. The log cannot begin anew while it is open."""

    def __init__(self, path: Path, engine: Engine, connection: Connection) -> None:
        self._path = path
        self._engine = engine
        self._connection = connection

    def sum_tables(self) -> dict[str, TableSum]:
        """See there; raises TableUnreadable, also once `interrupt` was called."""
        return sum_tables(self._connection)

    def check_damage(self) -> None:
        """Reads every page, also of indexes. Raises DatabaseDamaged; once `interrupt` was called TableUnreadable."""
        try:
            damage = find_damage(self._connection)
        except DBAPIError as error:
            if error_code(error) == INTERRUPT:
                raise TableUnreadable(str(error.orig)) from error
            raise DatabaseDamaged(self._path, str(error.orig)) from error
        if damage:
            raise DatabaseDamaged(self._path, damage)

    def interrupt(self) -> None:
        """From another thread: whoever sums gives up."""
        driver = self._connection.connection.dbapi_connection
        driver.interrupt()  # type: ignore[union-attr]

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


class StandingStill:
    """From its making to its release nobody commits. Raises DatabaseUnusable."""

    def __init__(self, path: Path) -> None:
        check_log(path)
        self._path = path
        self._engine = create_viewer_engine(path, "mode=rw")
        try:
            self._connection = self._engine.connect()
            # The log is Litestream's to bring into the file.
            for pragma in ("wal_autocheckpoint=0", f"busy_timeout={PATIENCE_MS}"):
                self._connection.exec_driver_sql(f"PRAGMA {pragma}")
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        except DBAPIError as error:
            self._engine.dispose()
            raise DatabaseUnusable(f"{self._path} cannot be held still ({error.orig})") from error

    def pin(self) -> Pinned:
        """This moment; it outlives the release."""
        # A reader that cannot write does not bring the log into the file either, when it is the last to close.
        engine = create_viewer_engine(self._path, "mode=ro")
        connection = engine.connect()
        connection.exec_driver_sql(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
        return Pinned(self._path, engine, connection)

    def release(self) -> None:
        """They go on."""
        self._connection.exec_driver_sql("ROLLBACK")
        self._connection.close()
        self._engine.dispose()
