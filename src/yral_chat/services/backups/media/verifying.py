"""Every object of the copy, read again: what is damaged or missing is named, and copied again where that can be."""

from collections.abc import Callable
from contextlib import aclosing

from yral_chat.clients.backup_store import BackupStore
from yral_chat.services.backups.media.copying import Copying, hashed
from yral_chat.services.backups.media.failures import Finding, Report, in_parallel
from yral_chat.services.backups.media.manifest import DOING, INDEX, Copy, Index, Manifest, SegmentDamaged, object_key
from yral_chat.services.backups.media.names import Names

Progress = Callable[[int], None]  # is told how many files are done


class Verifying:
    """After a run, whose `index` and `copying` these are."""

    def __init__(self, store: BackupStore, index: Index, copying: Copying, report: Report) -> None:
        self._store = store
        self._index = index
        self._copying = copying
        self._report = report
        self._names = Names()

    async def run(self, progress: Progress) -> None:
        """Raises BackupStoreError, MediaBackupFailed."""
        manifest = Manifest(self._store)
        seen = 0
        for segment in self._index.segments:
            self._names.add(segment.key)
            try:
                entries = await manifest.load(segment)
            except SegmentDamaged:
                self._report(Finding("manifest", segment.key, "damaged; the next run copies anew what it named"))
                continue
            await in_parallel(self._check, [pair for entry in entries for pair in entry.objects])
            seen += len(entries)
            progress(seen)
        await self._find_foreign()

    async def _check(self, pair: tuple[str, Copy]) -> None:
        key, wanted = pair
        self._names.add(object_key(key))
        chunks = await self._store.open(object_key(key))
        if chunks is not None:
            async with aclosing(chunks):
                if await hashed(chunks) == wanted:
                    return
        is_back = await self._copying.copy_again(key, wanted)
        what = "it is copied again" if is_back else "its original is not what was copied, either"
        self._report(Finding("missing" if chunks is None else "damaged", key, what))

    async def _find_foreign(self) -> None:
        for name in (INDEX, DOING):
            self._names.add(name)
        self._names.seal()
        async for key, _, _ in self._store.list():
            if key not in self._names:
                self._report(Finding("foreign", key, "no run has put it there; it is left alone"))
