"""What is being written while somebody looks is no damage: some servers show what is half written."""

from pathlib import Path

import msgspec
import pytest

from tests.object_stores import settings_for
from yral_chat.clients.backup_store import BackupStore, Stored, Target
from yral_chat.clients.litestream import Litestream, LtxFile, Position, txid_text
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.services.backups.catalogue import CURRENT, Catalogue, entry_key
from yral_chat.services.backups.dump_records import MARKER, Marker
from yral_chat.services.backups.dumps import Dumps
from yral_chat.services.backups.histories import SNAPSHOTS
from yral_chat.services.backups.kept import Backups
from yral_chat.services.backups.verifying import Verifier


class HalfWritten(BackupStore):
    """Shows what is half written to whoever is the first to read, and then becomes whole."""

    def __init__(self, target: Target, key: str, whole: bytes) -> None:
        super().__init__(target)
        self._key = key
        self._whole: bytes | None = whole

    async def get(self, key: str) -> Stored | None:
        stored = await super().get(key)
        if key == self._key and self._whole is not None:
            whole, self._whole = self._whole, None
            await self.put(key, whole)
        return stored


@pytest.fixture
def settings(tmp_path: Path, folder_target: Target) -> Settings:
    return settings_for(tmp_path / "data", backup_url=Path(folder_target.path).as_uri())


@pytest.mark.parametrize("name", ["current", "database"])
async def test_a_file_that_leads_to_the_backup(settings: Settings, folder_target: Target, name: str) -> None:
    store, backups = BackupStore(folder_target), Backups(settings)
    await Catalogue(store).begin("database", "first")
    key = CURRENT if name == "current" else entry_key("database")
    whole = await store.read(key)
    assert whole is not None
    await store.put(key, whole[:-1])
    assert [finding.subject for finding in await backups.find_damage()] == ["catalogue"]
    backups._catalogue = Catalogue(HalfWritten(folder_target, key, whole))
    assert await backups.find_damage() == []


async def test_the_marker_of_dumps(settings: Settings, folder_target: Target) -> None:
    whole = msgspec.json.encode(Marker("other", to_text(now())))
    await BackupStore(folder_target).put(MARKER, whole[:-1])
    dumps = Dumps(settings)
    dumps.store = HalfWritten(folder_target, MARKER, whole)
    assert await dumps._marked_for() == "other"


class Behind(Litestream):
    """Has made a snapshot of two changes, of which it sends the second only when somebody waits for it."""

    def __init__(self, target: Target, folder: Path) -> None:
        super().__init__("", folder / "yral_chat.db", target, "", folder)
        self._sent = [(SNAPSHOTS, 1, 2), (0, 1, 1)]

    async def files(self) -> list[LtxFile]:
        return [LtxFile(level, txid_text(first), txid_text(last), 100, now()) for level, first, last in self._sent]

    async def wait_replicated(self, seconds: float) -> Position:
        self._sent.append((0, 2, 2))
        return Position(2, 2)


async def test_the_changes_that_a_snapshot_is_ahead_of(settings: Settings, folder_target: Target) -> None:
    litestream = Behind(folder_target, settings.data_dir)
    verifier = Verifier(BackupStore(folder_target), litestream, "", settings, is_noting=False)
    assert await verifier.look(read=lambda _: False) == []
