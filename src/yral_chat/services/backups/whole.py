"""`yral-chat restore` without a server, and what a backup holds: the whole database, as of a time."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, target_of
from yral_chat.clients.litestream import Litestream, LitestreamError, LtxFile, Restored, find_litestream
from yral_chat.core.clock import SECOND, from_text, to_text
from yral_chat.core.config import Settings
from yral_chat.db import copies
from yral_chat.db.contents import Contents, look_at_contents
from yral_chat.db.damage import check_damage
from yral_chat.db.database import DatabaseUnusable
from yral_chat.db.sqlite import database_path, file_url
from yral_chat.db.verification import Examination, examine
from yral_chat.services.backups import erasures, restoring
from yral_chat.services.backups.catalogue import (
    CURRENT,
    Catalogue,
    CatalogueDamaged,
    Entry,
    Generation,
    beginning_missing_text,
    by_time,
    entry_key,
    find_newest,
    missing_text,
    place,
    unusable_text,
)
from yral_chat.services.backups.histories import first, is_followed_by_gap, last
from yral_chat.services.backups.local import load_state, replacing
from yral_chat.services.backups.proof import Finding
from yral_chat.services.backups.restoring import Progress, RestoreFailed, Say
from yral_chat.services.backups.scratch import ScratchUnusable, require_room
from yral_chat.services.backups.starting import End, LocalState
from yral_chat.services.backups.verifying import Verifier

# What the checks are called that find a file that is not whole; the others find what the service got wrong.
DAMAGE: Final = {"integrity", "references", "tables"}


class Kept(msgspec.Struct, frozen=True):
    """A generation as the target has it. Times in microseconds since the epoch."""

    database_id: str
    generation: Generation
    files: list[LtxFile]

    @property
    def oldest(self) -> int:
        return min(file.at for file in self.files)

    @property
    def newest(self) -> int:
        return max(file.at for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


class Outcome(msgspec.Struct, frozen=True):
    """What a restore has brought, and what became of the database that was there."""

    path: Path
    generation: Generation
    txid: str
    duration_ms: int
    contents: Contents
    found: Examination
    kept: Path | None


class Backups:
    """The backups of one target. Raises RestoreFailed with a plain text; needs BACKUP_URL."""

    def __init__(self, settings: Settings) -> None:
        if settings.backup_url is None:
            raise RestoreFailed("BACKUP_URL is not set: nothing says where the backup is.")
        self._settings = settings
        self.store = BackupStore(target_of(settings, settings.backup_url))
        self._catalogue = Catalogue(self.store)
        try:
            self._program = find_litestream(settings.litestream_path)
        except LitestreamError as error:
            raise RestoreFailed(str(error)) from error

    @property
    def name(self) -> str:
        return self.store.target.name

    async def list(self) -> Sequence[Kept]:
        """Every generation, the oldest first; the newest of the present database is last."""
        try:
            present = await self._marked()
            entries = await self._catalogue.list_recovered()
            if present is not None:
                entries.sort(key=lambda entry: entry.database_id == present.database_id)
            return [
                Kept(entry.database_id, generation, await self.litestream(entry.database_id, generation).files())
                for entry in entries
                for generation in entry.generations
            ]
        except (BackupStoreError, LitestreamError) as error:
            raise self._unusable(error) from error

    def litestream(self, database_id: str, generation: Generation) -> Litestream:
        settings = self._settings
        prefix = place(database_id, generation.id)
        return Litestream(
            self._program, database_path(settings.resolved_database_url), self.store.target, prefix, settings.data_dir
        )

    async def find(self, at: str | None) -> tuple[Entry, Generation]:
        """Where the newest state is; or that of the time `at` (RFC 3339), of whichever database it was then."""
        try:
            candidates = [] if at is None else by_time(await self._catalogue.list_recovered())
            if not candidates:
                present = await self._present()
                candidates = [(present, generation) for generation in present.generations]
            for entry, generation in reversed(candidates):
                if at is not None and from_text(generation.begun_at) > from_text(at):
                    continue
                files = await self.litestream(entry.database_id, generation).files()
                if at is not None and files and not any(first(file) == 1 for file in files):
                    raise RestoreFailed(beginning_missing_text(self.name, generation))
                begun = min([file.at for file in files], default=from_text(generation.begun_at))
                # Before its first object was whole the one before it is what there was.
                if at is not None and begun + SECOND > from_text(at):
                    continue
                if files:
                    return entry, generation
                if generation.has_arrived:
                    raise RestoreFailed(missing_text(self.name, generation))
        except (BackupStoreError, LitestreamError) as error:
            raise self._unusable(error) from error
        raise RestoreFailed(f"{self.name} holds nothing of {'that time' if at else 'the database'}.")

    async def find_damage(self, generation_id: str | None = None) -> Sequence[Finding]:
        """Of the files that lead to the backup: what is damaged, or not there where `generation_id` is being written.

        Where nothing is, `find` says so.
        """
        try:
            entry = await self._catalogue.read()
        except CatalogueDamaged as error:
            return [Finding("catalogue", f"{error.reason}.")]
        except BackupStoreError as error:
            raise self._unusable(error) from error
        if generation_id is None or (entry and any(one.id == generation_id for one in entry.generations)):
            return []
        key = CURRENT if entry is None else entry_key(entry.database_id)
        return [Finding("catalogue", f"{key} does not lead to generation {generation_id}, which is being written.")]

    async def count_erasures(self, database_id: str) -> int:
        """As they were noted; 0 where that is damaged, which `find_damage` says, or nobody has."""
        try:
            entry = await self._catalogue.entry(database_id)
        except CatalogueDamaged:
            return 0
        return 0 if entry is None else entry.erasures

    async def last_sent(self, litestream: Litestream, generation_id: str) -> int:
        """The last transaction that this machine has sent to this generation; 0: it has nothing to do with it."""
        state = await asyncio.to_thread(load_state, self._settings.data_dir)
        if state is None or (state.target, state.generation) != (self.name, generation_id):
            return 0
        try:
            return (await litestream.position()).replicated_txid
        except LitestreamError:  # nobody serves
            return await asyncio.to_thread(restoring.last_local_txid, litestream.database) or 0

    async def restore_to(
        self, to: Path, at: str | None, progress: Progress, say: Say, *, is_forced: bool = False
    ) -> Outcome:
        """The newest state, or that of a time, as the new file `to`. `say` is told what is being done.

        Refuses where it is not sure that this is the state of that time, unless `is_forced`.
        """
        entry, generation = await self.find(at)
        litestream = self.litestream(entry.database_id, generation)
        verifier = Verifier(self.store, litestream, place(entry.database_id, generation.id), self._settings)
        try:
            size, files = await verifier.bytes_then(at), await litestream.files()
        except (BackupStoreError, LitestreamError) as error:
            raise self._unusable(error) from error

        def check(restored: Restored) -> None:
            doubt = None if at is None else self._doubt(files, int(restored.txid, 16), at)
            if doubt and not is_forced:
                raise RestoreFailed(f"{doubt} Nothing was changed.")
            if doubt:
                say(doubt)

        restored = await restoring.bring_back(litestream, to, at=at, size=size, progress=progress, check=check)
        say("Looking at all of it.")
        contents = await asyncio.to_thread(look_at_contents, to)
        found = await asyncio.to_thread(examine, file_url(to), is_summed=False)
        return Outcome(to, generation, restored.txid, restored.duration_ms, contents, found, None)

    def _doubt(self, files: Sequence[LtxFile], txid: int, at: str) -> str | None:
        """Litestream ends before what is missing, without a word. None where the state up to `txid` is that of `at`, or
        of the second in which what is missing begins.
        """
        end = max((file.at for file in files if last(file) <= txid), default=0) + SECOND
        if from_text(at) <= end or not is_followed_by_gap(files, txid, from_text(at)):
            return None
        return (
            f"Something behind transaction {txid} is missing at {self.name}, so that this may not be the state of that "
            f"time: the last that is sure is that of --at {to_text(end)}, and `yral-chat backup verify --all` says "
            "what is missing."
        )

    async def restore_in_place(self, at: str | None, progress: Progress, say: Say, *, is_forced: bool) -> Outcome:
        """Puts it in the place of the database, which is kept aside; the caller holds the serve lock.

        Refuses when that one has something newer, unless `is_forced`.
        """
        path = database_path(self._settings.resolved_database_url)
        waiting = path.with_name(f"{path.name}.restored")
        await asyncio.to_thread(restoring.remove_database, waiting)
        try:
            present = await self._marked()
            newest = None if present is None else await find_newest(present, self.litestream)
            outcome = await self.restore_to(waiting, at, progress, say, is_forced=is_forced)
            if not is_forced:
                refuse_damaged(outcome)
                await asyncio.to_thread(refuse_newer, path, outcome.contents)
            entry = await self.fetch_erasures(at, told=say if is_forced else None)
            replaces = None if newest is None else End(newest[0].id, newest[1])
            state = LocalState(self.name, entry.database_id, None, replaces)
            kept = await asyncio.to_thread(self._swap, waiting, path, state)
        except (BackupStoreError, LitestreamError) as error:
            raise self._unusable(error) from error
        finally:
            await asyncio.to_thread(restoring.remove_database, waiting)
        return msgspec.structs.replace(outcome, path=path, kept=kept)

    async def fetch_erasures(self, at: str | None, *, told: Say | None) -> Entry:
        """Adds to the list here who was erased from the present database, and from that of the state of `at`, which it
        returns. Raises ErasuresNotKnown, too; `told` instead, where not all of them can be known.
        """
        entry, _ = await self.find(at)
        try:
            noted = {one.database_id: one.erasures for one in (await self._marked(), entry) if one is not None}
            for database_id, count in noted.items():
                data_dir = self._settings.data_dir
                await erasures.fetch_first(self.store, database_id, data_dir, noted=count, told=told)
        except BackupStoreError as error:
            raise self._unusable(error) from error
        return entry

    async def _marked(self) -> Entry | None:
        """The present database; None without a backup, and where neither the files nor the folders tell which it is."""
        try:
            return await self._catalogue.current()
        except CatalogueDamaged:
            return None

    async def _present(self) -> Entry:
        entry = await self._catalogue.current()
        if entry is not None:
            return entry
        if await self._catalogue.has_objects():
            raise RestoreFailed(f"{self.name} holds files, but no current.json that says which backup they are.")
        raise RestoreFailed(f"{self.name} holds no backup.")

    def _swap(self, waiting: Path, path: Path, state: LocalState) -> Path | None:
        with replacing(self._settings.data_dir, path, state):
            return restoring.replace_database(path, waiting)

    def _unusable(self, error: Exception) -> RestoreFailed:
        return RestoreFailed(unusable_text(self.name, error))


def put_in_place(settings: Settings, file: Path, *, is_forced: bool) -> tuple[Contents, Path | None]:
    """A database file, such as one that was kept aside, becomes the database: what it holds, and where the present one
    went. From another disk it is copied, and stays there. The caller holds the serve lock.

    Refuses when the present one has something newer, unless `is_forced`.
    Raises RestoreFailed; then nothing was changed.
    """
    path = database_path(settings.resolved_database_url)
    if file.resolve() == path.resolve():
        raise RestoreFailed(f"{file} is the database already.")
    if not file.is_file():
        raise RestoreFailed(f"{file} is not a file.")
    try:
        check_damage(file)
        contents = look_at_contents(file)
        if not is_forced:
            refuse_newer(path, contents)
        if Path(f"{file}-wal").exists():  # it moves without its log
            copies.empty_log(file)
    except DatabaseUnusable as error:
        raise RestoreFailed(f"{str(error).rstrip('.')}. Nothing was changed.") from error
    with _beside(path, file) as ready, replacing(settings.data_dir, path):
        return contents, restoring.replace_database(path, ready)


@contextmanager
def _beside(path: Path, file: Path) -> Iterator[Path]:
    """`file`, all of it on the disk of the database at `path`: of another disk a copy, which does not outlive the block
    unless it has become the database. Raises RestoreFailed.
    """
    if file.stat().st_dev == path.parent.stat().st_dev:
        restoring.settle(file)
        yield file
        return
    copy = path.with_name(f"{path.name}.restored")
    try:
        _copy(file, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _copy(file: Path, copy: Path) -> None:
    try:
        require_room(copy.parent, file.stat().st_size)
        shutil.copyfile(file, copy)
        restoring.settle(copy)
    except ScratchUnusable as error:
        raise RestoreFailed(f"{error} Nothing was changed.") from error
    except OSError as error:
        raise RestoreFailed(f"{file} cannot be copied to {copy.parent} ({error}). Nothing was changed.") from error


def refuse_newer(path: Path, restored: Contents) -> None:
    """Raises RestoreFailed; a damaged database is never newer than a sound one."""
    if not path.exists() or not path.stat().st_size:
        return
    try:
        present = look_at_contents(path)
    except DatabaseUnusable:
        return
    if present.newest > restored.newest:
        raise RestoreFailed(
            f"The database at {path} is newer than what would be restored: its last change is of "
            f"{present.newest_text}, that of the copy of {restored.newest_text}. Nothing was changed. "
            "Say --force to restore all the same; the present one is kept aside."
        )
    if present.forgotten > restored.forgotten:
        raise RestoreFailed(
            f"Somebody has deleted memories in the database at {path} that what would be restored still has. Nothing "
            "was changed. Say --force to restore all the same; the present one is kept aside."
        )


def refuse_damaged(outcome: Outcome) -> None:
    """A count that is wrong may come back, a file that is not whole may not. Raises RestoreFailed."""
    if damage := next((fault for fault in outcome.found.faults if fault.check.partition(".")[0] in DAMAGE), None):
        raise RestoreFailed(
            f"What would be restored is damaged ({damage.example}). Nothing was changed. `yral-chat backup verify "
            "--all` says what is sound; say --force to restore it all the same."
        )
