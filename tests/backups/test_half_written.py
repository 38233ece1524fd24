"""What is being written while somebody looks is no damage: some servers show what is half written."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from tests.object_stores import settings_for
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.clients.litestream import Litestream, LtxFile, Position, txid_text
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.services.backups.catalogue import CURRENT, Catalogue, entry_key
from yral_chat.services.backups.dump_records import MARKER, Marker
from yral_chat.services.backups.dumps import Dumps
from yral_chat.services.backups.histories import SNAPSHOTS
from yral_chat.services.backups.kept import Backups
from yral_chat.services.backups.verifying import Verifier

WRITING_SECONDS = 0.3


@pytest.fixture
def settings(tmp_path: Path, folder_target: Target) -> Settings:
    return settings_for(tmp_path / "data", backup_url=Path(folder_target.path).as_uri())


@pytest.mark.parametrize("is_whole_in_the_end", [True, False])
@pytest.mark.parametrize("name", ["current", "database"])
async def test_a_file_that_leads_to_the_backup(
    settings: Settings, folder_target: Target, name: str, is_whole_in_the_end: bool
) -> None:
    store = BackupStore(folder_target)
    await Catalogue(store).begin("database", "first")
    key = CURRENT if name == "current" else entry_key("database")
    whole = await store.read(key)
    assert whole is not None
    await store.put(key, whole[:-1])
    looking = asyncio.create_task(Backups(settings).find_damage())
    await asyncio.sleep(WRITING_SECONDS)
    if is_whole_in_the_end:
        await store.put(key, whole)
    assert [finding.subject for finding in await looking] == ([] if is_whole_in_the_end else ["catalogue"])


async def test_the_marker_of_dumps(settings: Settings, folder_target: Target) -> None:
    store = BackupStore(folder_target)
    whole = msgspec.json.encode(Marker("other", to_text(now())))
    await store.put(MARKER, whole[:-1])
    looking = asyncio.create_task(Dumps(settings)._marked_for())
    await asyncio.sleep(WRITING_SECONDS)
    await store.put(MARKER, whole)
    assert await looking == "other"


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
