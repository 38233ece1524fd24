"""Tables of an older version are brought up to date, with what people had in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Integer, MetaData, insert, inspect, select

from yral_chat.db import migrations
from yral_chat.db.migrations import HEAD, find_revision, migrate, open_engine

OLDER = [f"{number:04d}" for number in range(1, int(HEAD))]
# In the order of their references; what every version has.
TABLES = ("influencers", "conversations", "participants", "messages", "jobs", "principals")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres").create_database()
        return url
    return f"sqlite:///{tmp_path}/old.db"


def make(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def fill(connection: Connection) -> None:
    """One row in each, as far as its columns want something."""
    declared = MetaData()
    declared.reflect(connection)
    for name in TABLES:
        table = declared.tables[name]
        row: dict[str, Any] = {
            column.name: 1 if isinstance(column.type, Integer) else f"{column.name} of old"
            for column in table.columns
            if not column.nullable and column.server_default is None
        }
        row |= {key: value for key, value in _same().items() if key in table.columns}
        if name in ("influencers", "conversations"):
            row["id"] = "old"
        for column in table.columns:
            if column.type.python_type is bool and column.name in row:
                row[column.name] = False
        connection.execute(insert(table).values(row))


def _same() -> dict[str, Any]:
    return {"conversation_id": "old", "influencer_id": "old", "user_id": "somebody", "principal_id": "somebody"}


def everything(url: str) -> Iterator[tuple[str, int]]:
    """(table, rows) of those that were filled."""
    engine = open_engine(url)
    with engine.connect() as connection:
        declared = MetaData()
        declared.reflect(connection)
        for name in TABLES:
            yield name, len(connection.execute(select(declared.tables[name])).all())
        assert find_revision(connection) == HEAD
        assert inspect(connection).has_table("usage_days")
    engine.dispose()


@pytest.mark.parametrize("revision", OLDER)
def test_older_tables_are_upgraded_with_what_is_in_them(empty_url: str, revision: str) -> None:
    engine = open_engine(empty_url)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else "SELECT 1")
        make(connection, revision)
        fill(connection)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    assert migrate(empty_url)
    assert dict(everything(empty_url)) == dict.fromkeys(TABLES, 1)
    assert not migrate(empty_url), "there is nothing left to do"
