"""One run: what is new is copied, what people have deleted goes after a while, what belonged to the erased at once."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from yral_chat.clients.backup_store import BackupStore
from yral_chat.clients.storage import PUBLIC, owner_prefix
from yral_chat.core.clock import DAY, from_text, now
from yral_chat.core.errors import MediaNotFound
from yral_chat.db.repositories.media import MediaObject
from yral_chat.services.backups.media.failures import Finding, Report, in_parallel
from yral_chat.services.backups.media.losses import Losses
from yral_chat.services.backups.media.manifest import (
    Copy,
    Entry,
    Index,
    Manifest,
    Segment,
    every_object,
    object_key,
    present,
)
from yral_chat.services.backups.media.originals import Originals
from yral_chat.services.backups.media.walking import Page, walk
from yral_chat.services.media.service import copy_key

# What a run that is killed has copied and not written down: as many files, or bytes, and one page more.
FILES_UNWRITTEN: Final = 500
BYTES_UNWRITTEN: Final = 64 * 1024 * 1024

Progress = Callable[[int], None]  # is told how many files of the database are done


class Counts(msgspec.Struct):
    """What a run has done. `leaving` are those that go when their time has come."""

    files: int = 0
    bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    deleted: int = 0
    leaving: int = 0


class _Torn(Exception):
    """An original is not as long as the database says."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Copying:
    """Use once. `erased` are the owner prefixes of erased accounts, `doing` the keys that a killed run left behind."""

    def __init__(
        self,
        originals: Originals,
        store: BackupStore,
        *,
        erased: frozenset[str],
        doing: frozenset[str],
        retention_days: int,
        report: Report,
    ) -> None:
        self._originals = originals
        self._store = store
        self._manifest = Manifest(store)
        self._erased = erased
        self._left_behind = set(doing)
        self._doing: set[str] = set()
        self._oldest = now() - retention_days * DAY
        self._report = report
        self._done: list[Segment] = []
        self._unwritten_files = 0
        self._unwritten_bytes = 0
        self.counts = Counts()

    async def run(self, index: Index, progress: Progress) -> Index:
        """Brings the copy and its manifest up to date. Raises BackupStoreError, MediaBackupFailed, DatabaseUnusable."""
        seen = 0
        losses = Losses(self._originals, self._report)
        async for page in walk(self._originals, self._manifest, index, self._report):
            entries = await self._settle(page)
            await losses.look(page)
            if page.segment is not None and entries == page.entries:
                self._done.append(page.segment)
            elif entries:
                self._done += await self._manifest.save(entries)
            self._count(entries)
            if self._unwritten_files >= FILES_UNWRITTEN or self._unwritten_bytes >= BYTES_UNWRITTEN:
                await self._write(msgspec.structs.replace(index, segments=(*self._done, *page.rest)))
            seen += len(page.rows)
            progress(seen)
        index = Index(index.database_id, tuple(self._done), present(), self.counts.files, self.counts.bytes)
        await self._write(index)
        await self._manifest.save_doing(frozenset())
        await self._manifest.sweep(index)
        return index

    async def copy_again(self, key: str, wanted: Copy) -> bool:
        """Whether the original is still what was copied, and is copied now. `key` is that of a single object."""
        try:
            if await hashed(self._originals.read(key)) == wanted:
                return await self._put(key, wanted.size) == wanted
        except (MediaNotFound, _Torn):
            pass
        return False

    async def _settle(self, page: Page) -> list[Entry]:
        """The entries of this page from now on, once everything is so."""
        known = {entry.key: entry for entry in page.entries}
        rows = {row.key for row in page.rows}
        missing = [row for row in page.rows if not _is_complete(row, known.get(row.key))]
        await self._announce(row.key for row in missing)
        copied = await in_parallel(lambda row: self._copy(row, known.get(row.key)), missing)
        known |= {entry.key: entry for entry in copied if entry is not None}
        await self._forget(page, rows | known.keys())
        there = [msgspec.structs.replace(entry, gone_at=None) for key, entry in known.items() if key in rows]
        gone = await self._let_go([entry for entry in page.entries if entry.key not in rows])
        return sorted([*there, *gone], key=lambda entry: entry.key)

    async def _announce(self, keys: Iterable[str]) -> None:
        """A run that is killed has not written down what it copied: the next one finds it by this."""
        if new := self._doing.union(keys) - self._doing:
            self._doing |= new
            await self._manifest.save_doing(frozenset(self._doing | self._left_behind))

    async def _copy(self, row: MediaObject, known: Entry | None) -> Entry | None:
        """The entry of this file; `known` when its original is not what the database says, which is reported."""
        file = known.file if known is not None else await self._take(row.key, row)
        if file is not None and file.size != row.size:
            self._report(Finding("lost", row.key, f"its original has {file.size} bytes instead of {row.size}"))
            file = None
        if file is None:
            if known is None:  # what no entry names would stay for ever
                await self._delete(list(every_object([row.key])))
            return known
        small = known.small if known is not None else None
        if row.kind == "image" and small is None:
            small = await self._take(copy_key(row.key), row)
        entry = Entry(row.key, file, small, owner_prefix(row.owner_id) if row.key.startswith(f"{PUBLIC}/") else None)
        if known is None or entry.objects != known.objects:
            self._count_copied(entry.bytes - (known.bytes if known is not None else 0))
        return entry

    async def _take(self, key: str, row: MediaObject) -> Copy | None:
        """Copies one object, unless the run before has done that and was killed. A missing or torn original is
        reported, and the copy that may be there all the same, named by nothing, is then the only one. None without any.
        """
        try:
            if row.key in self._left_behind and await self._is_there(key):
                return await hashed(self._originals.read(key))
            return await self._put(key, row.size if key == row.key else None)
        except MediaNotFound:
            if not await self._originals.known([row.key]):
                return None
            self._report(Finding("lost", key, "its original is not there"))
        except _Torn as error:
            self._report(Finding("lost", key, f"its original has {error.size} bytes instead of {row.size}"))
        found = await self._find_copied(key)
        return None if found is not None and key == row.key and found.size != row.size else found

    async def _find_copied(self, key: str) -> Copy | None:
        chunks = await self._store.open(object_key(key))
        if chunks is None:
            return None
        async with aclosing(chunks):
            return await hashed(chunks)

    async def _is_there(self, key: str) -> bool:
        size = await self._store.size_of(object_key(key))
        return size is not None and size == await self._originals.size_of(key)

    async def _put(self, key: str, wanted: int | None = None) -> Copy:
        """`wanted`: its size in bytes, where known. Raises _Torn when it is another; then nothing is written."""
        digest, size = hashlib.sha256(), 0

        async def passing() -> AsyncGenerator[bytes, None]:
            nonlocal size
            async for chunk in self._originals.read(key):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
            if wanted not in (None, size):
                raise _Torn(size)

        async with aclosing(passing()) as chunks:
            await self._store.put_stream(object_key(key), chunks, size=wanted)
        return Copy(size, digest.hexdigest())

    async def _forget(self, page: Page, known: set[str]) -> None:
        """Deletes what a killed run had copied of files that are gone since."""
        here = {key for key in self._left_behind if page.start <= key and (page.end is None or key < page.end)}
        await self._delete(list(every_object(here - known)))
        self._left_behind -= here

    async def _let_go(self, gone: list[Entry]) -> list[Entry]:
        """Of what the database does not know any more: deletes what has to go, and returns what stays for a while."""
        leaving = [msgspec.structs.replace(entry, gone_at=entry.gone_at or present()) for entry in gone]
        over = [entry for entry in leaving if self._is_over(entry)]
        await self._delete([object_key(key) for entry in over for key, _ in entry.objects])
        self.counts.deleted += len(over)
        self._unwritten_files += len(over)
        staying = [entry for entry in leaving if not self._is_over(entry)]
        self.counts.leaving += len(staying)
        return staying

    def _is_over(self, entry: Entry) -> bool:
        owner = entry.owner or entry.key.partition("/")[0]
        return owner in self._erased or (entry.gone_at is not None and from_text(entry.gone_at) < self._oldest)

    async def _delete(self, keys: Sequence[str]) -> None:
        await in_parallel(self._store.delete, keys)

    async def _write(self, index: Index) -> None:
        await self._manifest.save_index(index)
        self._unwritten_files = self._unwritten_bytes = 0
        self._doing.clear()

    def _count_copied(self, size: int) -> None:
        self.counts.copied += 1
        self.counts.copied_bytes += size
        self._unwritten_files += 1
        self._unwritten_bytes += size

    def _count(self, entries: list[Entry]) -> None:
        self.counts.files += len(entries)
        self.counts.bytes += sum(entry.bytes for entry in entries)


async def hashed(chunks: AsyncIterator[bytes]) -> Copy:
    digest, size = hashlib.sha256(), 0
    async for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return Copy(size, digest.hexdigest())


def _is_complete(row: MediaObject, entry: Entry | None) -> bool:
    return entry is not None and entry.file.size == row.size and (row.kind != "image" or entry.small is not None)
