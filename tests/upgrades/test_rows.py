"""What the migrations do to tables and rows, without a service; and that there is something to try them on."""

from pathlib import Path

import pytest
from sqlalchemy import inspect

from checks.migrations_in_step import dumps_missing
from tests.upgrades.conftest import EARLIER, LeftBy
from tests.upgrades.dumps import DATA, faults_of, load, state_of, upgrade
from tests.upgrades.versions import COMMITS
from yral_chat.db.migrations import HEAD, migrate, open_engine

# In what every dump has rows.
FILLED = ("conversations", "messages", "participants", "influencers", "turns", "jobs", "usage_events", "counter_deltas")


def columns_of(url: str) -> dict[str, list[str]]:
    engine = open_engine(url)
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        found = {name: list(connection.exec_driver_sql(f"SELECT * FROM {name} WHERE false").keys()) for name in names}
    engine.dispose()
    return found


def rows_in(url: str, columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """Of these columns; the revision aside, which is to change."""
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {
            name: sorted(map(repr, connection.exec_driver_sql(f"SELECT {', '.join(names)} FROM {name}").fetchall()))
            for name, names in columns.items()
            if name != "alembic_version"
        }
    engine.dispose()
    return found


@pytest.mark.parametrize("revision", EARLIER)
def test_every_row_is_kept_as_it_was(left_by: LeftBy, revision: str) -> None:
    url = left_by(revision)
    columns = columns_of(url)
    before = rows_in(url, columns)
    assert all(before[name] for name in FILLED)
    assert migrate(url)
    assert rows_in(url, columns) == before
    assert state_of(url).revision == HEAD
    assert faults_of(url) == []
    assert not migrate(url), "there is nothing left to do"


@pytest.mark.parametrize("revision", EARLIER)
def test_a_migration_that_was_released_still_makes_the_same(data: Path, revision: str) -> None:
    """Of the tables that the real program had, and those that today's scripts make."""
    old, new = f"sqlite:///{data}/old.db", f"sqlite:///{data}/new.db"
    load(revision, old)
    engine = open_engine(new)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        upgrade(connection, revision)
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    assert state_of(new).definitions == state_of(old).definitions


def test_every_earlier_revision_has_a_dump_of_its_own_program() -> None:
    assert dumps_missing(HEAD, DATA) == []
    assert sorted(COMMITS) == sorted(path.name for path in DATA.iterdir())


def test_a_new_revision_without_a_dump_of_the_one_before_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001" / "database.sql.gz").touch()
    assert dumps_missing("0002", tmp_path) == []
    assert dumps_missing("0003", tmp_path) == ["0002"]
