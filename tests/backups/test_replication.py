"""How late a backup is, while somebody writes all the time; and the log of erasures, when one copy of it was lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

import msgspec
import pytest
from loguru import logger
from sqlalchemy import text

from tests.backups.test_taken_over import sending
from tests.waiting import there, until
from yral_chat.clients import litestream
from yral_chat.clients.backup_store import BackupStore, BackupStoreError, Target
from yral_chat.clients.litestream import Litestream, LitestreamError, Position
from yral_chat.clients.programs import PIPE, Program
from yral_chat.core.errors import StorageFull
from yral_chat.core.metrics import Metrics
from yral_chat.core.sizes import MEBIBYTE
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database
from yral_chat.db.execution import Statement
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog, write_lines
from yral_chat.services.backups import erasures, replication
from yral_chat.services.backups.catalogue import Catalogue, erasures_key
from yral_chat.services.backups.local import replacing
from yral_chat.services.backups.replication import Replication
from yral_chat.services.backups.service import BackupService, BackupUnusable

AT = "2026-11-28T10:00:00.000000Z"

Noted = Callable[[], Awaitable[int]]


@pytest.fixture
def replicating(tmp_path: Path) -> Replication:
    database = tmp_path / "yral_chat.db"
    litestream = Litestream("litestream", database, Target(None, str(tmp_path)), "", tmp_path)
    return Replication(litestream, Metrics(), create_database(f"sqlite:///{database}"))


def test_who_writes_all_the_time_is_not_late(replicating: Replication, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last transaction has never arrived; what was there two looks ago always has."""
    time = 1000.0
    monkeypatch.setattr("yral_chat.services.backups.replication.time.monotonic", lambda: time)
    for look in range(60):
        time += replication.WATCH_SECONDS
        replicating._answered_at = time
        replicating._count(Position(100 * look + 90, 100 * look))
        assert replicating.lag_seconds == 0
    stuck_since = time
    while time < stuck_since + 100:
        time += replication.WATCH_SECONDS
        replicating._answered_at = time
        replicating._count(Position(6000 + int(time), 5900))
    assert replicating.lag_seconds == 100
    replicating._count(Position(9000, 9000))
    assert replicating.lag_seconds == 0


def test_an_error_is_told_until_everything_has_arrived(replicating: Replication) -> None:
    """Everything that there was then: people go on writing."""
    replicating._note("no space left on device")
    counted = replicating._metrics.registry.get_sample_value("backup_errors_total", {"reason": "it is full"})
    assert counted == 1
    replicating._count(Position(2, 1))
    assert replicating.lag_seconds == 0  # it is still early for that
    assert replicating.error == "it is full"
    replicating._count(Position(3, 1))
    assert replicating.error == "it is full"
    replicating._count(Position(4, 2))
    assert replicating.error is None


async def test_a_configuration_that_cannot_be_written_is_an_error_of_litestream(tmp_path: Path) -> None:
    """So it is tried again: a full disk may have room by then."""
    (tmp_path / "litestream.yml").mkdir()
    litestream = Litestream("litestream", tmp_path / "yral_chat.db", Target(None, str(tmp_path)), "", tmp_path)
    with pytest.raises(LitestreamError, match="cannot be written"):
        await litestream.start()


