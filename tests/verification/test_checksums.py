"""Counts and checksums tell a copy from its original, table by table; damage to the file is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from yral_chat.db.sqlite import create_sqlite_engine
from yral_chat.db.tables import metadata
from yral_chat.db.urls import database_path
from yral_chat.db.verification import compare, examine, find_faults, sum_tables

PAGE = 8192

of_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


def changed(connection: Connection, *statements: str) -> list[str]:
    """The tables that differ after this."""
    before = sum_tables(connection)
    for statement in statements:
        assert connection.execute(text(statement)).rowcount == 1, statement
    return [difference.table for difference in compare(before, sum_tables(connection))]


def test_a_copy_has_the_same_checksums(lived: str, copied: Callable[[], str]) -> None:
    original = examine(lived).tables
    assert compare(original, examine(copied()).tables) == []
    assert set(metadata.tables) <= set(original)


def test_one_row_less_is_told(defenceless: Connection) -> None:
    tables = sum_tables(defenceless)
    for name in [name for name in metadata.tables if tables[name].rows]:
        row = "ctid" if defenceless.dialect.name == "postgresql" else "rowid"
        delete = f"DELETE FROM {name} WHERE {row} = (SELECT {row} FROM {name} LIMIT 1)"
        assert changed(defenceless, delete) == [name]


@pytest.mark.parametrize(
    "change",
    [
        "SET content = content || ' '",
        "SET token_count = coalesce(token_count, 0) + 1",
        "SET is_handed_over = NOT is_handed_over",
        "SET transcription = ''",  # which was null
    ],
)
def test_one_value_that_is_another_is_told(defenceless: Connection, change: str) -> None:
    update = f"UPDATE messages {change} WHERE id = (SELECT min(id) FROM messages)"
    assert changed(defenceless, update) == ["messages"]


def test_two_rows_that_change_their_values_are_told(defenceless: Connection) -> None:
    before = sum_tables(defenceless)
    swap = """UPDATE messages SET content = (SELECT min(content) || max(content) FROM messages AS m
                WHERE m.role = 'user' AND m.content <> messages.content)
              WHERE id IN (SELECT min(id) FROM messages UNION SELECT max(id) FROM messages)"""
    defenceless.execute(text(swap))
    assert [difference.table for difference in compare(before, sum_tables(defenceless))] == ["messages"]


def test_a_table_or_an_index_that_is_gone_is_told(defenceless: Connection) -> None:
    before = sum_tables(defenceless)
    defenceless.execute(text("DROP INDEX ix_jobs_due"))
    defenceless.execute(text("DROP TABLE user_settings"))
    found = compare(before, sum_tables(defenceless))
    is_sqlite = defenceless.dialect.name == "sqlite"
    assert [difference.table for difference in found] == ["sqlite_schema"] * is_sqlite + ["user_settings"]
    assert found[-1].found is None
    assert {fault.check for fault in find_faults(defenceless)} == set()


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_schema_that_comes_first_in_the_search_path_hides_no_table(defenceless: Connection) -> None:
    before = sum_tables(defenceless)
    defenceless.execute(text("CREATE SCHEMA AUTHORIZATION CURRENT_USER"))
    assert defenceless.execute(text("SELECT current_schema() = current_user")).scalar()
    assert sum_tables(defenceless) == before


@pytest.fixture
def file(copied: Callable[[], str]) -> Path:
    """A copy in a file of its own."""
    return database_path(copied())


@of_sqlite
def test_a_letter_that_is_another_in_the_file_is_told_by_the_checksums_alone(lived: str, file: Path) -> None:
    data = bytearray(file.read_bytes())
    assert data.count(b"Are you there, 1") >= 1
    file.write_bytes(data.replace(b"Are you there, 1", b"Are you there, l"))
    found = examine(f"sqlite:///{file}")
    assert [fault.check for fault in found.faults] in ([], ["conversations.last_message"])
    assert "messages" in {difference.table for difference in compare(examine(lived).tables, found.tables)}


@of_sqlite
def test_a_text_that_is_none_any_more_is_told(lived: str, file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"Are you there, 1", b"Are you there, \xff"))
    found = examine(f"sqlite:///{file}")
    assert "messages" in {difference.table for difference in compare(examine(lived).tables, found.tables)}


@of_sqlite
def test_a_page_that_is_lost_is_named(file: Path) -> None:
    with create_sqlite_engine(file).connect() as connection:
        connection.exec_driver_sql("VACUUM")  # nothing is left that is not in use
    url, data = f"sqlite:///{file}", file.read_bytes()
    tables = examine(url).tables
    for start in range(PAGE, len(data), 5 * PAGE):  # without the first it is no database
        file.write_bytes(data[:start] + bytes(PAGE) + data[start + PAGE :])
        found = examine(url)
        assert found.faults or compare(tables, found.tables), f"page {start // PAGE + 1}"
