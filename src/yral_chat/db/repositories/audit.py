"""What an operator has to be able to look up later."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import insert

from yral_chat.core.ids import new_id
from yral_chat.db.execution import Executor, Statement
from yral_chat.db.tables import audit_events

_ADD = Statement(insert(audit_events))


class AuditRepository:
    """Rows of `audit_events`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(
        self, action: str, subject: str, time: int, *, reason: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        """Notes that `action` happened to `subject` at `time` (microseconds). `details` are JSON-ready and hold no
        texts of people."""
        row = {
            "id": new_id(),
            "action": action,
            "subject": subject,
            "reason": reason,
            "details": orjson.dumps(details or {}).decode(),
            "created_at": time,
        }
        self._executor.run(_ADD, row)
