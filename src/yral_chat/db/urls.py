"""What a DATABASE_URL names.

Without SQLAlchemy where that is SQLite: see files.py.
"""

import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, unquote

from yral_chat.db.failures import DatabaseUnusable

_SQLITE: Final = re.compile(r"sqlite(\+\w+)?://")


def backend_of(url: str) -> Literal["sqlite", "postgresql"]:
    """Which of the two `url` names. Raises DatabaseUnusable for everything else."""
    if _SQLITE.match(url):
        return "sqlite"
    from sqlalchemy.engine import make_url  # lazily, see above
    from sqlalchemy.exc import ArgumentError

    try:
        backend = make_url(url).get_backend_name()
    except (ArgumentError, ValueError) as error:
        raise DatabaseUnusable("DATABASE_URL is not a URL. Use sqlite:///… or postgresql://…") from error
    if backend != "postgresql":
        raise DatabaseUnusable(f"DATABASE_URL names an unknown database: {backend}. Use sqlite:///… or postgresql://…")
    return "postgresql"


def database_path(url: str) -> Path:
    """Of a URL of SQLite, as SQLAlchemy reads it. Raises DatabaseUnusable where it names no file."""
    name = unquote(url.partition("://")[2].partition("/")[2].partition("?")[0])
    if not name or name == ":memory:":
        raise DatabaseUnusable("DATABASE_URL needs a file: sqlite:///path/to/yral_chat.db")
    return Path(name)


def file_url(path: Path) -> str:
    """The URL of the database at `path`, whatever signs are in its name."""
    return f"sqlite:///{quote(str(path.resolve()))}"
