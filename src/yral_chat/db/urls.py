"""What a DATABASE_URL names.

Without SQLAlchemy where that is SQLite: see files.py.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, unquote

from yral_chat.db.failures import DatabaseUnusable

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

# What is written so is read here, and everything else by SQLAlchemy.
_SQLITE: Final = re.compile(r"sqlite(\+\w+)?:///(?P<path>[^?]*)")


def backend_of(url: str) -> Literal["sqlite", "postgresql"]:
    """Which of the two `url` names. Raises DatabaseUnusable for everything else."""
    if _SQLITE.match(url):
        return "sqlite"
    backend = _parse(url).get_backend_name()
    if backend == "sqlite":
        return "sqlite"
    if backend == "postgresql":
        return "postgresql"
    raise DatabaseUnusable(f"DATABASE_URL names an unknown database: {backend}. Use sqlite:///… or postgresql://…")


def database_path(url: str) -> Path:
    """Of a URL of SQLite, as SQLAlchemy reads it. Raises DatabaseUnusable where it names no file."""
    found = _SQLITE.match(url)
    name = unquote(found["path"]) if found is not None else _parse(url).database
    if not name or name == ":memory:":
        raise DatabaseUnusable("DATABASE_URL needs a file: sqlite:///path/to/yral_chat.db")
    return Path(name)


def file_url(path: Path) -> str:
    """The URL of the database at `path`, whatever signs are in its name."""
    return f"sqlite:///{quote(str(path.resolve()))}"


def _parse(url: str) -> "URL":
    from sqlalchemy.engine import make_url  # lazily, see above
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise DatabaseUnusable("DATABASE_URL is not a URL. Use sqlite:///… or postgresql://…") from error
