"""PostgresBackup: what `serve` does for the backup of a PostgreSQL database, beside what its own tools do.

It makes dumps at BACKUP_URL at intervals, proves that the newest backup restores, and keeps the log of erasures there.
"""

import asyncio
import math
from contextlib import suppress
from functools import cached_property
from typing import Final, Literal

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, target_of
from yral_chat.core.clock import SECOND, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.logging import log
from yral_chat.core.metrics import Metrics
from yral_chat.db.database import Database
from yral_chat.services.backups import erasures
from yral_chat.services.backups.dumps import DumpFailed, Dumps
from yral_chat.services.backups.proving import STALE_SECONDS, Proving, run_command

# People come first.
PAUSE_SECONDS: Final = 300.0
# For the metrics: how new the newest dump is, whoever makes them.
LOOK_SECONDS: Final = 600.0
# Between dumps that others make: every night.
HOURS_OF_OTHERS: Final = 24
MAX_DUMP_SECONDS: Final = 6 * 3600.0


class PostgresBackup:
    """Needs BACKUP_URL, or BACKUP_DRILL_COMMAND for an archive that others make.

    `pause_seconds` pass before the first dump, and after one that failed.
    """

    def __init__(
        self, settings: Settings, database: Database, metrics: Metrics, *, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._settings = settings
        self._pause_seconds = pause_seconds
        self._database = database
        url = settings.backup_url
        # One for all the time: to open a folder waits for its disk, and everybody with it.
        store = None if url is None else BackupStore(target_of(settings, url))
        self._erasures = None if store is None else erasures.Sender(store, settings.data_dir)
        self._failed_at: float | None = None  # the last dump, if it did
        self._tasks: list[asyncio.Task[None]] = []
        self._newest_at = math.nan
        # A dump of last night is looked at by the next drill.
        hours = settings.backup_drill_hours + (settings.backup_dump_hours or HOURS_OF_OTHERS)
        stale = STALE_SECONDS + hours * 3600 if settings.backup_drill_command is None else STALE_SECONDS
        self.proving = Proving(
            settings.data_dir,
            settings.backup_drill_hours,
            lambda: self._is_provable,
            lambda proof: proof.is_of(settings.backup_url, None),
            stale_seconds=stale,
        )
        metrics.watch_backup(lambda: float(not self._has_failed), lambda: math.nan, lambda: math.nan, self.proving)
        metrics.watch_dumps(lambda: self._newest_at)

    def start(self) -> None:
        self.proving.start()
        if self._settings.backup_url is None:
            return
        self._tasks.append(asyncio.create_task(self._look_forever()))
        if self._settings.backup_dump_hours:
            self._tasks.append(asyncio.create_task(self._dump_forever()))

    async def stop(self) -> None:
        await self.proving.stop()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def condition(self) -> tuple[Literal["up", "degraded", "down"], str | None]:
        """For `/health`: the state, and a fixed short text where something is wrong."""
        if self._has_failed:
            return "degraded", "the last dump failed"
        if self.proving.has_failed:
            return "degraded", "the last drill has found something wrong"
        if self.proving.is_stale:
            return "degraded", "for too long nothing has proved that the backup restores"
        return "up", None

    @property
    def _has_failed(self) -> bool:
        """The last dump, and since then nobody has made one by hand."""
        return self._failed_at is not None and not self._newest_at > self._failed_at

    @property
    def _is_provable(self) -> bool:
        """Before the first dump a drill would say that the backup does not restore, and page somebody."""
        return self._settings.backup_drill_command is not None or self._newest_at > 0

    lag_seconds = None  # a dump is of last night, and the archive is the server's

    async def send_erasures(self) -> None:
        """A chore: the dump of last night does not know who was erased today."""
        if self._erasures is None:
            return
        try:
            database_id = await self._database.read(lambda uow: uow.installation.get_id())
            await self._erasures.send(database_id)
        except (BackupStoreError, AppError, OSError) as error:  # the latter two: of the disk here
            log.warning("backup.erasures_not_sent", error=str(error))

    async def _dump_forever(self) -> None:
        while True:
            try:
                await asyncio.sleep(max(self._pause_seconds, await self.seconds_left()))
                await self._dump()
            except Exception:  # noqa: BLE001 - a process that cannot be forked now; nobody would make dumps any more
                self._failed_at = now() / SECOND
                log.exception("backup.not_dumped")
                await asyncio.sleep(self._pause_seconds)

    async def _dump(self) -> None:
        began = now() / SECOND
        status = await run_command("dump", MAX_DUMP_SECONDS)
        if status:
            self._failed_at = began  # one that counts has failed in something else, and is newer
            log.error("backup.not_dumped", status=status)
        else:
            self._failed_at = None
            log.info("backup.dumped")
        await self.look()

    async def _look_forever(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - as above; the metrics would stay as they are for ever
                log.exception("backup.not_seen")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """How new the newest dump is; while the target or the database is away, it is what it was."""
        with suppress(DumpFailed, AppError):
            self._newest_at = (await self._find_newest() or 0) / SECOND

    async def seconds_left(self) -> float:
        """Until the next dump is due, whoever has made the last one."""
        try:
            newest_at = await self._find_newest() or 0
        except (DumpFailed, AppError):
            return 0  # the dump itself will say what is the matter
        return self._settings.backup_dump_hours * 3600 - (now() - newest_at) / SECOND

    async def _find_newest(self) -> int | None:
        database_id = await self._database.read(lambda uow: uow.installation.get_id())
        return await self._dumps.newest_at(database_id)

    @cached_property
    def _dumps(self) -> Dumps:
        """As the store. Raises DumpFailed."""
        return Dumps(self._settings)
