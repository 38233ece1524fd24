"""Why a database cannot be used: sentences for the operator. Nothing was changed.

CannotGoOn
├── DatabaseInUse
└── DatabaseUnusable ─ NotSQLite, DatabaseDamaged

Without SQLAlchemy, see files.py.
"""

from pathlib import Path

from yral_chat.core.failures import CannotGoOn


class DatabaseInUse(CannotGoOn):
    """Another process serves this database."""


class DatabaseUnusable(CannotGoOn):
    """The database cannot be opened or is not ours; the message says what to do. Nothing was changed."""


class NotSQLite(DatabaseUnusable):
    """The file is something else, or its beginning is not what was written."""


class DatabaseDamaged(DatabaseUnusable):
    """`path` is not what was written; `what` is a clause, mostly in SQLite's words."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is damaged ({what})")
        self.path = path
        self.what = what
