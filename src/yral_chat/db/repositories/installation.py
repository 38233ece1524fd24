"""The name of the database."""

from sqlalchemy import select, update

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.tables import installation

_ID = Statement(select(installation.c.id))
_TOUCH = Statement(update(installation).values(created_at=installation.c.created_at))


class InstallationRepository:
    """The row of `installation`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def get_id(self) -> str:
        """Under which backups know this database."""
        found = self._executor.text(_ID, {})
        assert found is not None  # noqa: S101 - the migration has made the row
        return found

    def touch(self) -> None:
        """A transaction that changes nothing, for whoever reads the log."""
        self._executor.run(_TOUCH, {})
