"""Looks into a database beside the server that writes it, or without one; changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from yral_chat.db.database import UnitOfWork
from yral_chat.db.execution import Executor
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.files import check_file
from yral_chat.db.inspection import viewer_options
from yral_chat.db.migrations import HEAD, find_revision
from yral_chat.db.sqlite import create_viewer_engine
from yral_chat.db.urls import backend_of, database_path


@contextmanager
def viewing(url: str) -> Iterator[UnitOfWork]:
    """One consistent look. Raises DatabaseUnusable when there is nothing to look at, or nothing that we know."""
    with looking(url) as connection:
        if find_revision(connection) != HEAD:
            raise DatabaseUnusable("The tables are of another version. Run yral-chat migrate, or start the server.")
        yield UnitOfWork(Executor(connection))


@contextmanager
def looking(url: str) -> Iterator[Connection]:
    """A transaction that sees one state and can change nothing. Raises DatabaseUnusable."""
    try:
        with _sqlite_look(database_path(url)) if backend_of(url) == "sqlite" else _postgres_look(url) as connection:
            yield connection
    except DBAPIError as error:
        raise DatabaseUnusable(f"The database cannot be read: {error.orig}") from error


@contextmanager
def _sqlite_look(path: Path) -> Iterator[Connection]:
    engine = _sqlite_viewer(path)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _postgres_look(url: str) -> Iterator[Connection]:
    from yral_chat.db.postgres import connected  # lazily, as in backends.py

    with connected(url) as connection:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield connection


def _sqlite_viewer(path: Path) -> Engine:
    check_file(path)
    if not path.exists():
        raise DatabaseUnusable(f"There is no database at {path}. The first start creates it.")
    options = viewer_options(path)
    if options is None:
        raise DatabaseUnusable(f"{path} has a log that only a start of the server can read. Start it once.")
    return create_viewer_engine(path, options)
