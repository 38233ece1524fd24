"""MediaBackup: `yral-chat backup media`, one run at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, target_of
from yral_chat.clients.storage import StorageService, owner_prefix
from yral_chat.core.config import Settings
from yral_chat.core.decoding import decode
from yral_chat.core.files import write_whole
from yral_chat.services.accounts.erasure_log import ErasureLog
from yral_chat.services.backups.alone import only_one
from yral_chat.services.backups.media.copying import Copying, Counts
from yral_chat.services.backups.media.failures import Finding, MediaBackupFailed, Report
from yral_chat.services.backups.media.manifest import Index, Manifest
from yral_chat.services.backups.media.originals import Originals
from yral_chat.services.backups.media.restoring import Restoring, Returned, remove_leftovers
from yral_chat.services.backups.media.verifying import Verifying

# A part of 5 MiB on a line of 1 MBit/s.
REQUEST_SECONDS: Final = 60
LOCK: Final = "media-backup.lock"
# Where the last copy was begun: an empty place of that name is a disk that is not mounted, not a new copy.
STATE: Final = "media-backup.json"

Progress = Callable[[str, int, int], None]  # what is done, how many of how many


class State(msgspec.Struct, frozen=True):
    target: str


class Summary(msgspec.Struct, frozen=True):
    """What a run has come to. `findings` were reported one by one."""

    target: str
    counts: Counts
    findings: int


class MediaBackup:
    """The copy of this deployment's media at MEDIA_BACKUP_URL. Raises MediaBackupFailed, DatabaseUnusable, OSError."""

    def __init__(self, settings: Settings, report: Report, progress: Progress) -> None:
        if settings.media_backup_url is None:
            raise MediaBackupFailed("MEDIA_BACKUP_URL is not set: nothing says where the copy is to lie.")
        self._settings = settings
        self._store = BackupStore(target_of(settings, settings.media_backup_url), request_seconds=REQUEST_SECONDS)
        self._storage = StorageService(settings, b"nothing is signed here")
        self._originals = Originals(settings, self._storage)
        self._progress = progress
        self._given_report = report
        self._findings = 0

    async def copy(self, *, is_verified: bool = False, is_new: bool = False) -> Summary:
        """Copies what is new; reads the whole copy again when `is_verified`. `is_new` begins one where one was."""
        with self._alone(), self._named():
            try:
                index = await self._open(is_new=is_new)
                copying = await self._prepare()
                total = await self._originals.count()
                index = await copying.run(index, lambda done: self._progress("copied", done, total))
                if is_verified:
                    verifying = Verifying(self._store, index, copying, self._report)
                    await verifying.run(lambda done: self._progress("verified", done, index.files))
            finally:
                await self._storage.close()
        return Summary(self._store.target.name, copying.counts, self._findings)

    async def restore(self) -> tuple[Returned, int]:
        """Brings back what is missing; returns that, and how many findings there were."""
        with self._alone(), self._named():
            try:
                index = await self._find_ours()
                if index is None:
                    raise MediaBackupFailed(f"{self._store.target.name} holds no copy.")
                restoring = Restoring(self._originals, self._store, self._report)
                total = await self._originals.count()
                data_dir = self._settings.data_dir
                await restoring.run(index, data_dir, lambda done: self._progress("looked at", done, total))
            finally:
                await self._storage.close()
        return restoring.returned, self._findings

    async def _open(self, *, is_new: bool) -> Index:
        """The index, or an empty one where there is none yet, whose place is remembered."""
        await self._originals.check()
        index = await self._find_ours()
        if index is not None:
            return index
        path, name = self._settings.data_dir / STATE, self._store.target.name
        if not is_new and _read_state(path) == State(name):
            raise MediaBackupFailed(
                f"There was a copy in {name}, and now there is none. Is the disk mounted, is the bucket the right one? "
                "To begin a new one there: yral-chat backup media --new."
            )
        index = Index(await self._originals.database_id())
        await Manifest(self._store).save_index(index)
        write_whole(path, msgspec.json.encode(State(name)))
        return index

    async def _find_ours(self) -> Index | None:
        index = await Manifest(self._store).find_index()
        if index is not None and index.database_id != (own := await self._originals.database_id()):
            raise MediaBackupFailed(
                f"{self._store.target.name} holds the media of another database ({index.database_id}; "
                f"this one is {own}). Nothing was changed. Give this one a MEDIA_BACKUP_URL of its own."
            )
        return index

    async def _prepare(self) -> Copying:
        doing = await Manifest(self._store).load_doing()
        if doing:
            self._store.remove_leftovers()
        log = ErasureLog(self._settings.data_dir / "erasures.jsonl")
        return Copying(
            self._originals,
            self._store,
            erased=frozenset(owner_prefix(erasure.user_id) for erasure in log.read()),
            doing=doing,
            retention_days=self._settings.backup_retention_days,
            report=self._report,
        )

    def _report(self, finding: Finding) -> None:
        self._findings += 1
        self._given_report(finding)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        refusal = MediaBackupFailed("Another `yral-chat backup media` is at work. Let it end.")
        with only_one(self._settings.data_dir / LOCK, refusal):
            remove_leftovers(self._settings.data_dir)
            yield

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BackupStoreError as error:
            raise MediaBackupFailed(
                f"The copy at {self._store.target.name} cannot be used: {error.reason}. "
                "What was copied until now stays; the next run goes on."
            ) from error


def _read_state(path: Path) -> State | None:
    try:
        return decode(path.read_bytes(), State)
    except (OSError, msgspec.DecodeError):
        return None
