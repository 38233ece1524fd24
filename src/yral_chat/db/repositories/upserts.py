"""INSERT … ON CONFLICT, which SQLAlchemy offers per dialect, for both of ours at once."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert


def for_both(table: Table, build: Callable[[Any], Insert]) -> dict[str, Insert]:
    """The statement that `build` makes of a dialect's insert, by dialect name."""
    return {"sqlite": build(sqlite.insert(table)), "postgresql": build(postgresql.insert(table))}
