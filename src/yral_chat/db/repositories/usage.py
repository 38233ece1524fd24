"""What each vendor call cost."""

from typing import Any

from sqlalchemy import Connection

from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import usage_events

_ADD = for_both(usage_events, lambda statement: statement.on_conflict_do_nothing(index_elements=["id"]))


class UsageRepository:
    """Rows of `usage_events`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dialect = connection.dialect.name

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds complete rows; one that is there already (same id) stays as it is."""
        if rows:
            self._connection.execute(_ADD[self._dialect], rows)
