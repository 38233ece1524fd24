"""What each vendor call cost."""

from typing import Any

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import usage_events

_ADD = Statement(for_both(usage_events, lambda statement: statement.on_conflict_do_nothing(index_elements=["id"])))


class UsageRepository:
    """Rows of `usage_events`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds complete rows; one that is there already (same id) stays as it is."""
        if rows:
            self._executor.run_many(_ADD, rows)
