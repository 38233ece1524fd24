"""`yral-chat restore` without a server: the whole database, as of a time."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.clients.backup_store import BackupStoreError
from yral_chat.clients.litestream import LitestreamError, LtxFile, Restored
from yral_chat.core.clock import SECOND, from_text, to_text
from yral_chat.core.config import Settings
from yral_chat.db import copies
from yral_chat.db.contents import Contents, look_at_contents
from yral_chat.db.damage import check_damage
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.urls import database_path, file_url
from yral_chat.db.verification import Examination, examine
from yral_chat.services.backups import erasures
from yral_chat.services.backups.bringing_back import bring_back, replace_database, settle
from yral_chat.services.backups.catalogue import Entry, Generation, find_newest, place
from yral_chat.services.backups.histories import is_followed_by_gap, last
from yral_chat.services.backups.kept import Backups
from yral_chat.services.backups.local import replacing
from yral_chat.services.backups.restoring import Progress, RestoreFailed, Say, remove_database
from yral_chat.services.backups.scratch import ScratchUnusable, require_room
from yral_chat.services.backups.starting import End, LocalState
from yral_chat.services.backups.verifying import Verifier

# What the checks are called that find a file that is not whole; the others find what the service got wrong.
DAMAGE: Final = {"integrity", "references", "tables"}


class Outcome(msgspec.Struct, frozen=True):
    """What a restore has brought, and what became of the database that was there."""

    path: Path
    generation: Generation
    txid: str
    duration_ms: int
    contents: Contents
    found: Examination
    kept: Path | None


class Restores(Backups):
    """What is kept at a target, and its way back. Raises RestoreFailed with a plain text."""

    async def restore_to(
        self, to: Path, at: str | None, progress: Progress, say: Say, *, is_forced: bool = False
    ) -> Outcome:
        """The newest state, or that of a time, as the new file `to`. `say` is told what is being done.

        Refuses where it is not sure that this is the state of that time, unless `is_forced`.
        """
        entry, generation = await self.find(at)
        litestream = self.litestream(entry.database_id, generation)
        verifier = Verifier(self.store, litestream, place(entry.database_id, generation.id), self.settings)
        try:
            size, files = await verifier.bytes_then(at), await litestream.files()
        except (BackupStoreError, LitestreamError) as error:
            raise self.unusable(error) from error

        def check(restored: Restored) -> None:
            doubt = None if at is None else self._doubt(files, int(restored.txid, 16), at)
            if doubt and not is_forced:
                raise RestoreFailed(f"{doubt} Nothing was changed.")
            if doubt:
                say(doubt)

        restored = await bring_back(litestream, to, at=at, size=size, progress=progress, check=check)
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
        path = database_path(self.settings.resolved_database_url)
        waiting = path.with_name(f"{path.name}.restored")
        await asyncio.to_thread(remove_database, waiting)
        try:
            present = await self.marked()
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
            raise self.unusable(error) from error
        finally:
            await asyncio.to_thread(remove_database, waiting)
        return msgspec.structs.replace(outcome, path=path, kept=kept)

    async def fetch_erasures(self, at: str | None, *, told: Say | None) -> Entry:
        """Adds to the list here who was erased from the present database, and from that of the state of `at`, which it
        returns. Raises ErasuresNotKnown, too; `told` instead, where not all of them can be known.
        """
        entry, _ = await self.find(at)
        try:
            noted = {one.database_id: one.erasures for one in (await self.marked(), entry) if one is not None}
            for database_id, count in noted.items():
                data_dir = self.settings.data_dir
                await erasures.fetch_first(self.store, database_id, data_dir, noted=count, told=told)
        except BackupStoreError as error:
            raise self.unusable(error) from error
        return entry

    def _swap(self, waiting: Path, path: Path, state: LocalState) -> Path | None:
        with replacing(self.settings.data_dir, path, state):
            return replace_database(path, waiting)


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
        return contents, replace_database(path, ready)


@contextmanager
def _beside(path: Path, file: Path) -> Iterator[Path]:
    """`file`, all of it on the disk of the database at `path`: of another disk a copy, which does not outlive the block
    unless it has become the database. Raises RestoreFailed.
    """
    if file.stat().st_dev == path.parent.stat().st_dev:
        settle(file)
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
        settle(copy)
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
