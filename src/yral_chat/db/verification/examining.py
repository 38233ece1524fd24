"""All of it at once, for a database that is named by its URL."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from yral_chat.db.checksums import TableSum, TableUnreadable, sum_tables
from yral_chat.db.migrations import HEAD, find_revision
from yral_chat.db.verification.faults import Fault, find_broken, find_violated
from yral_chat.db.viewing import looking

P = ParamSpec("P")
T = TypeVar("T")

# What is asked takes one core each, and a small machine has two. Of 1 GB: our rules 15 s, SQLite's 15, checksums 11.
THREADS = 2
UNASKED = "their own rules were not checked"


class Examination(msgspec.Struct, frozen=True):
    """What was found. `tables` is empty where nobody asked, or where they cannot be read; then `faults` say so."""

    revision: str | None
    faults: list[Fault]
    tables: dict[str, TableSum]

    @property
    def is_partial(self) -> bool:
        """The tables are of another version: what that one relies on was not asked (`UNASKED`)."""
        return self.revision not in (None, HEAD)


def examine(url: str, *, erasing: Collection[str] = (), is_summed: bool = True) -> Examination:
    """Looks at a database that nobody writes, changes nothing, and takes seconds per gigabyte: two thirds of them
    without checksums (`is_summed`), with which alone every row of PostgreSQL is read.

    Where somebody does write, each question is answered for a state of its own. For `erasing` see `find_faults`.
    Raises DatabaseUnusable when it cannot be looked at, or is not ours.
    """
    with ThreadPoolExecutor(THREADS, thread_name_prefix="db-examine") as threads:
        violated = threads.submit(_look, url, find_violated, erasing)
        broken = threads.submit(_look, url, find_broken)
        read = threads.submit(_look, url, _read, is_summed)
    faults = [*broken.result(), *violated.result()]
    try:
        revision, tables = read.result()
    except TableUnreadable as error:
        return Examination(None, [*faults, Fault("tables", "The tables can be read.", 1, str(error))], {})
    return Examination(revision, faults, tables)


def _look(url: str, find: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    with looking(url) as connection:
        return find(connection, *args, **kwargs)


def _read(connection: Connection, is_summed: bool) -> tuple[str | None, dict[str, TableSum]]:
    """Raises TableUnreadable."""
    try:
        return find_revision(connection), sum_tables(connection) if is_summed else {}
    except DBAPIError as error:
        raise TableUnreadable(str(error.orig)) from error