async def test_one_that_ends_again_and_again_is_given_longer_pauses(
    replicating: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Impatient:
        def delay(self, failures: int) -> float:
            asked.append(failures)
            return 0.01

    monkeypatch.setattr(replication, "BACKOFF", Impatient())
    replicating._litestream._program = "/bin/false"
    replicating.start()
    await until(there(lambda: len(asked) >= 4), what="it to be started anew")
    assert asked[:4] == [0, 1, 2, 3]
    monkeypatch.setattr(replication, "STEADY_SECONDS", -1.0)  # each has run long enough now to have been well
    asked.clear()
    await until(there(lambda: len(asked) >= 4), what="it to be started anew")
    assert set(asked[1:]) == {0}
    await replicating.stop(may_start=False)


async def test_one_that_never_answers_lags(replicating: Replication) -> None:
    replicating._is_running, replicating._tasks = True, [asyncio.create_task(asyncio.sleep(0))]
    states = [replicating.state]
    replicating._level_at -= replication.LAGGING_SECONDS + 1
    assert [*states, replicating.state] == ["starting", "lagging"]
    await replicating._tasks[0]


async def test_an_erasure_that_only_the_target_knows_stays(tmp_path: Path, folder_target: Target) -> None:
    store, path = BackupStore(folder_target), tmp_path / erasures.NAME
    ErasureLog(path).append(Erasure("1", "anna", AT))
    sent = await erasures.send(store, "a-database", tmp_path, -1)
    path.unlink()
    assert await erasures.send(store, "a-database", tmp_path, sent) > 0
    ErasureLog(path).append(Erasure("2", "ben", AT))
    await erasures.send(store, "a-database", tmp_path, sent)
    known = [erasure.user_id for erasure in (await erasures.read(store, "a-database")).whole]
    assert known == ["anna", "ben"] == [erasure.user_id for erasure in ErasureLog(path).read()]


@contextmanager
def listening() -> Iterator[list[str]]:
    """To warnings."""
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    try:
        yield told
    finally:
        logger.remove(sink)


async def test_erasures_are_sent_once_the_disk_can_be_written_again(
    prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path
) -> None:
    """What the target alone knows could not be noted here for a while."""
    database, backup = prepared
    database_id = await database.read(lambda uow: uow.installation.get_id())
    (path := tmp_path / "data" / erasures.NAME).symlink_to("/nowhere/erasures.jsonl")
    line = msgspec.json.encode(Erasure("1", "anna", AT))
    await BackupStore(folder_target).put(erasures_key(database_id), line)
    with listening() as told:
        await backup.begin()
        await until(there(lambda: "backup.erasures_not_sent" in told), what="the trouble is told")
    path.unlink()
    await until(there(lambda: [one.user_id for one in ErasureLog(path).read()] == ["anna"]), what="it is noted")


async def test_who_serves_mends_the_log_of_erasures_and_notes_how_many_there_are(
    prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path
) -> None:
    database, backup = prepared
    database_id = await database.read(lambda uow: uow.installation.get_id())
    store, anna, ben = BackupStore(folder_target), Erasure("1", "anna", AT), Erasure("2", "ben", AT)
    ErasureLog(tmp_path / "data" / erasures.NAME).append(anna)
    await store.put(erasures_key(database_id), write_lines([ben, anna])[:-9])
    await backup.begin()

    async def is_noted() -> bool:
        entry = await Catalogue(store).entry(database_id)
        return entry is not None and entry.erasures == 2

    await until(is_noted, what="their number is noted")
    assert await erasures.read(store, database_id) == ([anna, ben], 0)


@pytest.mark.parametrize("data", [b'{"id":', None])
async def test_who_serves_looks_at_the_log_of_erasures_again(
    prepared: tuple[Database, BackupService],
    folder_target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes | None,
) -> None:
    monkeypatch.setattr(erasures, "LOOK_SECONDS", 0.0)
    database, backup = prepared
    key = erasures_key(await database.read(lambda uow: uow.installation.get_id()))
    store, anna = BackupStore(folder_target), Erasure("1", "anna", AT)
    ErasureLog(tmp_path / "data" / erasures.NAME).append(anna)
    await backup.begin()

    async def is_there() -> bool:
        return await store.read(key) == write_lines([anna])

    await until(is_there, what="it is sent")
    await (store.delete(key) if data is None else store.put(key, data))
    await until(is_there, what="it is written anew")


async def test_erasures_are_sent_once_the_log_can_be_read_again(
    prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path
) -> None:
    database, backup = prepared
    key = erasures_key(await database.read(lambda uow: uow.installation.get_id()))
    (path := tmp_path / "data" / erasures.NAME).mkdir()  # no file: an OSError, as of one that nobody may read
    with listening() as told:
        await backup.begin()
        await until(there(lambda: "backup.erasures_not_sent" in told), what="the trouble is told")
    path.rmdir()
    ErasureLog(path).append(anna := Erasure("1", "anna", AT))

    async def is_there() -> bool:
        return await BackupStore(folder_target).read(key) == write_lines([anna])

    await until(is_there, what="it is sent")


async def test_who_has_lost_the_backup_sends_erasures_and_counts_no_more(
    prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path
) -> None:
    """They join those of whoever has it now, which knows better how many there are."""
    database, backup = prepared
    database_id = await database.read(lambda uow: uow.installation.get_id())
    await backup.begin()
    await until(there(lambda: backup._erasures._sent >= 0), what="it has looked")
    backup._lose("another service has it")
    ErasureLog(tmp_path / "data" / erasures.NAME).append(anna := Erasure("1", "anna", AT))
    await backup._send_erasures()
    store = BackupStore(folder_target)
    assert (await erasures.read(store, database_id)).whole == [anna]
    entry = await Catalogue(store).entry(database_id)
    assert entry is not None
    assert entry.erasures == 0


async def test_who_has_lost_the_backup_begins_nothing_where_it_is_gone(
    prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path
) -> None:
    """What lay there would stand in the way of the next one's first start."""
    _, backup = prepared
    await backup.begin()
    backup._lose("another service has it")
    await backup.end()
    rmtree(folder_target.path)
    ErasureLog(tmp_path / "data" / erasures.NAME).append(Erasure("1", "anna", AT))
    await backup._send_erasures()
    assert await BackupStore(folder_target).is_empty()


async def test_who_has_lost_the_backup_before_it_began_says_so(prepared: tuple[Database, BackupService]) -> None:
    _, backup = prepared
    backup._lose("another service has it")
    with pytest.raises(BackupUnusable, match="another service has it"):
        await backup.begin()
    await backup.end()
    assert not (await backup._catalogue.current()), "nothing was begun"


async def test_a_look_that_comes_to_nothing_is_made_again_in_a_minute(
    folder_target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every turn, which would fill the log; what has grown is sent at every turn."""
    time, asked = 1000.0, list[str]()
    monkeypatch.setattr("yral_chat.services.backups.erasures.time.monotonic", lambda: time)
    store, log = BackupStore(folder_target), ErasureLog(tmp_path / erasures.NAME)
    read = store.read

    async def read_and_count(key: str) -> bytes | None:
        asked.append(key)
        if is_away:
            raise BackupStoreError("it is away")
        return await read(key)

    monkeypatch.setattr(store, "read", read_and_count)
    is_away = False
    sender = erasures.Sender(store, tmp_path)
    log.append(Erasure("1", "anna", AT))
    await sender.send("database")
    time += erasures.LOOK_SECONDS - 1
    await sender.send("database")
    assert len(asked) == 1

    is_away = True
    time += 1
    for _ in range(3):
        with suppress(BackupStoreError):
            await sender.send("database")
    assert len(asked) == 2
    log.append(Erasure("2", "ben", AT))
    with pytest.raises(BackupStoreError):
        await sender.send("database")
    is_away = False
    await sender.send("database")
    assert len(asked) == 4
    time += erasures.AGAIN_SECONDS
    await sender.send("database")
    await sender.send("database")
    assert len(asked) == 5
    sender.forget()
    await sender.send("database")
    assert len(asked) == 6


@pytest.fixture
async def noted(prepared: tuple[Database, BackupService], folder_target: Target, tmp_path: Path) -> Noted:
    """Has erased two, and has ended; then their log is lost, here and there."""
    database, backup = prepared
    database_id = await database.read(lambda uow: uow.installation.get_id())
    store, log = BackupStore(folder_target), tmp_path / "data" / erasures.NAME
    ErasureLog(log).append(Erasure("1", "anna", AT), Erasure("2", "ben", AT))
    await backup.begin()

    async def number() -> int:
        entry = await Catalogue(store).entry(database_id)
        return 0 if entry is None else entry.erasures

    await until(number, what="their number is noted")
    await backup.end()
    log.unlink()
    await store.delete(erasures_key(database_id))
    return number


async def started(prepared: tuple[Database, BackupService], *, is_new: bool = False) -> BackupService:
    """Another start of the same, which has looked at the log of erasures."""
    database, backup = prepared
    again = BackupService(backup._settings, backup._path, Metrics(), database, is_new=is_new)
    await again.prepare()
    await again.begin()
    await until(there(lambda: again._erasures._sent >= 0), what="it has looked")
    return again


async def test_to_begin_anew_forgets_no_erasure(prepared: tuple[Database, BackupService], noted: Noted) -> None:
    """Only a restore says what that brings back."""
    again = await started(prepared, is_new=True)
    await again.end()
    assert await noted() == 2


def die(*_: object) -> None:
    raise ProcessLookupError


@pytest.mark.parametrize("is_cut", [False, True])
async def test_after_a_restore_those_count_that_it_has_left(
    prepared: tuple[Database, BackupService],
    noted: Noted,
    folder_target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_cut: bool,
) -> None:
    """Also where the first start after it was cut. And once: who goes missing later is missed."""
    database, backup = prepared
    database_id = await database.read(lambda uow: uow.installation.get_id())
    with replacing(tmp_path / "data", backup._path):
        pass
    if is_cut:
        with monkeypatch.context() as patched:
            patched.setattr(BackupService, "_replicate", die)
            with pytest.raises(ProcessLookupError):
                await started(prepared)
    again = await started(prepared)
    assert await noted() == 0
    ErasureLog(log := tmp_path / "data" / erasures.NAME).append(Erasure("3", "cleo", AT))
    await until(noted, what="the next one is noted")
    await BackupStore(folder_target).delete(erasures_key(database_id))
    log.unlink()
    again._erasures.forget()
    again._erasures._sent = -1
    await until(there(lambda: again._erasures._sent == 0), what="it has looked")
    assert await noted() == 1
    await again.end()


async def filled(database: Database, mebibytes: int) -> None:
    """One transaction."""
    insert, rows = Statement(text("INSERT INTO filler VALUES (:data)")), [os.urandom(MEBIBYTE)] * mebibytes
    await database.write(lambda uow: [uow.installation._executor.run(insert, {"data": row}) for row in rows])


@pytest.mark.long
async def test_litestream_alone_writes_the_log_into_the_database_and_keeps_it_short(
    prepared: tuple[Database, BackupService], tmp_path: Path
) -> None:
    database, backup = prepared
    path, log = tmp_path / "data" / "yral_chat.db", tmp_path / "data" / "yral_chat.db-wal"
    create = Statement(text("CREATE TABLE filler (data BLOB)"))
    await database.write(lambda uow: uow.installation._executor.run(create, {}))
    before = path.read_bytes()
    await filled(database, 32)
    assert path.read_bytes() == before
    assert log.stat().st_size > 32 * MEBIBYTE
    running = await sending(backup)
    longest = 0
    for _ in range(10):  # together more than the log may have
        await filled(database, 32)
        longest = max(longest, running.wal_bytes)
        await running._litestream.wait_replicated(60)
    assert 32 * MEBIBYTE < longest < replication.MAX_WAL_BYTES < 10 * 32 * MEBIBYTE
    assert path.stat().st_size > 200 * MEBIBYTE


async def test_a_log_that_cannot_be_cut_is_cut_later(
    prepared: tuple[Database, BackupService], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full."""
    database, backup = prepared
    await backup.begin()
    assert backup.replication is not None
    monkeypatch.setattr(replication, "MAX_WAL_BYTES", -1)
    monkeypatch.setattr("yral_chat.services.backups.service.WATCH_SECONDS", 0.01)
    tries = 0

    async def scrub() -> bool:
        nonlocal tries
        tries += 1
        raise StorageFull

    monkeypatch.setattr(database, "scrub", scrub)
    backup.replication._is_running = False
    await backup.replication._miss(LitestreamError("it does not run"))
    assert tries == 1
    backup._lose("another service has the backup")
    await until(there(lambda: tries >= 3), what="the next look")


async def test_the_log_is_cut_when_what_hangs_was_stopped(
    prepared: tuple[Database, BackupService], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, backup = prepared
    await backup.begin()
    replicating = backup.replication
    assert replicating is not None
    await until(there(lambda: replicating.state == "replicating"), what="Litestream to answer")
    assert replicating.wal_bytes > 0
    monkeypatch.setattr(replication, "MAX_WAL_BYTES", 0)
    replicating._answered_at -= 2 * replication.SILENCE_SECONDS
    await replicating._miss(LitestreamError("it does not answer"))
    assert replicating.wal_bytes == 0


class Undying(Program):
    """As one that waits for a disk: the kernel ends it once that has answered."""

    def send_signal(self, number: int) -> None:
        pass


class Stuck(Litestream):
    async def start(self) -> AsyncIterator[dict[str, Any]]:
        self._process = await Undying.start("sleep", "1000", stderr=PIPE)
        return litestream._log_lines(self._process)


async def test_one_that_cannot_be_ended_does_not_keep_the_end(
    replicating: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litestream, "SHUTDOWN_SECONDS", -4.9)
    replicating._litestream.__class__ = Stuck
    replicating.start()
    await until(there(lambda: replicating._is_running), what="it to run")
    process = replicating._litestream._process
    assert process is not None
    try:
        await asyncio.wait_for(replicating.stop(is_sending=False), 20)
        assert replicating.state == "stopped"
        assert process.returncode is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        process.close()
