"""Looks into a database beside the server that writes it, or without one; changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from yral_chat.db.backends import backend_of
from yral_chat.db.database import DatabaseUnusable, UnitOfWork
from yral_chat.db.execution import Executor
from yral_chat.db.migrations import HEAD, find_revision
from yral_chat.db.postgres import connect_postgres, create_postgres_engine
from yral_chat.db.sqlite import check_file, create_viewer_engine, database_path


@contextmanager
def viewing(url: str) -> Iterator[UnitOfWork]:
    """One consistent look. Raises DatabaseUnusable when there is nothing to look at, or nothing that we know."""
    is_sqlite = backend_of(url) == "sqlite"
    engine = _sqlite_viewer(database_path(url)) if is_sqlite else create_postgres_engine(url)
    try:
        with engine.connect() if is_sqlite else connect_postgres(engine, url) as connection:
            if is_sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if find_revision(connection) != HEAD:
                raise DatabaseUnusable("The tables are of another version. Run yral-chat migrate, or start the server.")
            yield UnitOfWork(Executor(connection))
    except DBAPIError as error:
        raise DatabaseUnusable(f"The database cannot be read: {error.orig}") from error
    finally:
        engine.dispose()


def _sqlite_viewer(path: Path) -> Engine:
    """See inspection.py for what these options mean."""
    check_file(path)
    if not path.exists():
        raise DatabaseUnusable(f"There is no database at {path}. The first start creates it.")
    if Path(f"{path}-shm").exists():
        return create_viewer_engine(path, "mode=ro&readonly_shm=1")
    if (wal := Path(f"{path}-wal")).exists() and wal.stat().st_size:
        raise DatabaseUnusable(f"{path} has a log that only a start of the server can read. Start it once.")
    return create_viewer_engine(path, "immutable=1")
