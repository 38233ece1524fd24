"""Services on a real database."""

from tests.db.conftest import database, database_url

__all__ = ["database", "database_url"]
