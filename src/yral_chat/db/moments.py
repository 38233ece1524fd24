"""One moment of a SQLite database that a server writes: held still for milliseconds, and then looked at for longer.

Without SQLAlchemy, see files.py.

For a process of its own, in which nobody else opens that file: to close any handle of it would take away the locks.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from yral_chat.db.checksums import TableSum, TableUnreadable, sum_sqlite
from yral_chat.db.failures import DatabaseDamaged, DatabaseUnusable
from yral_chat.db.files import INTERRUPT, QUICK_CHECK, check_log, connect_viewer, damage_in, error_code, load_driver

# How long we wait for the server's transactions to end: each takes milliseconds.
PATIENCE_MS = 5000
# Whoever reads all of it once comes back to none of it.
CACHE_KIB = 256


class Pinned:
    """The database as it was at one moment. The log cannot begin anew while it is open. Raises the driver's Error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A reader that cannot write does not bring the log into the file either, when it is the last to close.
        self._driver = _connect(
            path, "mode=ro", f"PRAGMA cache_size=-{CACHE_KIB}", "BEGIN", "SELECT count(*) FROM sqlite_schema"
        )

    def sum_tables(self) -> dict[str, TableSum]:
        """See `sum_sqlite`; raises TableUnreadable, also once `interrupt` was called."""
        return sum_sqlite(self._driver)

    def check_damage(self) -> None:
        """Reads every page, also of indexes. Raises DatabaseDamaged; once `interrupt` was called TableUnreadable."""
        try:
            damage = damage_in(self._driver.execute(QUICK_CHECK).fetchone()[0])
        except self._driver.Error as error:
            if error_code(error) == INTERRUPT:
                raise TableUnreadable(str(error)) from error
            raise DatabaseDamaged(self._path, str(error)) from error
        if damage:
            raise DatabaseDamaged(self._path, damage)

    def interrupt(self) -> None:
        """From another thread: whoever sums gives up. Does nothing once it is closed."""
        with suppress(self._driver.ProgrammingError):
            self._driver.interrupt()

    def close(self) -> None:
        self._driver.close()


class StandingStill:
    """From its making to its release nobody commits. Raises DatabaseUnusable."""

    def __init__(self, path: Path) -> None:
        check_log(path)
        self._path = path
        # The log is Litestream's to bring into the file.
        statements = ("PRAGMA wal_autocheckpoint=0", f"PRAGMA busy_timeout={PATIENCE_MS}", "BEGIN IMMEDIATE")
        try:
            self._driver = _connect(path, "mode=rw", *statements)
        except load_driver().Error as error:
            raise DatabaseUnusable(f"{path} cannot be held still ({error})") from error

    def pin(self) -> Pinned:
        """This moment; it outlives the release. Raises DatabaseUnusable."""
        try:
            return Pinned(self._path)
        except load_driver().Error as error:
            raise DatabaseUnusable(f"{self._path} cannot be read ({error})") from error

    def release(self) -> None:
        """They go on."""
        self._driver.execute("ROLLBACK")
        self._driver.close()


def _connect(path: Path, options: str, *statements: str) -> Any:
    """For `options` see `connect_viewer`. Raises the driver's Error."""
    driver = connect_viewer(path, options)
    try:
        for statement in statements:
            driver.execute(statement).fetchall()
    except driver.Error:
        driver.close()
        raise
    return driver
