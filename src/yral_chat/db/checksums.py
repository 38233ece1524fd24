"""What tables hold, as a number of rows and a checksum: to compare a copy with what it is a copy of.

The checksum is the sum of the SHA-256 of every row as MessagePack, so that neither an index nor the rules by which a
server sorts text has a say. Measured per million messages (870 MB): 3.8 s of CPU, of which 3.0 s read the rows; in the
order of the primary key and in one stream it would be 3.0 s, with BLAKE2b instead of SHA-256 4.0 s.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from sqlalchemy import Connection

ROWS_AT_ONCE = 200  # a row may have megabytes
# What others keep in the file: SQLite its own, and Litestream one that it writes to when it likes.
_STRANGERS = ("sqlite_stat", "sqlite_sequence", "_litestream_")
_SIZE = 2**256


class TableSum(msgspec.Struct, frozen=True):
    """`checksum` in hexadecimal."""

    rows: int
    checksum: str


class TableUnreadable(Exception):
    """A row that cannot be read; the text is the database's."""


class Difference(msgspec.Struct, frozen=True):
    """One table; None: it is not there."""

    table: str
    expected: TableSum | None
    found: TableSum | None


def sum_tables(connection: "Connection") -> dict[str, TableSum]:
    """Of every table, by name; on SQLite also what the schema says. Memory does not grow with the database.

    Raises TableUnreadable.
    """
    driver: Any = connection.connection.dbapi_connection
    if connection.dialect.name == "sqlite":
        return sum_sqlite(driver)
    from sqlalchemy import inspect  # lazily, see db/files.py

    return _sum_all(driver, inspect(connection).get_table_names(), is_sqlite=False)


def sum_sqlite(driver: Any) -> dict[str, TableSum]:
    """As `sum_tables`, of a connection of SQLite's own driver. Raises TableUnreadable."""
    try:
        found = driver.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    except driver.Error as error:
        raise TableUnreadable(str(error)) from error
    sums = _sum_all(driver, (name for (name,) in found if not name.startswith(_STRANGERS)), is_sqlite=True)
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
    return sums | {"sqlite_schema": _sum(driver, schema, is_sqlite=True)}


def compare(expected: Mapping[str, TableSum], found: Mapping[str, TableSum]) -> list[Difference]:
    """Tables that are not the same, by name."""
    pairs = {name: (expected.get(name), found.get(name)) for name in sorted({*expected, *found})}
    return [Difference(name, one, other) for name, (one, other) in pairs.items() if one != other]


def _sum_all(driver: Any, names: Iterable[str], *, is_sqlite: bool) -> dict[str, TableSum]:
    return {
        name: _sum(driver, f'SELECT * FROM "{name}"', is_sqlite=is_sqlite)  # noqa: S608 - from the schema
        for name in sorted(names)
    }


def _sum(driver: Any, query: str, *, is_sqlite: bool) -> TableSum:
    encode, digest, number = msgspec.msgpack.Encoder().encode, hashlib.sha256, int.from_bytes
    count = total = 0
    with _raw_rows(driver, query, is_sqlite=is_sqlite) as chunks:
        for rows in chunks:
            count += len(rows)
            total += sum(number(digest(encode(row)).digest(), "little") for row in rows)
    return TableSum(count, f"{total % _SIZE:064x}")


@contextmanager
def _raw_rows(driver: Any, query: str, *, is_sqlite: bool) -> Iterator[Iterator[list[tuple[Any, ...]]]]:
    """The driver's own rows, some at a time: SQLAlchemy's cost more than the checksum."""
    if is_sqlite:
        driver.text_factory = bytes  # also of a text that is none any more
    # Without a name the server would send all of the answer at once.
    cursor = driver.cursor() if is_sqlite else driver.cursor(name="checksum")
    try:
        cursor.execute(query)
        yield iter(lambda: cursor.fetchmany(ROWS_AT_ONCE), [])
    except driver.Error as error:
        raise TableUnreadable(str(error)) from error
    finally:
        cursor.close()
        if is_sqlite:
            driver.text_factory = str
