"""BackupService: what `serve --litestream` does around the life of the database.

`prepare` before anything opens the database, `begin` once its tables are there, `end` once it is closed.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, target_of
from yral_chat.clients.litestream import (
    Litestream,
    LitestreamError,
    Restored,
    check_socket_path,
    find_litestream,
    wait_for_orphan,
)
from yral_chat.core.clock import SECOND, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.logging import log
from yral_chat.core.metrics import Metrics
from yral_chat.db.database import Database
from yral_chat.db.inspection import find_installation
from yral_chat.services.backups import erasures, restoring
from yral_chat.services.backups.bringing_back import bring_back
from yral_chat.services.backups.catalogue import (
    Catalogue,
    CatalogueDamaged,
    Generation,
    Reason,
    find_newest,
    place,
    unmoved_since,
    unusable_text,
)
from yral_chat.services.backups.lease import Lease, LeaseTaken
from yral_chat.services.backups.local import load_state, owner_of, put_back_state, save_state
from yral_chat.services.backups.proving import Proving
from yral_chat.services.backups.replication import WATCH_SECONDS, Replication
from yral_chat.services.backups.starting import (
    Begin,
    Continue,
    Decision,
    End,
    Here,
    LocalState,
    Refuse,
    Restore,
    There,
    decide,
)
from yral_chat.services.backups.verifying import Verifier

ERASURES_SECONDS: Final = 2.0
LAST_SECONDS: Final = 5.0  # for what was erased just before the end
ARRIVAL_SECONDS: Final = 2.0
TIDY_SECONDS: Final = 6 * 3600.0


class BackupUnusable(Exception):
    """The start stops, and says this."""


class BackupService:
    """One database and its backup. `is_new` is `--new`."""

    def __init__(
        self,
        settings: Settings,
        database_path: Path,
        metrics: Metrics,
        database: Database,
        *,
        is_new: bool = False,
    ) -> None:
        assert settings.backup_url is not None  # noqa: S101 - whoever builds it has looked
        self._settings = settings
        self._path = database_path
        self._metrics = metrics
        self._database = database
        self._is_new = is_new
        self._store = BackupStore(target_of(settings, settings.backup_url))
        self._catalogue = Catalogue(self._store)
        self._owner = owner_of(settings.data_dir)
        self._lease = Lease(self._store, self._owner, ttl_seconds=settings.backup_lease_seconds, on_lost=self._lose)
        self._reason: Reason | None = None  # of the generation that is to begin
        self._database_id: str | None = None  # and the generation that is written
        self._generation: Generation | None = None
        self._earlier: Sequence[Generation] = ()  # of the database that the target has
        self._is_elsewhere = False  # what is at the target is not what was there
        self._damage: str | None = None  # of the files that lead to the backup
        self._erasures_noted = 0  # of the database that the target has
        self._was_restored = False  # by hand, since it was served last
        self._erasures = erasures.Sender(self._store, settings.data_dir)
        self._tasks: list[asyncio.Task[None]] = []
        self.replication: Replication | None = None
        self.lost_to: str | None = None
        self.is_first = False  # nothing was at the target, and it was not asked for
        self.proving = Proving(
            settings.data_dir,
            settings.backup_drill_hours,
            lambda: self._is_replicating,
            lambda proof: proof.is_of(settings.backup_url, self._database_id),
            begun_at=lambda: None if self._generation is None else unmoved_since(self._generation, self._earlier),
        )
        metrics.watch_backup(
            lambda: float(self._is_sending),
            lambda: self.replication.lag_seconds if self.replication is not None else math.nan,
            lambda: self.replication.wal_bytes if self.replication is not None else math.nan,
            self.proving,
        )

    async def prepare(self) -> None:
        """Takes the lease, restores where there is no database, and replicates where a generation goes on.

        Raises BackupUnusable, and then nothing was changed, here or there.
        """
        try:
            program = await asyncio.to_thread(find_litestream, self._settings.litestream_path)
            check_socket_path(self._settings.data_dir)
            await self._lease.acquire()
            try:
                await self._prepare(program)
            except BaseException:
                await self._lease.release()
                raise
        except BackupStoreError as error:
            raise self._unusable(error) from error
        except (LeaseTaken, LitestreamError, restoring.RestoreFailed, erasures.ErasuresNotKnown) as error:
            raise BackupUnusable(str(error)) from error

    async def begin(self) -> None:
        """Begins a generation where none goes on. Raises BackupUnusable."""
        if self.lost_to is not None:  # a restore may take longer than a lease
            raise BackupUnusable(self.lost_to)
        try:
            if self._reason is not None:
                # Not from its file: to close that would take SQLite's locks on it away from this whole process.
                database_id = await self._database.read(lambda uow: uow.installation.get_id())
                generation = await self._catalogue.begin(database_id, self._reason)
                log.info("backup.generation_begun", reason=self._reason, generation=generation.id)
                state = LocalState(self._store.target.name, database_id, generation.id, owner=self._owner)
                await asyncio.to_thread(save_state, self._settings.data_dir, state)
                litestream = self._litestream(database_id, generation)
                await asyncio.to_thread(restoring.remove_folder, litestream.state_path)
                if self.lost_to is not None:
                    raise BackupUnusable(self.lost_to)
                self._replicate(database_id, generation)
        except BackupStoreError as error:
            raise self._unusable(error) from error
        chores = (self._keep_erasures_sent(), self._note_arrival(), self._keep_catalogue(), self._tidy())
        self._tasks += [asyncio.create_task(chore) for chore in chores]
        self.proving.start()

    async def end(self) -> None:
        """Sends the last changes, lets go of the lease."""
        await self.proving.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.replication is not None:
            await self.replication.stop(may_start=self.lost_to is None and not self._is_elsewhere)
        if self._tasks:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._send_erasures()
        await self._lease.release()

    def condition(self) -> tuple[Literal["up", "degraded", "down"], str | None]:
        """For `/health`: the state, and a short text where something is wrong."""
        state = self.replication.state if self.replication is not None else "stopped"
        # Litestream tries for minutes before it says anything; the lease is written every few seconds.
        error = (self.replication.error if self.replication is not None else None) or self._lease.error
        if self.lost_to is not None:
            return "down", "another service has taken the backup over"
        if self._is_elsewhere:
            return "down", "what BACKUP_URL leads to is not the backup of this database any more"
        if state in ("down", "stopped"):
            return "down", "Litestream does not run" if error is None else f"Litestream does not run: {error}"
        if state == "lagging":
            return "degraded", f"changes do not arrive at the backup: {error or 'nobody says why'}"
        if self._damage is not None:
            return "degraded", self._damage
        if self.proving.has_failed or self.proving.is_stale:
            text = "the last drill has found something wrong"
            if not self.proving.has_failed:
                text = "for a day nothing has proved that the backup restores"
            return "degraded", text if error is None else f"{text}; {error}"
        return "up", error

    @property
    def _is_sending(self) -> bool:
        """Nothing of drills: those have alerts of their own."""
        state = self.replication.state if self.replication is not None else "stopped"
        return self.lost_to is None and state in ("starting", "replicating")

    @property
    def _is_replicating(self) -> bool:
        return self.lost_to is None and self.replication is not None and self.replication.state == "replicating"

    @property
    def lag_seconds(self) -> float | None:
        """For how long a change has been waiting to arrive; None when nobody knows."""
        return self.replication.lag_seconds if self.replication is not None else None

    async def scrub(self) -> bool:
        """Empties the write-ahead log; False when that has to be tried again."""
        return await (self.replication.scrub() if self.replication is not None else self._database.scrub())

    # --- starting

    def _unusable(self, error: BackupStoreError) -> BackupUnusable:
        text = unusable_text(self._store.target.name, error)
        if not isinstance(error, CatalogueDamaged) and self._path.exists():
            text += (
                " To serve without it meanwhile, start with LITESTREAM_ENABLED=false and without --litestream; the next"
                " start with it sends what is missing."
            )
        return BackupUnusable(text)

    async def _prepare(self, program: str) -> None:
        self._program = program
        await wait_for_orphan(self._settings.data_dir)
        here, there = await self._look_here(), await self._look_there()
        self._earlier = () if there.entry is None else there.entry.generations
        self._erasures_noted = 0 if there.entry is None else there.entry.erasures
        decision = decide(here, there, is_new=self._is_new)
        was_put_here = here.state is not None and here.state.generation is None
        self._was_restored = was_put_here or decision == Begin("restored")  # the latter: a start after that was cut
        log.info("backup.start", decision=type(decision).__name__, target=there.name)
        self.is_first = there.entry is None and decision == Begin("first")
        if self.is_first and here.database_id is None:  # as where BACKUP_URL has a slip of the pen in it
            log.warning("backup.none_found", target=there.name)
        await self._carry_out(decision)

    async def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Refuse(message):
                raise BackupUnusable(message)
            case Continue(generation):
                database_id = await asyncio.to_thread(find_installation, self._path)
                assert database_id  # noqa: S101 - else nothing could go on
                self._replicate(database_id, generation)
            case Restore(database_id, generation, txid):
                data_dir = self._settings.data_dir
                await erasures.fetch_first(self._store, database_id, data_dir, noted=self._erasures_noted)
                state = LocalState(self._store.target.name, database_id, None, End(generation.id, txid))
                found = await self._bring_back(state, generation)
                log.warning("backup.restored", txid=found.txid, duration_ms=found.duration_ms)
                self._reason = "restored"
            case _:
                self._reason = decision.reason

    async def _bring_back(self, state: LocalState, generation: Generation) -> Restored:
        """`state` holds afterwards. A failure leaves what was noted before: any file put here then is an old copy."""
        litestream, where = self._litestream(state.database_id, generation), place(state.database_id, generation.id)
        size = await Verifier(self._store, litestream, where, self._settings).bytes_then()
        former = await asyncio.to_thread(load_state, self._settings.data_dir)
        # Before it is there: a kill in between must not make it look like an old copy.
        await asyncio.to_thread(save_state, self._settings.data_dir, state)
        try:
            return await bring_back(litestream, self._path, size=size)
        except Exception:
            await asyncio.to_thread(put_back_state, self._settings.data_dir, former)
            raise

    async def _look_here(self) -> Here:
        database_id = await asyncio.to_thread(find_installation, self._path)
        state = await asyncio.to_thread(load_state, self._settings.data_dir)
        last_txid = await asyncio.to_thread(restoring.last_local_txid, self._path)
        return Here(database_id, state, last_txid, self._owner)

    async def _look_there(self) -> There:
        try:
            entry = await self._catalogue.current()
        except CatalogueDamaged:
            if not self._is_new:
                raise
            entry = None
        if entry is None:
            return There(self._store.target.name, has_other_objects=await self._catalogue.has_objects())
        found = await find_newest(entry, self._litestream)
        if found is None:
            return There(self._store.target.name, entry)
        return There(self._store.target.name, entry, newest=found[0], last_txid=found[1])

    def _litestream(self, database_id: str, generation: Generation) -> Litestream:
        settings = self._settings
        return Litestream(
            self._program,
            self._path,
            self._store.target,
            place(database_id, generation.id),
            settings.data_dir,
            retention_days=settings.backup_retention_days,
        )

    def _replicate(self, database_id: str, generation: Generation) -> None:
        self._database_id, self._generation = database_id, generation
        self.replication = Replication(self._litestream(database_id, generation), self._metrics, self._database)
        self.replication.start()

    def _lose(self, words: str) -> None:
        """Another service has taken the backup over: what is written here from now on is not backed up."""
        self.lost_to = words
        log.error("backup.lost", error=words)
        self._tasks.append(asyncio.create_task(self._go_on_without()))

    async def _go_on_without(self) -> None:
        """Litestream ends, and so nobody else shortens the log any more."""
        if self.replication is None:
            return
        await self.replication.stop(may_start=False)
        while True:
            await self.replication.cut_log()
            await asyncio.sleep(WATCH_SECONDS)

    # --- what goes on beside it

    async def _keep_erasures_sent(self) -> None:
        while True:
            await self._send_erasures()
            await asyncio.sleep(ERASURES_SECONDS)

    async def _send_erasures(self) -> None:
        """The log of erasures is as much part of the backup as the database (docs/decisions/0014)."""
        if self._database_id is None or self._is_elsewhere:
            return
        try:
            # Whoever has the backup now does not know of these; but nothing is begun where it is gone.
            if self.lost_to is not None and await self._catalogue.entry(self._database_id) is None:
                return
            await self._erasures.send(self._database_id, self._note_erasures)
        except (BackupStoreError, AppError, OSError) as error:  # the latter two: of the disk here
            log.warning("backup.erasures_not_sent", error=str(error))

    async def _note_erasures(self, count: int) -> None:
        """By the number of them a log that is deleted at the target is missed."""
        assert self._database_id is not None  # noqa: S101 - it is backed up
        if self.lost_to is not None:
            return
        with suppress(CatalogueDamaged):  # it is about to be mended, and the next erasure counts them again
            if await self._catalogue.note_erasures(self._database_id, count, is_restored=self._was_restored):
                self._was_restored = False  # who goes missing later is missed

    async def _keep_catalogue(self) -> None:
        """Mends the files that lead to the backup, and sees when the backup is not there: another disk is mounted, or
        none, or the bucket was emptied.
        """
        generation, database_id = self._generation, self._database_id
        if generation is None or database_id is None:
            return
        while self.lost_to is None:
            try:
                is_there = await self._catalogue.keep(database_id, generation)
                self._damage = None
                if is_there == self._is_elsewhere:
                    await self._move(database_id, generation, is_there=is_there)
            except CatalogueDamaged as error:
                self._damage = error.reason
            except BackupStoreError:
                pass  # a target that does not answer is the lease's to tell
            if self._is_elsewhere and self.replication is not None:
                await self.replication.cut_log()
            await asyncio.sleep(self._look_seconds)

    async def _move(self, database_id: str, generation: Generation, *, is_there: bool) -> None:
        """What Litestream writes elsewhere would be missing at the right place; once that is there again, only one that
        starts anew sees what it does not have.
        """
        is_ours = not is_there or await self._lease.is_ours()
        if self.lost_to is not None or not is_ours:  # meanwhile the place has become another's
            return
        self._is_elsewhere = not is_there
        if not is_there:
            log.error("backup.gone", target=self._store.target.name)
            if self.replication is not None:
                await self.replication.stop(may_start=False, is_sending=False)
            return
        log.info("backup.there_again", target=self._store.target.name)
        self._erasures.forget()
        self._replicate(database_id, generation)

    @property
    def _look_seconds(self) -> float:
        """A folder may be another disk from one moment to the next, and costs nothing to look at."""
        return WATCH_SECONDS if self._store.target.bucket is None else self._settings.backup_lease_seconds

    async def _note_arrival(self) -> None:
        """From then on an empty place is no start that was cut: what was there is missing."""
        generation, database_id = self._generation, self._database_id
        if generation is None or database_id is None or generation.has_arrived:
            return
        while self.lost_to is None:
            try:
                if await self._catalogue.note_arrived(database_id, generation.id):
                    return
            except BackupStoreError as error:
                log.warning("backup.arrival_not_noted", error=error.reason)
            await asyncio.sleep(ARRIVAL_SECONDS)

    async def _tidy(self) -> None:
        """Forgets generations that were over before the time that backups are kept for."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            with suppress(BackupStoreError):
                await self._forget_old()

    async def _forget_old(self) -> None:
        oldest = now() - self._settings.backup_retention_days * 24 * 3600 * SECOND
        if self._generation is None or self.lost_to is not None or self._is_elsewhere:
            return
        for generation_id in await self._catalogue.forget_before(oldest, self._generation.id):
            log.info("backup.generation_forgotten", generation=generation_id)
