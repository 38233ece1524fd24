"""Brings a database to the present tables, or says why it cannot. Alembic is imported only when there is work."""

from contextlib import suppress
from pathlib import Path

from loguru import logger
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from yral_chat.db.copies import make_copy
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.files import check_file
from yral_chat.db.sqlite import create_sqlite_engine, create_viewer_engine
from yral_chat.db.urls import database_path

# The newest revision in versions/. Known here, so that an up-to-date start need not read them; a test compares.
HEAD = "0005"


def open_engine(url: str, *, is_replicated: bool = False) -> Engine:
    """A plain engine for schema work. Raises DatabaseUnusable."""
    if make_url(url).get_backend_name() == "sqlite":
        path = database_path(url)
        check_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)  # people's conversations are nobody else's; what SQLite puts beside it inherits this
        elif path.stat().st_size:
            _look_first(path)
        return create_sqlite_engine(path, is_replicated=is_replicated)
    from yral_chat.db.postgres import create_postgres_engine  # lazily, as in backends.py

    return create_postgres_engine(url)


def _look_first(path: Path) -> None:
    """Raises DatabaseUnusable for what is not ours: to open it as ours would change its journal, and so the file."""
    engine = create_viewer_engine(path)
    try:
        with engine.connect() as connection:
            check_revision(find_revision(connection))
    except DBAPIError as error:
        raise DatabaseUnusable(f"{path} cannot be used ({error.orig}); it was left untouched.") from error
    finally:
        engine.dispose()


def find_revision(connection: Connection) -> str | None:
    """The revision of the tables; None when there are none. Raises DatabaseUnusable for what is not ours."""
    names = set(inspect(connection).get_table_names())
    if "alembic_version" not in names:
        if names:
            raise DatabaseUnusable(
                "The database holds tables of something else; nothing was changed. Set DATABASE_URL to another one."
            )
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def check_revision(revision: str | None) -> None:
    """Raises DatabaseUnusable when the database is ahead of this program."""
    known = {path.stem.split("_")[0] for path in (Path(__file__).parent / "versions").glob("[0-9]*.py")}
    if revision is not None and revision not in known:
        raise DatabaseUnusable(
            f"The database belongs to a newer version (schema {revision}, this program knows {HEAD}); "
            "nothing was changed. Start the newer version, or go back: docs/operations/upgrades.md."
        )


def migrate(url: str, *, is_replicated: bool = False, has_copy: bool = True) -> bool:
    """Creates or upgrades the tables in one transaction. True when there was something to do.

    What is there is copied first on SQLite, unless not `has_copy` (copies.py). A failure leaves the old state. Raises
    DatabaseUnusable when the database is not ours, newer or unreadable, when it cannot be copied or upgraded.
    """
    engine = open_engine(url, is_replicated=is_replicated)
    try:
        with engine.connect() as connection:
            revision = find_revision(connection)
            check_revision(revision)
            if revision == HEAD:
                return False
            is_sqlite = connection.dialect.name == "sqlite"
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "SELECT 1")
            if is_sqlite and revision is not None and has_copy:
                make_copy(database_path(url), HEAD)
            _upgrade(connection, revision or "empty")
            logger.info("database.migrated", before=revision or "empty", after=HEAD)
            return True
    except DBAPIError as error:
        raise DatabaseUnusable(f"The database cannot be used: {error.orig}") from error
    finally:
        engine.dispose()


def _upgrade(connection: Connection, before: str) -> None:
    """Ends the transaction that has begun. Raises DatabaseUnusable."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    # A percent sign begins an interpolation there.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    outcome = "Nothing was changed: the version that you came from can start as before."
    try:
        command.upgrade(config, HEAD)
        # An answer that is lost says neither.
        outcome = "Either everything was changed, or nothing: start again, and it goes on from there."
        connection.exec_driver_sql("COMMIT")
    except Exception as error:  # whatever it is, the operator has to know where this leaves the database
        with suppress(DBAPIError):  # the database may have given up the transaction by itself, or be gone
            connection.exec_driver_sql("ROLLBACK")
        logger.exception("database.not_migrated", before=before, after=HEAD)
        raise DatabaseUnusable(
            f"The tables could not be brought from revision {before} to {HEAD} ({_reason(error)}). {outcome}"
        ) from error


def _reason(error: Exception) -> str:
    """One line. What PostgreSQL says behind its first one quotes rows."""
    if isinstance(error, DBAPIError):
        return str(error.orig).partition("\n")[0]
    return type(error).__name__
