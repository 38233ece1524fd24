"""Looks for everything that is wrong in a database, and changes nothing."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
import orjson
from sqlalchemy import Connection, Select, Text, TextualSelect, bindparam, func, select, text
from sqlalchemy.exc import DBAPIError

from yral_chat.db.migrations import HEAD, find_revision
from yral_chat.db.repositories.jobs import ERASE_JOB, RECORD_JOB
from yral_chat.db.tables import jobs, metadata
from yral_chat.db.verification.invariants import INVARIANTS, SETTLED, Invariant

MOST_OF_INTEGRITY = 20  # findings of SQLite's; the first says it all
# Each message asks for rows of other tables. Of 1 GB: 28 s of CPU with SQLite's own 2 MiB, 16 with this or more.
CACHE_KIB = 4096


class Fault(msgspec.Struct, frozen=True):
    """`check` is the name of what does not hold, `sentence` says what should; `example` is one of `count` places."""

    check: str
    sentence: str
    count: int
    example: str


def find_faults(connection: Connection, *, erasing: Collection[str] = ()) -> list[Fault]:
    """Integrity, references, and what the service itself relies on; the last only of tables of this program's revision.

    In one transaction that sees one state. `erasing` are people whose erasure has begun, beside those of whom a job
    says so. Raises DatabaseUnusable when the tables are not ours.
    """
    return [*find_broken(connection), *find_violated(connection, erasing)]


def find_broken(connection: Connection) -> list[Fault]:
    """Of `find_faults`, what SQLite itself can say."""
    if connection.dialect.name != "sqlite":
        return []
    integrity = _tried("integrity", _integrity, connection)
    return [*integrity, *_tried("references", _references, connection)]


def find_violated(connection: Connection, erasing: Collection[str]) -> list[Fault]:
    """Of `find_faults`, what we know of our tables."""
    try:
        if find_revision(connection) != HEAD:
            return []
    except DBAPIError as error:
        return [_unreadable("tables", error)]
    violations = _tried("jobs", _violations, connection, erasing)
    if connection.dialect.name == "sqlite":
        return list(violations)
    return [*_tried("references", _references_by_table, connection), *violations]


def _tried(check: str, find: Callable[..., Iterator[Fault]], connection: Connection, *args: Any) -> Iterator[Fault]:
    """What `find` finds, and as the last that it could not go on."""
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:  # there an error ends the transaction, up to here
        connection.exec_driver_sql("SAVEPOINT verification")
    try:
        yield from find(connection, *args)
    except DBAPIError as error:
        if not is_sqlite:
            connection.exec_driver_sql("ROLLBACK TO verification")
        yield _unreadable(check, error)


def _unreadable(check: str, error: DBAPIError) -> Fault:
    return Fault(check, "The tables can be read.", 1, str(error.orig))


def _integrity(connection: Connection) -> Iterator[Fault]:
    rows = connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_OF_INTEGRITY})")
    found = [str(row[0]) for row in rows if row[0] != "ok"]
    if found:
        yield Fault("integrity", "The file is whole, and indexes agree with their tables.", len(found), found[0])


def _references(connection: Connection) -> Iterator[Fault]:
    """https://www.sqlite.org/pragma.html#pragma_foreign_key_check: table, rowid, the table that it names."""
    lost = Counter((row[0], row[2]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check"))
    for (table, other), count in sorted(lost.items()):
        yield Fault(f"references.{table}", f"What {table} names in {other} is there.", count, f"{table} to {other}")


def _references_by_table(connection: Connection) -> Iterator[Fault]:
    """The same where the database has no word for it."""
    for table in metadata.sorted_tables:
        for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
            other = key.column.table.alias("other")
            is_lost = ~select(1).where(other.c[key.column.name] == key.parent).exists()
            query = select(key.parent.label("id")).where(key.parent.is_not(None), is_lost)
            sentence = f"What {table.name} names in {key.column.table.name} is there."
            yield from _count(connection, f"references.{table.name}", sentence, query)


def _violations(connection: Connection, erasing: Collection[str]) -> Iterator[Fault]:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA cache_size=-{CACHE_KIB}")
    under_way = {*erasing, *(payload["user_id"] for payload in _payloads(connection, ERASE_JOB))}
    unrecorded = sum(payload["listed"] for payload in _payloads(connection, RECORD_JOB))
    for invariant in INVARIANTS:
        yield from _tried(
            invariant.name, _check, connection, invariant, {"erasing": sorted(under_way), "unrecorded": unrecorded}
        )


def _payloads(connection: Connection, name: str) -> Iterator[Any]:
    for (payload,) in connection.execute(select(jobs.c.payload).where(jobs.c.name == name)):
        yield orjson.loads(payload)


def _check(connection: Connection, invariant: Invariant, values: dict[str, Any]) -> Iterator[Fault]:
    sql = invariant.sql.replace("{settled}", SETTLED)
    binds = [
        # An empty list would have no type.
        bindparam(name, value, Text, expanding=True) if isinstance(value, list) else bindparam(name, value)
        for name, value in values.items()
        if f":{name}" in sql
    ]
    return _count(connection, invariant.name, invariant.sentence, text(sql).bindparams(*binds).columns(id=Text))


def _count(connection: Connection, check: str, sentence: str, query: Select[Any] | TextualSelect) -> Iterator[Fault]:
    wrong = query.subquery("wrong")
    count, example = connection.execute(select(func.count(), func.min(wrong.c.id))).one()
    if count:
        yield Fault(check, sentence, count, str(example))
