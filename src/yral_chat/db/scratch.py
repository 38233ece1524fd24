"""A PostgreSQL database that is made for a while: a backup is restored into it and looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from yral_chat.db.failures import DatabaseUnusable

NOT_ALLOWED = "42501"  # https://www.postgresql.org/docs/15/errcodes-appendix.html


@contextmanager
def scratch_database(url: str, name: str) -> Iterator[str]:
    """The URL of an empty database `name` on the server of `url`; gone afterwards.

    One of that name that a process left behind when it was killed is dropped first. Raises DatabaseUnusable.
    """
    _run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    _run(url, f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0")
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        _run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _run(url: str, statement: str) -> None:
    """Outside of any transaction."""
    from yral_chat.db.postgres import connected  # lazily, as in backends.py

    try:
        with connected(url) as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(statement)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == NOT_ALLOWED:
            raise DatabaseUnusable(
                f"{make_url(url).username} may not create databases, which this needs: ALTER ROLE … CREATEDB, or, for "
                "drills, name a role or another server in BACKUP_DRILL_DATABASE_URL."
            ) from error
        raise DatabaseUnusable(f"No database to restore into: {error.orig}") from error


def is_empty(url: str) -> bool:
    """Whether there is no table in it. Raises DatabaseUnusable."""
    from yral_chat.db.postgres import connected  # lazily, as in backends.py

    try:
        with connected(url) as connection:
            query = "SELECT NOT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = ANY (current_schemas(false)))"
            return bool(connection.exec_driver_sql(query).scalar())
    except DBAPIError as error:
        raise DatabaseUnusable(f"The database cannot be used: {error.orig}") from error
