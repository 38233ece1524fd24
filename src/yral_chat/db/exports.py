"""One state of a PostgreSQL database, held for pg_dump: what it dumps is exactly what was counted and summed."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from sqlalchemy import Connection

from yral_chat.db.database import UnitOfWork
from yral_chat.db.execution import Executor
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.migrations import HEAD, find_revision
from yral_chat.db.verification import TableSum, sum_tables
from yral_chat.db.viewing import looking


class Snapshot(msgspec.Struct, frozen=True):
    """`id` is good for other sessions until the `with` ends (pg_export_snapshot). `size` in bytes on the disk."""

    id: str
    database_id: str
    revision: str
    server_version: str
    size: int
    tables: dict[str, TableSum]


@contextmanager
def exported(url: str) -> Iterator[Snapshot]:
    """Takes seconds per gigabyte before it is there. Raises DatabaseUnusable."""
    with looking(url) as connection:
        # pg_dump may take longer than the server lets sessions be idle.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        if find_revision(connection) != HEAD:
            raise DatabaseUnusable("The tables are of another version. Run yral-chat migrate, or start the server.")
        yield Snapshot(
            id=str(connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar()),
            database_id=UnitOfWork(Executor(connection)).installation.get_id(),
            revision=HEAD,
            server_version=str(connection.exec_driver_sql("SHOW server_version").scalar()).split()[0],
            size=_size(connection),
            tables=sum_tables(connection),
        )


class Change(msgspec.Struct, frozen=True):
    """The last change of a conversation, in microseconds since the epoch; 0: none. `size` in bytes on the disk."""

    database_id: str
    at: int
    size: int


def newest_change(url: str) -> Change:
    """Raises DatabaseUnusable."""
    with looking(url) as connection:
        query = "SELECT max(greatest(updated_at, last_message_time)) FROM conversations"
        newest = connection.exec_driver_sql(query).scalar()
        return Change(UnitOfWork(Executor(connection)).installation.get_id(), int(newest or 0), _size(connection))


def first_change_since(url: str, at: int) -> int | None:
    """When somebody changed a conversation for the first time after `at`; None: nobody did. Raises DatabaseUnusable.

    A conversation has the time of its last change only, its messages have those of the others.
    """
    query = (
        "SELECT least((SELECT min(created_at) FROM messages WHERE created_at > %(at)s),"
        " (SELECT min(updated_at) FROM conversations WHERE updated_at > %(at)s))"
    )
    with looking(url) as connection:
        first = connection.exec_driver_sql(query, {"at": at}).scalar()
        return None if first is None else int(first)


def _size(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar() or 0)
