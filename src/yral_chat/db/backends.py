"""The database behind a URL."""

from sqlalchemy.engine import make_url

from yral_chat.db.database import Database, DatabaseUnusable
from yral_chat.db.postgres import PostgresDatabase
from yral_chat.db.sqlite import SQLiteDatabase


def create_database(url: str, *, pool_size: int = 10) -> Database:
    """The database at `url` (`sqlite:///path` or `postgresql://…`), not yet opened. Raises DatabaseUnusable."""
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        return SQLiteDatabase(url)
    if backend == "postgresql":
        return PostgresDatabase(url, pool_size=pool_size)
    raise DatabaseUnusable(f"DATABASE_URL names an unknown database: {backend}. Use sqlite:///… or postgresql://…")
