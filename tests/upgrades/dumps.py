"""What a database held, as a file that is kept, and the databases that are made of it."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from sqlalchemy import Boolean, Connection, MetaData, func, insert, inspect, select, text

from checks.migrations_in_step import definitions
from yral_chat.db import migrations
from yral_chat.db.migrations import open_engine
from yral_chat.db.verification import Fault, find_faults

DATA = Path(__file__).parent / "data"
# Where a row of a numbered table has its number.
NUMBERED = ("counter_deltas", "id")


def write(database: Path, target: Path) -> None:
    """All of a SQLite database as SQL. The same database gives the same bytes."""
    with closing(sqlite3.connect(database)) as connection:
        script = "\n".join(connection.iterdump())
    target.write_bytes(gzip.compress(script.encode(), mtime=0))


def load(revision: str, url: str) -> None:
    """Makes the empty or missing database at `url` what the program of that revision left."""
    script = gzip.decompress((DATA / revision / "database.sql.gz").read_bytes()).decode()
    is_sqlite = url.startswith("sqlite")
    path = url.removeprefix("sqlite:///") if is_sqlite else ":memory:"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode=WAL; {script}")
        if not is_sqlite:
            _copy(connection, revision, url)


def upgrade(connection: Connection, revision: str) -> None:
    """Brings the tables to this revision, in the transaction of the caller."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _copy(source: sqlite3.Connection, revision: str, url: str) -> None:
    """The rows into tables that the migrations make."""
    source.row_factory = sqlite3.Row
    engine = open_engine(url)
    with engine.begin() as target:
        upgrade(target, revision)
        declared = MetaData()
        declared.reflect(target)
        for table in declared.sorted_tables:
            if table.name != "alembic_version":
                booleans = [column.name for column in table.columns if isinstance(column.type, Boolean)]
                rows = [dict(row) for row in source.execute(f"SELECT * FROM {table.name}")]
                for row in rows:
                    row |= {name: bool(row[name]) for name in booleans}
                if rows:
                    target.execute(insert(table), rows)
        name, column = NUMBERED
        highest = target.execute(select(func.max(declared.tables[name].c[column]))).scalar()
        behind = {"name": name, "column": column, "next": (highest or 0) + 1}
        target.execute(text("SELECT setval(pg_get_serial_sequence(:name, :column), :next, false)"), behind)
    engine.dispose()


class State(NamedTuple):
    """All that a database holds: rows by table, and what the database says of its tables."""

    rows: dict[str, list[str]]
    definitions: set[str]

    @property
    def revision(self) -> str:
        (row,) = self.rows["alembic_version"]
        return row.strip("(',)")


def state_of(url: str) -> State:
    """Changes nothing."""
    engine = open_engine(url)
    with engine.connect() as connection:
        rows = {
            name: sorted(repr(tuple(row)) for row in connection.exec_driver_sql(f"SELECT * FROM {name}"))
            for name in inspect(connection).get_table_names()
        }
        found = State(rows, definitions(connection))
    engine.dispose()
    return found


def faults_of(url: str) -> list[Fault]:
    """What is wrong in a database of today, also beside the service that writes it."""
    engine = open_engine(url)
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = find_faults(connection)
    engine.dispose()
    return found
