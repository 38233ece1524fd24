"""Looks at a database without changing it or creating anything beside it: for the doctor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.files import LOG_ALONE, WAL_HEADER_BYTES, check_file, is_log_alone, is_served, load_driver
from yral_chat.db.migrations import check_revision, find_revision
from yral_chat.db.serve_lock import SERVE_LOCK
from yral_chat.db.sqlite import create_viewer_engine, find_damage
from yral_chat.db.urls import backend_of, database_path


class Inspection(msgspec.Struct, frozen=True):
    """What was found. Sizes in bytes; 0 on PostgreSQL."""

    place: str
    is_there: bool = True  # false: the first start creates it
    is_open_to_view: bool = True  # false: it has a write-ahead log that can only be read by changing files
    revision: str | None = None  # of the tables; None: there are none yet
    damage: str = ""
    size: int = 0
    wal_size: int = 0
    is_served: bool = False
    version: str = ""


def inspect_database(url: str) -> Inspection:
    """Raises DatabaseUnusable when it is not ours, newer than this program, or out of reach."""
    if backend_of(url) == "sqlite":
        return _inspect_sqlite(database_path(url))
    return _inspect_postgres(url)


def _inspect_sqlite(path: Path) -> Inspection:
    if is_log_alone(path):
        return Inspection(str(path), damage=LOG_ALONE)
    check_file(path)
    if not path.exists():
        return Inspection(str(path), is_there=False)
    wal = Path(f"{path}-wal")
    found = Inspection(
        str(path),
        size=path.stat().st_size,
        wal_size=wal.stat().st_size if wal.exists() else 0,
        is_served=is_served(path),
        version=load_driver().sqlite_version,
    )
    options = viewer_options(path)
    if options is None:
        return msgspec.structs.replace(found, is_open_to_view=False)
    return _look_into(found, path, options)


def viewer_options(path: Path) -> str | None:
    """How to look into the SQLite database at `path` without changing a file, for `create_viewer_engine`; None: its
    log can only be read by changing files.
    """
    wal, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    size = wal.stat().st_size if wal.exists() else 0
    if index.exists() and (is_served(path) or size != WAL_HEADER_BYTES):
        # As a reader beside the server, or after a crash: the log is read with the index that lies there.
        return "mode=ro&readonly_shm=1"
    if size > WAL_HEADER_BYTES:
        return None
    # Nobody has it open, and nothing is in the log. Without this word SQLite would create both files to look, and say
    # "locking protocol", after ten seconds, of a log that ends with its header (3.53).
    return "immutable=1"


def _look_into(found: Inspection, path: Path, options: str) -> Inspection:
    engine = create_viewer_engine(path, options)
    try:
        with engine.connect() as connection:
            revision = _revision(connection)
            damage = find_damage(connection)
    except DBAPIError as error:
        return msgspec.structs.replace(found, damage=str(error.orig))
    finally:
        engine.dispose()
    return msgspec.structs.replace(found, revision=revision, damage=damage)


def find_installation(path: Path) -> str | None:
    """The name of the SQLite database at `path`, which nobody may have open, this process either.

    None without one, or with an empty one; the empty text for one without a name, which is ours of an earlier version
    or not ours at all.

    Leaves the write-ahead log as it is: Litestream goes on in it. The last connection to close would write it into the
    database, if it could write. Raises DatabaseUnusable.
    """
    if is_log_alone(path):  # what restores puts the log aside; what creates stops at it
        return None
    check_file(path)
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        with reading_all(path) as connection:
            names = set(inspect(connection).get_table_names())
            if "installation" not in names:
                return "" if names else None
            return str(connection.exec_driver_sql("SELECT id FROM installation").scalar())
    except DBAPIError as error:
        raise DatabaseUnusable(f"{path} cannot be read ({error.orig}); it was left untouched.") from error


@contextmanager
def reading_all(path: Path) -> Iterator[Connection]:
    """A connection that reads, also what is in the log alone, and leaves that as it is. Raises DBAPIError."""
    opener, reader = create_viewer_engine(path, "mode=rw"), create_viewer_engine(path, "mode=ro")
    try:
        with opener.connect() as first:
            first.exec_driver_sql("PRAGMA schema_version").close()  # also where the schema cannot be read
            last = reader.connect()
            last.exec_driver_sql("PRAGMA schema_version").close()  # only now it has the log open
        with last:
            yield last
    finally:
        opener.dispose()
        reader.dispose()


def _revision(connection: Connection) -> str | None:
    revision = find_revision(connection)
    check_revision(revision)
    return revision


def is_served_at(url: str) -> bool:
    """Whether a process serves the database at `url`. Raises DatabaseUnusable when it is out of reach."""
    if backend_of(url) == "sqlite":
        return is_served(database_path(url))
    return _inspect_postgres(url).is_served


# https://www.postgresql.org/docs/15/view-pg-locks.html: a 64-bit key is shown in two halves, with objsubid 1.
_SERVED = text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = :high AND objid = :low)"
)


def _inspect_postgres(url: str) -> Inspection:
    from yral_chat.db.postgres import connect_postgres, create_postgres_engine  # lazily, as in backends.py

    address = make_url(url)
    engine = create_postgres_engine(url)
    try:
        with connect_postgres(engine, url) as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            halves = {"high": SERVE_LOCK >> 32, "low": SERVE_LOCK & 0xFFFFFFFF}
            return Inspection(
                f"{address.host}:{address.port or 5432}/{address.database}",
                revision=_revision(connection),
                is_served=bool(connection.execute(_SERVED, halves).scalar()),
                version=str(connection.exec_driver_sql("SHOW server_version").scalar()).split()[0],
            )
    except DBAPIError as error:
        raise DatabaseUnusable(f"The database cannot be used: {error.orig}") from error
    finally:
        engine.dispose()
