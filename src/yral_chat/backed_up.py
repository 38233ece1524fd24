"""The database of a process with what backs it up: checked, opened and closed in the order in which they depend on each
other.
"""

import asyncio

from yral_chat.core.config import Settings
from yral_chat.core.metrics import Metrics
from yral_chat.db.damage import check_at_start
from yral_chat.db.database import Database
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.files import is_log_alone
from yral_chat.db.migrations import migrate
from yral_chat.db.urls import backend_of, database_path
from yral_chat.services.backups.kept import has_dumps
from yral_chat.services.backups.postgres import PostgresBackup
from yral_chat.services.backups.service import BackupService, BackupUnusable


class BackedUpDatabase:
    """`continuous` is that of SQLite, by Litestream; `dumps` that of PostgreSQL. Both are None without a backup."""

    def __init__(self, settings: Settings, database: Database, metrics: Metrics, *, is_new_backup: bool) -> None:
        self._settings = settings
        self._url = settings.resolved_database_url
        self._database = database
        self.continuous = self._build_continuous(metrics, is_new=is_new_backup)
        self.dumps = self._build_dumps(metrics)

    def _build_continuous(self, metrics: Metrics, *, is_new: bool) -> BackupService | None:
        if not self._settings.litestream_enabled:
            return None
        return BackupService(self._settings, database_path(self._url), metrics, self._database, is_new=is_new)

    def _build_dumps(self, metrics: Metrics) -> PostgresBackup | None:
        settings = self._settings
        if not has_dumps(settings) or (settings.backup_url is None and settings.backup_drill_command is None):
            return None
        return PostgresBackup(settings, self._database, metrics)

    async def open(self) -> None:
        """Brings the tables up to date. The caller has locked the database, and closes this also when it fails.

        With a backup, Litestream is there before anything changes, and so sees each change. Raises DatabaseUnusable.
        """
        try:
            await asyncio.to_thread(self._check)
            if self.continuous is not None:
                await self.continuous.prepare()
            await asyncio.to_thread(migrate, self._url, is_replicated=self.continuous is not None)
            await self._database.open()
            if self.continuous is not None:
                await self.continuous.begin()
        except BackupUnusable as error:
            raise DatabaseUnusable(str(error)) from error

    def _check(self) -> None:
        """Whoever writes into what is damaged makes it worse."""
        if backend_of(self._url) != "sqlite":
            return
        path = database_path(self._url)
        # A restore of the start keeps the log aside. Where there is nothing to restore, `migrate` refuses it.
        if self.continuous is None or not is_log_alone(path):
            check_at_start(path)

    async def close(self) -> None:
        if self.dumps is not None:
            await self.dumps.stop()
        await self._database.close()
        if self.continuous is not None:
            await self.continuous.end()
