"""All of it at once, for a database that is named by its URL."""

from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from yral_chat.db.migrations import find_revision
from yral_chat.db.verification.checksums import TableSum, TableUnreadable, sum_tables
from yral_chat.db.verification.faults import Fault, find_broken, find_violated
from yral_chat.db.viewing import looking

P = ParamSpec("P")
T = TypeVar("T")

# What is asked takes one core each, and a small machine has two. Of 1 GB: our rules and SQLite's 15 s, checksums 11.
THREADS = 2


class Examination(msgspec.Struct, frozen=True):
    """What was found. `tables` is empty where they cannot be read; then `faults` say so."""

    revision: str | None
    faults: list[Fault]
    tables: dict[str, TableSum]


def examine(url: str, *, erasing: Collection[str] = ()) -> Examination:
    """Looks at a database that nobody writes, changes nothing, and takes seconds per gigabyte.

    Where somebody does write, each question is answered for a state of its own. For `erasing` see `find_faults`.
    Raises DatabaseUnusable when it cannot be looked at, or is not ours.
    """
    with _threads() as threads:
        parts = _ask_for_faults(threads, url, erasing)
        summed = threads.submit(_look, url, _sum)
    faults = _all(parts)
    try:
        revision, tables = summed.result()
    except TableUnreadable as error:
        return Examination(None, [*faults, Fault("tables", "The tables can be read.", 1, str(error))], {})
    return Examination(revision, faults, tables)


def find_faults_at(url: str, *, erasing: Collection[str] = ()) -> list[Fault]:
    """`examine` for who has no use for checksums: two thirds of its time."""
    with _threads() as threads:
        parts = _ask_for_faults(threads, url, erasing)
    return _all(parts)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="db-examine")


def _ask_for_faults(threads: Executor, url: str, erasing: Collection[str]) -> list[Future[list[Fault]]]:
    violated = threads.submit(_look, url, find_violated, erasing)  # first: it takes longest
    return [threads.submit(_look, url, find_broken), violated]


def _all(parts: list[Future[list[Fault]]]) -> list[Fault]:
    return [fault for part in parts for fault in part.result()]


def _look(url: str, find: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    with looking(url) as connection:
        return find(connection, *args, **kwargs)


def _sum(connection: Connection) -> tuple[str | None, dict[str, TableSum]]:
    """Raises TableUnreadable."""
    try:
        return find_revision(connection), sum_tables(connection)
    except DBAPIError as error:
        raise TableUnreadable(str(error.orig)) from error
