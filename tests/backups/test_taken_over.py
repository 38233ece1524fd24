"""A service that sends no more: it has lost its lease to another one, or stands by because its backup is away.

It keeps its log short by itself.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.backups.targets import give_to_another
from tests.waiting import there, until
from yral_chat.clients.backup_store import Target
from yral_chat.clients.litestream import LitestreamError
from yral_chat.db.database import Database
from yral_chat.services.backups.replication import LAST_SECONDS, WATCH_SECONDS, Replication
from yral_chat.services.backups.service import BackupService, BackupUnusable

pytestmark = pytest.mark.long


async def take(backup: BackupService, target: Target) -> None:
    async def notices() -> bool:
        await give_to_another(target)
        return backup.lost_to is not None

    await until(notices, what="it to notice")


def objects(target: Target) -> set[Path]:
    return set(Path(target.path).rglob("*.ltx"))


async def sending(backup: BackupService) -> Replication:
    await backup.begin()
    replication = backup.replication
    assert replication is not None
    await until(there(lambda: replication.state == "replicating"), what="Litestream to run")
    return replication


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
    replication = await sending(backup)
    await take(backup, folder_target)
    await until(there(lambda: replication.state == "stopped"), what="Litestream to end")
    await database.write(lambda uow: uow.installation.touch())
    await until(there(lambda: replication.wal_bytes == 0), what="the log to be cut")
    assert (await database.read(lambda uow: uow.installation.get_id())) != ""


async def test_one_that_stands_by_ends_at_once_and_writes_nowhere(
    prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path
) -> None:
    database, backup = prepared
    replication = await sending(backup)
    shutil.move(folder_target.path, tmp_path / "away")
    await until(there(lambda: replication.state == "stopped"), what="it to stand by")
    before = objects(folder_target)  # of the moment until it was seen
    await database.write(lambda uow: uow.installation.touch())
    await database.close()
    async with asyncio.timeout(LAST_SECONDS / 2):
        await backup.end()
    assert objects(folder_target) == before


async def test_one_that_stands_by_does_not_come_back_to_what_is_anothers(
    prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path
) -> None:
    _, backup = prepared
    replication = await sending(backup)
    shutil.move(folder_target.path, tmp_path / "away")
    await until(there(lambda: replication.state == "stopped"), what="it to stand by")
    await take(backup, folder_target)
    shutil.rmtree(folder_target.path)
    shutil.move(tmp_path / "away", folder_target.path)
    await asyncio.sleep(2 * WATCH_SECONDS)
    assert backup.replication is replication
    assert backup.condition() == ("down", "another service has taken the backup over")


async def test_two_who_stop_it_at_once_wait_for_its_end(prepared: tuple[Database, BackupService]) -> None:
    _, backup = prepared
    replication = await sending(backup)
    states: list[str] = []

    async def stop() -> None:
        await replication.stop(is_sending=False)
        states.append(replication.state)

    await asyncio.gather(stop(), stop())
    assert states == ["stopped", "stopped"]
    with pytest.raises(LitestreamError):
        await replication._litestream.position()
