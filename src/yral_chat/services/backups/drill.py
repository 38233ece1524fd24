"""A drill: the backup is restored beside the service, looked at from all sides, compared, and thrown away.

Beside a server that writes, it takes one moment: everybody stands still for some milliseconds, Litestream says which
transaction that is, and a reader keeps this moment. Then exactly this transaction has to come back out of the backup.

Until it is there nothing here needs SQLAlchemy: Litestream can have its 20 MB meanwhile. What does need it is imported
where it is used (tests/backups/test_drill.py looks).
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, cast

import msgspec

from yral_chat.clients.backup_store import BackupStoreError
from yral_chat.clients.litestream import Litestream, LitestreamError, LtxFile, Position, newest, txid_text
from yral_chat.clients.ltx import LibraryMissing, check_libraries
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.config import Settings
from yral_chat.db.checksums import TableSum, TableUnreadable, compare
from yral_chat.db.failures import DatabaseDamaged, DatabaseUnusable
from yral_chat.db.files import is_served
from yral_chat.db.moments import Pinned, StandingStill
from yral_chat.db.urls import database_path, file_url
from yral_chat.services.backups.catalogue import CURRENT, CatalogueDamaged, Generation, place
from yral_chat.services.backups.histories import first, last
from yral_chat.services.backups.kept import Backups
from yral_chat.services.backups.local import load_state
from yral_chat.services.backups.proof import Finding, Proof, conclude
from yral_chat.services.backups.restoring import Progress, RestoreFailed, Say, restore_aside
from yral_chat.services.backups.scratch import ScratchUnusable, require_room, scratch_folder
from yral_chat.services.backups.verifying import Verifier

# For how long nobody may write: the service's own patience is 5 s.
STILL_SECONDS: Final = 1.0
# For so long the moment is waited for at the target. What takes longer is lost with the machine.
ARRIVAL_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.1
SEE_HEALTH: Final = "`services.backup` in /health says why"
# The log cannot begin anew while the moment is kept: from this size on the comparison is given up.
MAX_LOG_BYTES: Final = 512 * 1024 * 1024
# Of the objects that no restore of today needs, the first that together are so large are read, too.
MOST_OLDER_BYTES: Final = 256 * 1024 * 1024


class Moment(msgspec.Struct):
    """What the server had, when Litestream had counted to `txid`."""

    txid: int
    at: int
    started: float  # of time.monotonic
    sums: "asyncio.Task[dict[str, TableSum]]"
    pinned: Pinned


class Drill:
    """One. `say` is told what is being done, `progress` how much is restored."""

    def __init__(self, settings: Settings, say: Say, progress: Progress = lambda _done, _total: None) -> None:
        self._settings = settings
        self._say = say
        self._progress = progress
        self._path = database_path(settings.resolved_database_url)
        self._findings: list[Finding] = []
        self._facts: dict[str, object] = {}

    async def run(self) -> Proof:
        """What came out. Raises ScratchUnusable and RestoreFailed, which say nothing of the backup."""
        started, moment = time.monotonic(), 0
        try:
            check_libraries()
        except LibraryMissing as error:
            raise ScratchUnusable(str(error)) from error
        backups = Backups(self._settings)
        # What comes to nothing is of the database that this folder has.
        state = await asyncio.to_thread(load_state, self._settings.data_dir)
        self._facts |= {"database_id": state.database_id if state is not None else None}
        try:
            with scratch_folder(self._settings.data_dir) as folder:
                moment = await self._run(backups, folder)
        except BackupStoreError as error:
            raise ScratchUnusable(f"The backup cannot be used: {error.reason}.") from error
        except (RestoreFailed, LitestreamError, DatabaseUnusable, TableUnreadable) as error:
            cause = error.__cause__
            if isinstance(cause, BackupStoreError) and not isinstance(cause, CatalogueDamaged):
                raise ScratchUnusable(str(error)) from error
            self._find("drill", str(error))
        if self._findings:
            await self._require_target()
        return conclude(self._settings, started, moment, self._findings, self._facts)

    async def _require_target(self) -> None:
        """What is found while the target does not answer says nothing of the backup. Raises ScratchUnusable."""
        with suppress(RestoreFailed):
            try:
                await Backups(self._settings).store.get(CURRENT)
            except BackupStoreError as error:
                raise ScratchUnusable(f"The backup cannot be used: {error.reason}.") from error

    def _find(self, subject: str, text: str) -> None:
        self._findings.append(Finding(subject, text))

    async def _run(self, backups: Backups, folder: Path) -> int:
        """Returns which moment it is that was restored."""
        if await asyncio.to_thread(is_served, self._path):
            state = await asyncio.to_thread(load_state, self._settings.data_dir)
            if state is not None and state.generation is not None and state.target == backups.name:
                self._findings += await backups.find_damage(state.generation)
                return await self._beside_server(backups, folder, state.database_id, state.generation)
            self._find("server", "The server that runs does not back up to BACKUP_URL.")
        return await self._alone(backups, folder)

    async def _beside_server(self, backups: Backups, folder: Path, database_id: str, generation_id: str) -> int:
        litestream = backups.litestream(database_id, Generation(generation_id, to_text(now()), "first"))
        size = self._path.stat().st_size
        await asyncio.to_thread(require_room, folder, size)
        self._facts |= {"database_id": database_id, "generation": generation_id, "bytes": size}
        async with self._moment(litestream) as moment:
            self._facts |= {"txid": txid_text(moment.txid)}
            self._say(f"The moment is transaction {moment.txid}. Waiting for it to arrive.")
            await self._wait_arrived(litestream, moment)
            arrived = time.monotonic() - moment.started
            self._facts |= {"recovery_point_seconds": round(arrived, 6)}  # to a fast disk less than a millisecond
            restored = folder / "restored.db"
            await self._restore(backups, litestream, restored, moment.txid, moment.txid)
            await self._check(backups, restored, moment.sums)
            return moment.at

    async def _alone(self, backups: Backups, folder: Path) -> int:
        """No server: the newest state there is, without anything to compare it with."""
        self._findings += await backups.find_damage()
        entry, generation = await backups.find(None)
        litestream = backups.litestream(entry.database_id, generation)
        latest = newest(await litestream.files())
        assert latest is not None  # noqa: S101 - `find` has looked
        where = place(entry.database_id, generation.id)
        size = await Verifier(backups.store, litestream, where, self._settings).bytes_at(latest)
        await asyncio.to_thread(require_room, folder, size)
        age = max(0.0, (now() - latest.at) / SECOND)
        self._facts |= {
            "database_id": entry.database_id, "generation": generation.id, "bytes": size, "txid": latest.max_txid,
            "recovery_point_seconds": round(age, 3),
        }  # fmt: skip
        sent = await backups.last_sent(litestream, generation.id)
        restored = folder / "restored.db"
        failure: LitestreamError | BackupStoreError | None = None
        try:
            await self._restore(backups, litestream, restored, last(latest), max(sent, last(latest)))
        except (LitestreamError, BackupStoreError) as error:  # what is wrong with the database here is said as well
            failure = error
        await self._look_here()
        if failure is not None:
            raise failure
        await self._check(backups, restored, None)
        return latest.at

    async def _look_here(self) -> None:
        """At the database that nobody serves, to its end: a start has only so much time for that."""
        from yral_chat.db.damage import check_damage

        try:
            await asyncio.to_thread(check_damage, self._path, seconds=math.inf)
        except DatabaseDamaged as error:
            self._find("database", _damaged_text(error))
        except DatabaseUnusable as error:
            self._find("database", str(error))

    # --- the moment

    @asynccontextmanager
    async def _moment(self, litestream: Litestream) -> AsyncIterator[Moment]:
        """While the block runs, the server's log cannot begin anew. Raises LitestreamError, DatabaseUnusable."""
        txid, pinned = await self._pin(litestream)
        sums = asyncio.create_task(asyncio.to_thread(_sum_and_close, pinned))
        watching = asyncio.create_task(self._give_up_for_the_log(pinned, sums))
        try:
            yield Moment(txid, now(), time.monotonic(), sums, pinned)
        finally:
            watching.cancel()
            if not sums.done():
                pinned.interrupt()
            await asyncio.gather(sums, watching, return_exceptions=True)

    async def _pin(self, litestream: Litestream) -> tuple[int, Pinned]:
        until = time.monotonic() + ARRIVAL_SECONDS
        while (asked := time.monotonic()) < until:
            # Takes in what there is, so that little is left to do while all stand still.
            await _position(litestream)
            if time.monotonic() - asked < STILL_SECONDS:
                with suppress(LitestreamError, TimeoutError):
                    return await self._pin_once(litestream)
            await asyncio.sleep(STILL_SECONDS)
        raise LitestreamError("Litestream needs too long to say where it is")

    async def _pin_once(self, litestream: Litestream) -> tuple[int, Pinned]:
        still = await asyncio.to_thread(StandingStill, self._path)
        try:
            async with asyncio.timeout(STILL_SECONDS):
                position = await litestream.position()
            return position.txid, await asyncio.to_thread(still.pin)
        finally:
            await asyncio.to_thread(still.release)

    async def _give_up_for_the_log(self, pinned: Pinned, sums: "asyncio.Task[dict[str, TableSum]]") -> None:
        while not sums.done():
            await asyncio.sleep(POLL_SECONDS)
            if _log_bytes(self._path) > MAX_LOG_BYTES:
                pinned.interrupt()  # again, should it fall between two questions

    async def _wait_arrived(self, litestream: Litestream, moment: Moment) -> None:
        while (await _position(litestream)).replicated_txid < moment.txid:
            if time.monotonic() - moment.started > ARRIVAL_SECONDS:
                raise LitestreamError(f"what was committed has not arrived after {ARRIVAL_SECONDS:.0f} s: {SEE_HEALTH}")
            await asyncio.sleep(POLL_SECONDS)

    # --- what comes back

    async def _restore(self, backups: Backups, litestream: Litestream, to: Path, txid: int, sent: int) -> None:
        """That transaction; and reads meanwhile the objects that this does not need, up to `sent`."""
        self._say("Restoring, and looking at the other objects.")
        restoring, looking = await asyncio.gather(
            self._restore_one(litestream, to, txid),
            self._look_at_objects(backups, litestream, txid, sent),
            return_exceptions=True,  # what the one has found counts also where the other fails
        )
        for error in (looking, restoring):
            if error is not None:
                raise error

    async def _restore_one(self, litestream: Litestream, to: Path, txid: int) -> None:
        started, size = time.monotonic(), cast(int, self._facts["bytes"])
        await restore_aside(litestream, to, txid=txid_text(txid), size=size, progress=self._progress)
        self._facts |= {"recovery_seconds": round(time.monotonic() - started, 3)}

    async def _check(self, backups: Backups, restored: Path, sums: "asyncio.Task[dict[str, TableSum]] | None") -> None:
        from yral_chat.db.verification import UNASKED, examine
        from yral_chat.services.backups.judging import as_finding
        from yral_chat.services.backups.repeating import check_erasures

        self._say("Looking at all of it.")
        url = file_url(restored)
        found = await asyncio.to_thread(examine, url)
        self._findings += [as_finding(fault) for fault in found.faults]
        if found.is_partial:
            self._say(f"Its tables are of another version ({found.revision}): {UNASKED}.")
        self._facts |= {"rows": sum(table.rows for table in found.tables.values())}
        if sums is not None:
            await self._compare(sums, found.tables)
        self._say("Erasing again who was erased.")
        database_id = str(self._facts["database_id"])
        noted = await backups.count_erasures(database_id)
        self._findings += await check_erasures(self._settings, backups.store, database_id, url, noted)

    async def _look_at_objects(self, backups: Backups, litestream: Litestream, txid: int, sent: int) -> None:
        """Those that bring back any moment since the newest snapshot, and of the others what is little.

        What the restore reads, it checks itself.
        """
        planned = set(await litestream.plan(txid_text(txid)))
        where = place(str(self._facts["database_id"]), str(self._facts["generation"]))
        verifier = Verifier(backups.store, litestream, where, self._settings)
        since = max((last(file) for file in planned if first(file) == 1), default=0)
        left = MOST_OLDER_BYTES

        def is_read(file: LtxFile) -> bool:
            nonlocal left
            if file in planned:
                return False
            if last(file) > since:
                return True
            is_little = file.size <= left
            left -= file.size * is_little
            return is_little

        self._findings += await verifier.look(sent, read=is_read)

    async def _compare(self, sums: "asyncio.Task[dict[str, TableSum]]", found: dict[str, TableSum]) -> None:
        try:
            expected = await sums
        except DatabaseDamaged as error:
            self._find("server", _damaged_text(error))
            return
        except TableUnreadable as error:
            self._find("comparison", f"The server's own tables could not be read for it: {error}.")
            return
        from yral_chat.services.backups.judging import as_difference

        self._facts |= {"is_compared": True}
        self._findings += [as_difference(difference) for difference in compare(expected, found)]


async def _position(litestream: Litestream) -> Position:
    try:
        return await litestream.position(ARRIVAL_SECONDS)
    except LitestreamError as error:
        raise LitestreamError(f"{error}: {SEE_HEALTH}") from error


def _damaged_text(error: DatabaseDamaged) -> str:
    return f"{error}: docs/operations/restore.md says what to do. What was restored is another file."


def _log_bytes(database: Path) -> int:
    try:
        return Path(f"{database}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _sum_and_close(pinned: Pinned) -> dict[str, TableSum]:
    """Raises DatabaseDamaged, TableUnreadable."""
    try:
        pinned.check_damage()
        return pinned.sum_tables()
    finally:
        pinned.close()
