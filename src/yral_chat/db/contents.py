"""What a SQLite file holds, in numbers, and when somebody last changed something in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Select, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from yral_chat.core.clock import to_text
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.files import check_file
from yral_chat.db.inspection import reading_all
from yral_chat.db.sqlite import create_viewer_engine
from yral_chat.db.tables import forgotten_memories, metadata

# What the service writes for itself, at its start or on the way to what other tables tell: it makes nothing newer.
OWN: Final = {"installation", "jobs", "summaries", "turns", "usage_events"}
# The same of single rows: personas that ship, and erasures, which are repeated after every restore.
SOMEBODYS: Final = {"influencers": text("seed_hash IS NULL"), "audit_events": text("action <> 'account.erased'")}


class Contents(msgspec.Struct, frozen=True):
    """`newest` is the last time that somebody changed something, in microseconds since the epoch; 0: never.

    `forgotten` grows with each memory that somebody deletes, of which no time is kept.
    """

    conversations: int
    messages: int
    newest: int
    forgotten: int = 0

    @property
    def newest_text(self) -> str:
        return to_text(self.newest) if self.newest else "never"


def look_at_contents(path: Path) -> Contents:
    """Of a SQLite file that nobody else writes, also of an earlier version. Reads all of it: 0.9 s for 650 MB.

    Raises DatabaseUnusable when it cannot be read. Changes neither the file nor its log.
    """
    check_file(path)
    try:
        with _reading(path) as connection:
            return Contents(
                conversations=int(connection.exec_driver_sql("SELECT count(*) FROM conversations").scalar() or 0),
                messages=int(connection.exec_driver_sql("SELECT count(*) FROM messages").scalar() or 0),
                forgotten=_forgotten(connection),
                newest=max((connection.execute(query).scalar() or 0 for query in _newest(connection)), default=0),
            )
    except DBAPIError as error:
        raise DatabaseUnusable(f"{path} cannot be read ({error.orig})") from error


@contextmanager
def _reading(path: Path) -> Iterator[Connection]:
    """Leaves a log where it is; where there is none, leaves none behind. Raises DBAPIError."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        with reading_all(path) as connection:
            yield connection
        return
    engine = create_viewer_engine(path, "mode=rw")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _forgotten(connection: Connection) -> int:
    """0 in the tables of a version that had no memories."""
    if not inspect(connection).has_table(forgotten_memories.name):
        return 0
    return connection.execute(select(func.sum(forgotten_memories.c.through_seq + 1))).scalar() or 0


def _newest(connection: Connection) -> Iterator[Select[Any]]:
    """Of every time that is written down in the tables and columns that this file has."""
    found = inspect(connection)
    names = set(found.get_table_names()) - OWN
    for table in metadata.sorted_tables:
        if table.name in names:
            has = {column["name"] for column in found.get_columns(table.name)}
            times = (column for column in table.columns if column.name.endswith("_at") and column.name in has)
            yield from (select(func.max(time)).where(SOMEBODYS.get(table.name, text("true"))) for time in times)
