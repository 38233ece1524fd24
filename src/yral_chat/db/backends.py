"""The database behind a URL."""

from sqlalchemy.engine import make_url

from yral_chat.db.database import Database, Observe, unobserved
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.repositories.messages import MediaUrl
from yral_chat.db.sqlite import SQLiteDatabase
from yral_chat.db.urls import backend_of
from yral_chat.db.waiting import MAX_WAITING, SILENCE_SECONDS


def create_database(
    url: str,
    *,
    pool_size: int = 10,
    cache_mb: int = 32,
    media_url: MediaUrl = str,
    is_replicated: bool = False,
    max_waiting: int = MAX_WAITING,
    silence_seconds: float = SILENCE_SECONDS,
    observe: Observe = unobserved,
) -> Database:
    """The database at `url` (`sqlite:///path` or `postgresql://…`), not yet opened. Raises DatabaseUnusable.

    `pool_size` is PostgreSQL's; `cache_mb` SQLite's, in MiB for each of its connections, and
    `is_replicated` means that Litestream runs beside it. `media_url` makes the address
    that messages show out of a reference to a file; `max_waiting` units of clients may
    wait in a line; a PostgreSQL server that leaves one without an answer for `silence_seconds` counts as lost;
    `observe` is told of each unit.
    """
    if backend_of(url) == "sqlite":
        return SQLiteDatabase(
            url,
            media_url,
            cache_mb=cache_mb,
            is_replicated=is_replicated,
            max_waiting=max_waiting,
            observe=observe,
        )
    from yral_chat.db.postgres import PostgresDatabase  # with psycopg: 10 MB and 80 ms that SQLite does not need

    return PostgresDatabase(
        url,
        pool_size=pool_size,
        media_url=media_url,
        max_waiting=max_waiting,
        silence_seconds=silence_seconds,
        observe=observe,
    )


def beside(url: str, name: str) -> str:
    """The URL of another database on the same PostgreSQL server, for the same user. Raises DatabaseUnusable."""
    if backend_of(url) != "postgresql":
        raise DatabaseUnusable("Databases have names on PostgreSQL only; SQLite has files.")
    if make_url(url).database == name:
        raise DatabaseUnusable(f"{name} is the database in use, and no copy of it.")
    return make_url(url).set(database=name).render_as_string(hide_password=False)
