"""The file of a SQLite database: where it is, whether it can be one, who serves it, and the driver that reads it.

Without SQLAlchemy: a drill holds 20 MB less while it restores (services/backups/drill.py).
"""

import fcntl
import importlib
import os
import sqlite3
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from yral_chat.db.failures import DatabaseDamaged, DatabaseUnusable, NotSQLite

HEADER: Final = b"SQLite format 3\x00"  # https://www.sqlite.org/fileformat.html, section 1.3
LOG_ALONE: Final = "it is empty or missing, and its log is not"
INTERRUPT: Final = 9  # https://www.sqlite.org/rescode.html
# What is wrong first, in the pages of all tables and indexes: https://www.sqlite.org/pragma.html#pragma_quick_check
QUICK_CHECK: Final = "PRAGMA quick_check(1)"
WAL_HEADER_BYTES: Final = 32  # https://www.sqlite.org/fileformat2.html#the_write_ahead_log


def load_driver() -> ModuleType:
    """The newest SQLite at hand: the pysqlite3 wheel where it exists and is newer, else the interpreter's own."""
    try:
        wheel = importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return sqlite3
    return wheel if wheel.sqlite_version_info > sqlite3.sqlite_version_info else sqlite3


def connect_viewer(path: Path, options: str = "mode=ro") -> Any:
    """A connection of the driver that cannot create the file, nor change it without "mode=rw".

    `options` of SQLite's URI: https://www.sqlite.org/uri.html. Raises the driver's Error.
    """
    uri = f"{path.resolve().as_uri()}?{options}"
    return load_driver().connect(uri, uri=True, timeout=5, isolation_level=None, check_same_thread=False)


def damage_in(answer: object) -> str:
    """What the answer to QUICK_CHECK says; empty where nothing is wrong."""
    return "" if answer == "ok" else " ".join(str(answer).split())


def error_code(error: Exception) -> int:
    """SQLite's extended result code; 0 when it has nothing to do with it."""
    return getattr(getattr(error, "orig", error), "sqlite_errorcode", None) or 0


def lock_path(path: Path) -> Path:
    """The file whose lock says that a process serves the database at `path`."""
    return Path(f"{path}.lock")


def is_served(path: Path) -> bool:
    """Whether a process serves the SQLite database at `path`: it holds the lock that `SQLiteDatabase.lock` takes."""
    try:
        handle = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def check_log(path: Path) -> None:
    """Raises DatabaseDamaged where all there is of the database at `path` is its log, with what was acknowledged last.

    SQLite takes that for a new database and deletes the log, also when it opens an empty file only to read (3.53).
    """
    if is_log_alone(path):
        raise DatabaseDamaged(path, LOG_ALONE)


def is_log_alone(path: Path) -> bool:
    """Whether there are changes in the log of a database that is empty or missing itself."""
    if path.exists() and (not path.is_file() or path.stat().st_size):
        return False
    wal = Path(f"{path.resolve()}-wal")  # SQLite follows a link, and has it there
    return wal.exists() and wal.stat().st_size > WAL_HEADER_BYTES


def check_file(path: Path) -> None:
    """Looks at the file without opening it as a database. Raises DatabaseUnusable; changes nothing.

    Not for one that this process has open: to close any handle of a file drops all of the process's locks on it
    (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
    """
    check_log(path)
    if not path.exists():
        return
    if not path.is_file():
        raise DatabaseUnusable(f"{path} is not a file. Set DATABASE_URL or DATA_DIR to another place.")
    try:
        with path.open("rb") as file:
            header = file.read(len(HEADER))
    except OSError as error:
        raise DatabaseUnusable(f"{path} cannot be read ({error.strerror}). Check its owner and permissions.") from error
    if header and header != HEADER:
        raise NotSQLite(
            f"{path} is not a SQLite database; it was left untouched. "
            "Move it away, or set DATABASE_URL to another file."
        )
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise DatabaseUnusable(
            f"{path} or its folder is read-only for this user; nothing was changed. Check owner, permissions and mount."
        )
