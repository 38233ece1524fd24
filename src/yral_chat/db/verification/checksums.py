"""What tables hold, as a number of rows and a checksum: to compare a copy with what it is a copy of.

The checksum is the sum of the SHA-256 of every row as MessagePack, so that neither an index nor the rules by which a
server sorts text has a say. Measured per million messages (870 MB): 3.8 s of CPU, of which 3.0 s read the rows; in the
order of the primary key and in one stream it would be 3.0 s, with BLAKE2b instead of SHA-256 4.0 s.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, inspect

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


def sum_tables(connection: Connection) -> dict[str, TableSum]:
    """Of every table, by name; on SQLite also what the schema says. Memory does not grow with the database.

    Raises TableUnreadable.
    """
    names = [name for name in inspect(connection).get_table_names() if not name.startswith(_STRANGERS)]
    sums = {name: _sum(connection, f'SELECT * FROM "{name}"') for name in sorted(names)}  # noqa: S608 - from the schema
    if connection.dialect.name == "sqlite":
        sums["sqlite_schema"] = _sum(connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return sums


def compare(expected: Mapping[str, TableSum], found: Mapping[str, TableSum]) -> list[Difference]:
    """Tables that are not the same, by name."""
    pairs = {name: (expected.get(name), found.get(name)) for name in sorted({*expected, *found})}
    return [Difference(name, one, other) for name, (one, other) in pairs.items() if one != other]


def _sum(connection: Connection, query: str) -> TableSum:
    encode, digest, number = msgspec.msgpack.Encoder().encode, hashlib.sha256, int.from_bytes
    count = total = 0
    with _raw_rows(connection, query) as chunks:
        for rows in chunks:
            count += len(rows)
            total += sum(number(digest(encode(row)).digest(), "little") for row in rows)
    return TableSum(count, f"{total % _SIZE:064x}")


@contextmanager
def _raw_rows(connection: Connection, query: str) -> Iterator[Iterator[list[tuple[Any, ...]]]]:
    """The driver's own rows, some at a time: SQLAlchemy's cost more than the checksum."""
    driver: Any = connection.connection.dbapi_connection
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        driver.text_factory = bytes  # also of a text that is none any more
    # Without a name the server would send all of the answer at once.
    cursor = driver.cursor() if is_sqlite else driver.cursor(name="checksum")
    try:
        cursor.execute(query)
        yield iter(lambda: cursor.fetchmany(ROWS_AT_ONCE), [])
    except connection.dialect.loaded_dbapi.Error as error:
        raise TableUnreadable(str(error)) from error
    finally:
        cursor.close()
        if is_sqlite:
            driver.text_factory = str
