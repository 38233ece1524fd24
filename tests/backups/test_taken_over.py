"""A service that has lost its lease to another one: it sends no more, and keeps its log short by itself."""

import msgspec
import pytest

from tests.waiting import there, until
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.db.database import Database
from yral_chat.services.backups.catalogue import LEASE
from yral_chat.services.backups.lease import Holder
from yral_chat.services.backups.service import BackupService, BackupUnusable

pytestmark = pytest.mark.long


async def take(backup: BackupService, target: Target) -> None:
    other = Holder("somebody else", "another-machine", "2026-01-01T00:00:00.000000Z")
    await BackupStore(target).put(LEASE, msgspec.json.encode(other))
    await until(there(lambda: backup.lost_to is not None), what="it to notice")


async def test_nothing_is_begun_any_more(prepared: tuple[Database, BackupService], folder_target: Target) -> None:
    _, backup = prepared
    await take(backup, folder_target)
    with pytest.raises(BackupUnusable, match="another-machine"):
        await backup.begin()


async def test_the_log_is_cut_where_litestream_does_it_no_more(
    prepared: tuple[Database, BackupService], folder_target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, backup = prepared
    monkeypatch.setattr("yral_chat.services.backups.replication.MAX_WAL_BYTES", 0)
    await backup.begin()
    replication = backup.replication
    assert replication is not None
    await until(there(lambda: replication.state == "replicating"), what="Litestream to run")
    await take(backup, folder_target)
    await until(there(lambda: replication.state == "stopped"), what="Litestream to end")
    await database.write(lambda uow: uow.installation.touch())
    await until(there(lambda: replication.wal_bytes == 0), what="the log to be cut")
    assert (await database.read(lambda uow: uow.installation.get_id())) != ""
