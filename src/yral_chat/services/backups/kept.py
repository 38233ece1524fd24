"""What is kept at a target: which databases, which generations of each, and where their files lead.

Without SQLAlchemy, as restoring.py.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, target_of
from yral_chat.clients.litestream import Litestream, LitestreamError, LtxFile, find_litestream
from yral_chat.core.clock import SECOND, from_text
from yral_chat.core.config import Settings
from yral_chat.db.urls import backend_of, database_path
from yral_chat.services.backups import restoring
from yral_chat.services.backups.catalogue import (
    CURRENT,
    Catalogue,
    CatalogueDamaged,
    Entry,
    Generation,
    beginning_missing_text,
    by_time,
    entry_key,
    missing_text,
    place,
    unusable_text,
)
from yral_chat.services.backups.half_written import read_settled
from yral_chat.services.backups.histories import first
from yral_chat.services.backups.local import load_state
from yral_chat.services.backups.proof import Finding
from yral_chat.services.backups.restoring import RestoreFailed


def has_dumps(settings: Settings) -> bool:
    """Whether backups are dumps. Raises DatabaseUnusable for a DATABASE_URL that is none."""
    return backend_of(settings.resolved_database_url) == "postgresql"


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


class Backups:
    """The backups of one target. Raises RestoreFailed with a plain text; needs BACKUP_URL."""

    def __init__(self, settings: Settings) -> None:
        if settings.backup_url is None:
            raise RestoreFailed("BACKUP_URL is not set: nothing says where the backup is.")
        self.settings = settings
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
            present = await self.marked()
            entries = await self._catalogue.list_recovered()
            if present is not None:
                entries.sort(key=lambda entry: entry.database_id == present.database_id)
            return [
                Kept(entry.database_id, generation, await self.litestream(entry.database_id, generation).files())
                for entry in entries
                for generation in entry.generations
            ]
        except (BackupStoreError, LitestreamError) as error:
            raise self.unusable(error) from error

    def litestream(self, database_id: str, generation: Generation) -> Litestream:
        settings = self.settings
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
            raise self.unusable(error) from error
        raise RestoreFailed(f"{self.name} holds nothing of {'that time' if at else 'the database'}.")

    async def find_damage(self, generation_id: str | None = None) -> Sequence[Finding]:
        """Of the files that lead to the backup: what is damaged, or not there where `generation_id` is being written.

        Where nothing is, `find` says so.
        """
        try:
            entry = await read_settled(self._catalogue.read, CatalogueDamaged)
        except CatalogueDamaged as error:
            return [Finding("catalogue", f"{error.reason}.")]
        except BackupStoreError as error:
            raise self.unusable(error) from error
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
        """The last transaction that this machine has sent to this generation or, after a kill, is to send at its next
        start; 0: it has nothing to do with it.
        """
        state = await asyncio.to_thread(load_state, self.settings.data_dir)
        if state is None or (state.target, state.generation) != (self.name, generation_id):
            return 0
        try:
            return (await litestream.position()).replicated_txid
        except LitestreamError:  # nobody serves
            return await asyncio.to_thread(restoring.last_local_txid, litestream.database) or 0

    async def marked(self) -> Entry | None:
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

    def unusable(self, error: Exception) -> RestoreFailed:
        """What the operator is told of an error of the target, or of Litestream's."""
        return RestoreFailed(unusable_text(self.name, error))
