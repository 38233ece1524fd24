"""Media that the database knows and that are gone, or not whole: back out of the copy."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.clients.backup_store import BackupStore
from yral_chat.db.repositories.media import MediaObject
from yral_chat.services.backups.media.failures import Finding, Report, in_parallel
from yral_chat.services.backups.media.manifest import Copy, Entry, Index, Manifest, object_key
from yral_chat.services.backups.media.originals import Originals
from yral_chat.services.backups.media.walking import walk
from yral_chat.services.media.service import copy_key

# In DATA_DIR: files on their way.
FOLDER: Final = "media-restoring"

Progress = Callable[[int], None]  # is told how many files of the database are done


class Returned(msgspec.Struct):
    """Objects of the database: how many there are, and how many were brought back."""

    objects: int = 0
    restored: int = 0
    bytes: int = 0


class Restoring:
    """Use once. Nothing that is there as it should be is touched."""

    def __init__(self, originals: Originals, store: BackupStore, report: Report) -> None:
        self._originals = originals
        self._store = store
        self._report = report
        self.returned = Returned()

    async def run(self, index: Index, data_dir: Path, progress: Progress) -> None:
        """Raises BackupStoreError, MediaBackupFailed, DatabaseUnusable."""
        seen = 0
        with _folder_in(data_dir) as incoming:
            async for page in walk(self._originals, Manifest(self._store), index, self._report):
                known = {entry.key: entry for entry in page.entries}
                wanted = [pair for row in page.rows for pair in _objects_of(row, known.get(row.key))]
                await in_parallel(lambda pair: self._settle(*pair, incoming), wanted)
                seen += len(page.rows)
                progress(seen)

    async def _settle(self, key: str, size: int | None, copy: Copy | None, incoming: Path) -> None:
        """`size` is what the object has to have, where that is known."""
        self.returned.objects += 1
        found = await self._originals.size_of(key)
        if found is not None and (size is None or found == size):
            return
        if copy is None:
            self._report(Finding("lost", key, "it is not where media are kept, and not in the copy"))
            return
        path = incoming / hashlib.sha256(key.encode()).hexdigest()
        try:
            if await self._fetch(key, path) != copy:
                self._report(Finding("damaged", key, "its copy is not what was copied; nothing was restored"))
                return
            await self._originals.write(key, path)
        finally:
            path.unlink(missing_ok=True)
        self.returned.restored += 1
        self.returned.bytes += copy.size

    async def _fetch(self, key: str, path: Path) -> Copy | None:
        chunks = await self._store.open(object_key(key))
        if chunks is None:
            return None
        digest, size = hashlib.sha256(), 0
        async with aclosing(chunks):
            with path.open("wb", buffering=0) as file:
                async for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
        return Copy(size, digest.hexdigest())


def remove_leftovers(data_dir: Path) -> None:
    """What a restore that was killed had on its way: files of people, some of whom may erase their account."""
    shutil.rmtree(data_dir / FOLDER, ignore_errors=True)


@contextmanager
def _folder_in(data_dir: Path) -> Iterator[Path]:
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove_leftovers(data_dir)


def _objects_of(row: MediaObject, entry: Entry | None) -> list[tuple[str, int | None, Copy | None]]:
    """(storage key, bytes it has to have, its copy) of each object of a file."""
    own = (row.key, row.size, entry.file if entry is not None else None)
    if row.kind != "image":
        return [own]
    small = entry.small if entry is not None else None
    return [own, (copy_key(row.key), small.size if small is not None else None, small)]
