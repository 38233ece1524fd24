"""All of it at once, for a database that is named by its URL."""

from collections.abc import Collection

import msgspec
from sqlalchemy.exc import DBAPIError

from yral_chat.db.migrations import find_revision
from yral_chat.db.verification.checksums import TableSum, TableUnreadable, sum_tables
from yral_chat.db.verification.faults import Fault, find_faults
from yral_chat.db.viewing import looking


class Examination(msgspec.Struct, frozen=True):
    """What was found. `tables` is empty where they cannot be read; then `faults` say so."""

    revision: str | None
    faults: list[Fault]
    tables: dict[str, TableSum]


def examine(url: str, *, erasing: Collection[str] = ()) -> Examination:
    """Looks at one state of the database, changes nothing, and takes seconds per gigabyte.

    For `erasing` see `find_faults`. Raises DatabaseUnusable when it cannot be looked at, or is not ours.
    """
    with looking(url) as connection:
        faults = find_faults(connection, erasing=erasing)
        try:
            return Examination(find_revision(connection), faults, sum_tables(connection))
        except (DBAPIError, TableUnreadable) as error:
            text = str(getattr(error, "orig", error))
            return Examination(None, [*faults, Fault("tables", "The tables can be read.", 1, text)], {})
