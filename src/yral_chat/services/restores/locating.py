"""Which copies a running server reads: files in its own folder, and databases on its own PostgreSQL server."""

from pathlib import Path

from yral_chat.core.config import Settings
from yral_chat.core.errors import Invalid, NotFound
from yral_chat.db.backends import beside
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.urls import backend_of, database_path, file_url


def locate(settings: Settings, *, file: str | None, database: str | None) -> str:
    """The URL of the copy that was named in one of the two ways. Asks the file system. Raises Invalid, NotFound."""
    if (file is None) == (database is None):
        raise Invalid.field(["body"], "Name the copy: a file, or a database on the same PostgreSQL server", "missing")
    if database is not None:
        try:
            return beside(settings.resolved_database_url, database)
        except DatabaseUnusable as error:
            raise Invalid.field(["body", "database"], str(error)) from error
    folder = settings.data_dir.resolve()
    path = (folder / str(file)).resolve()
    if not path.is_relative_to(folder):
        raise Invalid.field(["body", "file"], "The copy has to lie below DATA_DIR")
    if not path.is_file():
        raise NotFound("There is no such file below DATA_DIR")
    if _is_served(settings, path):
        raise Invalid.field(["body", "file"], "That is the database that is served, and no copy of it")
    return file_url(path)


def _is_served(settings: Settings, path: Path) -> bool:
    """Whoever reads that as a file takes SQLite's locks on it away: see db/files.py."""
    url = settings.resolved_database_url
    if backend_of(url) != "sqlite":
        return False
    served = database_path(url)
    return served.exists() and served.samefile(path)
