"""The newest backup of a PostgreSQL database, restored aside and looked at.

A dump goes into a scratch database, on the same server or that of BACKUP_DRILL_DATABASE_URL. With BACKUP_DRILL_COMMAND
a base backup and its log are restored into a server of their own, and that is looked at.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, target_of
from yral_chat.clients.postgres_tools import PostgresToolError, PostgresToolMissing, find_tool, restored_aside
from yral_chat.core.clock import SECOND, from_text, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import StorageFull
from yral_chat.db.exports import first_change_since, newest_change
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.scratch import is_empty
from yral_chat.db.verification import UNASKED, examine
from yral_chat.services.backups.alone import only_one
from yral_chat.services.backups.dumps import DumpFailed, Dumps
from yral_chat.services.backups.judging import as_finding
from yral_chat.services.backups.proof import Finding, Proof, conclude
from yral_chat.services.backups.repeating import check_erasures
from yral_chat.services.backups.restoring import Say
from yral_chat.services.backups.scratch import ScratchUnusable
from yral_chat.services.backups.scratch_databases import scratch, scratch_name

# Of the server or of a program: https://www.postgresql.org/docs/15/errcodes-appendix.html has it as 53100.
DISK_FULL: Final = "No space left on device"
NO_ROOM: Final = (
    "There is no room to restore the backup and look at it: the disk is full. Make room for a second copy of the "
    "database, or name another server in BACKUP_DRILL_DATABASE_URL."
)


class PostgresDrill:
    """One. `say` is told what is being done. What is restored is gone afterwards."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._url = settings.resolved_database_url
        self._findings: list[Finding] = []
        self._facts: dict[str, object] = {}

    async def run(self) -> Proof:
        """What came out; raises nothing that a backup can cause. Raises ScratchUnusable, which says nothing of it."""
        started, moment = time.monotonic(), 0
        command = self._settings.backup_drill_command
        lock = self._settings.data_dir / "backup-drill.lock"
        with only_one(lock, ScratchUnusable("Another drill runs; wait for its end.")):
            try:
                moment = await (self._restore_dump() if command is None else self._run_command(command))
            except BackupStoreError as error:
                raise ScratchUnusable(f"The backup cannot be used: {error.reason}.") from error
            except (DumpFailed, DatabaseUnusable, PostgresToolError, StorageFull) as error:
                if isinstance(error, StorageFull) or DISK_FULL in str(error):
                    raise ScratchUnusable(NO_ROOM) from error
                if not await self._can_go_on(error):
                    raise ScratchUnusable(str(error)) from error
                self._find(str(error))
        return conclude(self._settings, started, moment, self._findings, self._facts)

    async def _can_go_on(self, error: Exception) -> bool:
        """Whether all was there that a drill needs, and so it is the backup that is wrong."""
        if isinstance(error, PostgresToolMissing) or isinstance(error.__cause__, BackupStoreError):
            return False
        try:
            await asyncio.to_thread(is_empty, self._server)
        except DatabaseUnusable:
            return False
        return True

    @property
    def _server(self) -> str:
        """The one that a drill cannot do without."""
        elsewhere = self._settings.backup_drill_database_url
        if elsewhere is None or self._settings.backup_drill_command is not None:
            return self._url
        return elsewhere.get_secret_value()

    def _find(self, text: str) -> None:
        self._findings.append(Finding("drill", text))

    async def _restore_dump(self) -> int:
        """Returns the moment that the newest dump is of."""
        find_tool("pg_restore")
        dumps = Dumps(self._settings)
        dump = await dumps.find(of=await dumps.own_id())
        at = from_text(dump.at)
        self._facts |= {
            "database_id": dump.database_id, "bytes": dump.database_size, "rows": dump.rows,
            "recovery_point_seconds": round((now() - at) / SECOND, 3),
        }  # fmt: skip
        self._say(f"Restoring the dump of {dump.at}.")
        async with self._scratch(dump.database_id) as url:
            started = time.monotonic()
            for findings in await dumps.bring(dump, url, lambda _: None):
                self._findings += findings
            self._facts |= {"is_compared": True, "recovery_seconds": round(time.monotonic() - started, 3)}
            self._say("Erasing again who was erased.")
            self._findings += await check_erasures(self._settings, dumps.store, dump.database_id, url, dump.erasures)
        return at

    @asynccontextmanager
    async def _scratch(self, database_id: str) -> AsyncIterator[str]:
        """Raises ScratchUnusable where none can be made."""
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(scratch(self._server, scratch_name("drill", database_id)))
            except DatabaseUnusable as error:
                raise ScratchUnusable(str(error)) from error
            yield url

    async def _run_command(self, command: str) -> int:
        """Returns until when all came back: to the first change that is missing, or to the beginning of the drill."""
        began, present = now(), await asyncio.to_thread(newest_change, self._url)
        started = time.monotonic()
        self._say("Restoring by BACKUP_DRILL_COMMAND.")
        async with restored_aside(command, self._url) as url:
            self._facts |= {"recovery_seconds": round(time.monotonic() - started, 3)}
            self._say("Looking at all of it.")
            found = await asyncio.to_thread(examine, url)
            if found.is_partial:
                self._say(f"Its tables are of another version ({found.revision}): {UNASKED}.")
            self._findings += [as_finding(fault) for fault in found.faults]
            restored = await asyncio.to_thread(newest_change, url)
            if restored.database_id != present.database_id:
                self._find("What was restored is another database.")
            missing = await asyncio.to_thread(first_change_since, self._url, restored.at)
            complete = began if missing is None else min(began, missing)
            self._facts |= {
                "database_id": restored.database_id, "bytes": restored.size,
                "recovery_point_seconds": round((began - complete) / SECOND, 3),
                "rows": sum(table.rows for table in found.tables.values()),
            }  # fmt: skip
            if self._settings.backup_url is not None:
                self._say("Erasing again who was erased.")
                store = BackupStore(target_of(self._settings, self._settings.backup_url))
                self._findings += await check_erasures(self._settings, store, restored.database_id, url)
        return complete
