"""`yral-chat serve --litestream`, with the real Litestream: what is lost, what comes back, what is refused."""

import asyncio
import math
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.backups.commands import environment, run
from tests.backups.conftest import MakeMachine
from tests.backups.hanging import hanging
from tests.backups.targets import (
    ANOTHER,
    Machine,
    Person,
    bucket,
    give_to_another,
    has_ended,
    health,
    keys,
    litestream_of,
    litestreams_of,
    metric,
    replicated,
)
from tests.crash.disk import ServiceOnDisk, SmallDisk, can_mount
from tests.locks import locks_on, needs_proc_locks
from tests.object_stores import Rclone
from tests.programs import require
from tests.service import START_SECONDS, Process
from tests.waiting import there, until
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.clients.litestream_orphans import lock_to_inherit
from yral_chat.core.clock import DAY, SECOND, from_text, now, to_text
from yral_chat.services.backups.catalogue import CURRENT, LEASE, Catalogue
from yral_chat.services.backups.proof import Proof, save_proof
from yral_chat.services.backups.replication import LAGGING_SECONDS

TEXTS = [f"the message number {number}" for number in range(10)]
# It has time enough to show that it lives, however busy the machine is.
UNHURRIED = {"BACKUP_LEASE_SECONDS": "12"}


@pytest.fixture
def machine(new_machine: MakeMachine, folder_target: Target) -> Machine:
    return new_machine(folder_target)


def contents(folder: Path, pattern: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob(pattern)) if path.is_file()}


def put_back(folder: Path, files: dict[Path, bytes], pattern: str) -> None:
    """Exactly these, as they were."""
    for path in folder.rglob(pattern):
        if path.is_file():
            path.unlink()
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


async def test_a_lost_machine_comes_back_by_itself(new_machine: MakeMachine, target: Target) -> None:
    first = new_machine(target)
    first.start()
    person = Person(first)
    person.say(first, *TEXTS)
    await replicated(first)
    first.lose()

    second = new_machine(target)
    second.start()
    assert person.history(second) == TEXTS
    assert "backup.restored" in second.service.process.output
    person.say(second, "and on it goes")
    await replicated(second)
    entry = await Catalogue(BackupStore(target)).current()
    assert entry is not None
    assert [one.reason for one in entry.generations] == ["first", "restored"]


def test_a_litestream_that_cannot_be_spoken_to_is_refused(machine: Machine, tmp_path: Path) -> None:
    (program := tmp_path / "litestream").write_text("#!/bin/sh\necho 0.5.8\n")
    program.chmod(0o700)
    machine.service.settings["LITESTREAM_PATH"] = str(program)
    assert "Install 0.5.9 or newer" in machine.refuse()
    machine.service.settings |= {"LITESTREAM_PATH": None, "DATA_DIR": f"{tmp_path}/{'a' * 100}"}
    assert "is too long for a socket" in machine.refuse()


@pytest.mark.long
async def test_a_restart_goes_on_where_it_was(
    new_machine: MakeMachine, machine: Machine, folder_target: Target
) -> None:
    machine.start()
    person = Person(machine)
    for end in (machine.service.stop, machine.service.kill):
        person.say(machine, f"before {end.__name__}")
        await replicated(machine)
        end()
        machine.start()
        assert "decision=Continue" in machine.service.process.output
    person.say(machine, "at the end")
    await replicated(machine)
    entry = await Catalogue(BackupStore(folder_target)).current()
    assert entry is not None
    assert len(entry.generations) == 1
    assert machine.service.stop() == 0
    again = new_machine(folder_target)
    again.start()
    assert person.history(again) == person.said


@needs_proc_locks
async def test_sqlites_lock_on_the_file_stays(machine: Machine) -> None:
    """Without it other programs take the database for theirs, and delete its log; to close any handle drops it."""
    path = machine.data / "yral_chat.db"
    for options in ((), ("--new",), ()):  # where a generation begins, and where one goes on
        machine.start(*options)
        assert locks_on(path, machine.service.pid)
        assert machine.service.stop() == 0


@pytest.mark.long
async def test_litestream_is_watched_and_started_again(machine: Machine) -> None:
    machine.start()
    person = Person(machine)
    assert health(machine)["status"] == "up"
    server, litestream = psutil.Process(machine.service.pid), await litestream_of(machine)
    server.suspend()  # or the next one might run before anybody has looked
    litestream.kill()
    await until(there(lambda: has_ended(litestream)), what="its end")
    with lock_to_inherit(machine.data):  # for which the next one waits
        server.resume()
        await until(there(lambda: health(machine)["error"] == "Litestream does not run"), what="somebody to notice")
        assert metric(machine, "backup_up") == 0
    person.say(machine, "nobody waits for the backup")
    await replicated(machine)
    assert metric(machine, "backup_restarts_total") == 1
    assert "backup.litestream_ended" in machine.service.process.output


@pytest.mark.long
async def test_a_start_waits_for_what_a_killed_one_has_left(machine: Machine, folder_target: Target) -> None:
    """Its Litestream sends what is left, and has the database open meanwhile."""
    store = BackupStore(folder_target)
    machine.start()
    person = Person(machine)
    await replicated(machine)
    left = await litestream_of(machine)
    left.suspend()  # so that it cannot end by itself
    person.say(machine, *TEXTS)
    machine.service.kill()
    lease = await store.get(LEASE)
    starting = asyncio.create_task(asyncio.to_thread(machine.start))

    async def is_taken() -> bool:
        return await store.get(LEASE) != lease

    await until(is_taken, what="the lease to be taken over")
    await asyncio.sleep(3)  # the new holder looks again whether it is still the only one
    assert "backup.start" not in machine.service.process.output
    left.resume()
    await starting
    assert has_ended(left)
    assert (await litestream_of(machine)).pid != left.pid
    assert person.history(machine) == TEXTS


@pytest.mark.long
async def test_what_a_killed_one_has_left_and_does_not_end_is_ended(machine: Machine) -> None:
    machine.start()
    left = await litestream_of(machine)
    left.suspend()
    machine.service.kill()
    await asyncio.to_thread(machine.start)
    assert has_ended(left)


@pytest.mark.long
async def test_a_second_service_is_refused(
    new_machine: MakeMachine, target: Target, request: pytest.FixtureRequest
) -> None:
    first, second = new_machine(target, **UNHURRIED), new_machine(target)
    first.start()
    is_warned = "backup.conditions_ignored" in first.service.process.output
    assert is_warned == (request.node.callspec.id != "bucket with conditions")
    person = Person(first)
    assert "is the backup of a service on" in second.refuse()
    assert not (second.data / "yral_chat.db").exists()
    person.say(first, "not disturbed")
    await replicated(first)


@pytest.mark.long
@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
async def test_a_log_without_its_database_is_kept(
    new_machine: MakeMachine, folder_target: Target, is_there: bool
) -> None:
    """Somebody has moved the one away and not the other; or the file system has lost what was in it."""
    unsent = b"what nobody else has" * 100
    first, second = new_machine(folder_target), new_machine(folder_target)
    first.start()
    person = Person(first)
    person.say(first, *TEXTS)
    await replicated(first)
    first.lose()
    second.data.mkdir()
    (second.data / "yral_chat.db-wal").write_bytes(unsent)
    if is_there:
        (second.data / "yral_chat.db").touch()
    second.start()
    assert person.history(second) == TEXTS
    (kept,) = second.data.glob("yral_chat.db.before-restore-*Z-wal")
    assert kept.read_bytes() == unsent
    assert kept.name in second.service.process.output, "what may be in it alone is not forgotten without a word"


@pytest.mark.long
@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
@pytest.mark.parametrize("options", [[], ["--new"]])
async def test_no_backup_is_begun_where_a_log_has_lost_its_database(
    machine: Machine, folder_target: Target, is_there: bool, options: list[str]
) -> None:
    machine.start()
    Person(machine).say(machine, *TEXTS)
    machine.cut_power()
    database, log = machine.data / "yral_chat.db", machine.data / "yral_chat.db-wal"
    database.write_bytes(b"") if is_there else database.unlink()
    before = log.read_bytes()
    elsewhere = Target(None, f"{folder_target.path}-elsewhere")
    machine.service.settings["BACKUP_URL"] = f"file://{elsewhere.path}"
    said = machine.refuse(*options)
    assert "is damaged (" in said
    assert "run `yral-chat restore --latest`" in said
    assert log.read_bytes() == before
    assert database.exists() == is_there
    assert await BackupStore(elsewhere).get(CURRENT) is None


@pytest.mark.long
async def test_a_copy_of_the_folder_is_another_service(new_machine: MakeMachine, folder_target: Target) -> None:
    first, second = new_machine(folder_target, **UNHURRIED), new_machine(folder_target)
    first.start()
    person = Person(first)
    person.say(first, "before the copy")
    shutil.copytree(first.data, second.data, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "*.tmp"))
    assert "is the backup of a service on" in second.refuse()
    person.say(first, "not disturbed")
    await replicated(first)
    first.lose()
    third = new_machine(folder_target)
    third.start()
    assert person.history(third) == person.said


@pytest.mark.long
async def test_nothing_is_begun_over_a_backup_that_cannot_be_restored(
    new_machine: MakeMachine, folder_target: Target
) -> None:
    first = new_machine(folder_target)
    first.start()
    Person(first).say(first, *TEXTS)
    await replicated(first)
    assert first.service.stop() == 0
    whole = contents(Path(folder_target.path), "*.ltx")
    assert whole
    for file, data in whole.items():
        file.write_bytes(data[: len(data) // 2])
    second = new_machine(folder_target)
    message = second.refuse()
    assert "There is a backup, but it could not be restored" in message
    assert "yral-chat backup verify" in message
    assert not (second.data / "yral_chat.db").exists()
    assert not (second.data / "backup.json").exists(), (
        "an old copy that is put there would be taken for what was restored"
    )
    put_back(Path(folder_target.path), whole, "*.ltx")
    second.start()


@pytest.mark.long
async def test_a_backup_without_its_marker_is_not_begun_anew(new_machine: MakeMachine, folder_target: Target) -> None:
    first = new_machine(folder_target)
    first.start()
    person = Person(first)
    person.say(first, *TEXTS)
    await replicated(first)
    first.service.stop()
    store = BackupStore(folder_target)
    marker = await store.get(CURRENT)
    assert marker is not None
    before = await keys(store)
    await store.delete(CURRENT)
    second = new_machine(folder_target)
    assert "no current.json" in second.refuse()
    await store.put(CURRENT, marker.data)
    assert await keys(store) == before
    second.start()
    assert person.history(second) == TEXTS


@pytest.mark.long
async def test_an_older_copy_of_the_folder_does_not_go_on(machine: Machine) -> None:
    machine.start()
    person = Person(machine)
    person.say(machine, "early")
    await replicated(machine)
    machine.service.stop()
    copy = contents(machine.data, "*")
    machine.start()
    person.say(machine, "late")
    await replicated(machine)
    machine.service.stop()
    put_back(machine.data, copy, "*")
    assert "may be older than its backup" in machine.refuse()
    shutil.rmtree(machine.data / ".yral_chat.db-litestream")  # as copies do that leave hidden files out
    assert "may be older than its backup" in machine.refuse()
    assert run(machine, "restore", "--latest").returncode == 0
    machine.start()
    assert person.history(machine) == ["early", "late"]


@pytest.mark.long
@pytest.mark.parametrize("moment", ["backup.restored", "backup.generation_begun"])
async def test_a_start_that_is_killed_is_repeated(new_machine: MakeMachine, folder_target: Target, moment: str) -> None:
    """Between a restore and the first change that arrives in the generation that follows it."""
    first = new_machine(folder_target)
    first.start()
    person = Person(first)
    person.say(first, *TEXTS)
    await replicated(first)
    first.lose()
    second = new_machine(folder_target)
    cut = Process(second.service.command, environment(second), moment, second.folder)
    cut.wait_for_marker(START_SECONDS)
    cut.end(signal.SIGKILL)
    second.start()
    assert person.history(second) == TEXTS
    person.say(second, "and on it goes")
    await replicated(second)


@pytest.mark.long
async def test_new_begins_beside_what_is_there(new_machine: MakeMachine, folder_target: Target) -> None:
    first = new_machine(folder_target)
    first.start()
    Person(first).say(first, *TEXTS)
    await replicated(first)
    first.service.stop()
    store = BackupStore(folder_target)
    old = await Catalogue(store).current()
    assert old is not None
    before = {key for key in await keys(store, old.database_id) if key.endswith(".ltx")}
    second = new_machine(folder_target)
    second.start("--new")
    other = Person(second, "somebody else")
    other.say(second, "a new beginning")
    await replicated(second)
    present = await Catalogue(store).current()
    assert present is not None
    assert present.database_id != old.database_id
    assert before <= set(await keys(store, old.database_id))
    second.lose()
    third = new_machine(folder_target)
    third.start()
    assert other.history(third) == ["a new beginning"]
    third.service.stop()
    # Just begun, and nothing of it is whole.
    moment = to_text(from_text(present.generations[0].begun_at) + SECOND // 10)
    done = run(third, "restore", "--at", moment, "--force")
    assert done.returncode == 0, done.stderr
    third.start()
    assert old.database_id in run(third, "backup", "status").stdout
    assert Person(third).history(third) == TEXTS


@pytest.mark.long
async def test_erased_people_do_not_come_back(new_machine: MakeMachine, folder_target: Target) -> None:
    """The log of erasures is at the target, too: also an older state is restored without them."""
    first = new_machine(folder_target)
    first.start()
    person = Person(first)
    person.say(first, *TEXTS)
    await replicated(first)
    before = contents(Path(folder_target.path), "*.ltx")
    with first.client(person.user_id) as client:
        assert client.delete("/api/v1/users/me").status_code == 200
    store = BackupStore(folder_target)

    async def log_is_there() -> bool:
        return any(key.endswith("erasures.jsonl") for key in await keys(store))

    await until(log_is_there, what="the log of erasures to arrive")
    first.lose()
    put_back(Path(folder_target.path), before, "*.ltx")
    second = new_machine(folder_target)
    second.start()
    assert "accounts.erasures_replayed" in second.service.process.output
    assert person.history(second) == []


@pytest.mark.long
@pytest.mark.parametrize("is_deleted", [False, True])
async def test_nobody_is_brought_back_without_a_word_where_the_log_of_erasures_is_damaged(
    new_machine: MakeMachine, folder_target: Target, is_deleted: bool
) -> None:
    first = new_machine(folder_target)
    first.start()
    person = Person(first)
    person.say(first, *TEXTS)
    await replicated(first)
    with first.client(person.user_id) as client:
        assert client.delete("/api/v1/users/me").status_code == 200
    assert first.service.stop() == 0, "it sends the log of erasures at its end"
    (log,) = Path(folder_target.path).rglob("erasures.jsonl")  # noqa: ASYNC240 - nothing else runs here
    data = log.read_bytes()
    log.unlink() if is_deleted else log.write_bytes(data[:-9])
    second = new_machine(folder_target)
    assert "`yral-chat restore --latest --force`" in second.refuse()
    refused = run(second, "restore", "--latest")
    assert refused.returncode == 1
    assert "erased people would come back. Nothing was changed." in refused.stderr
    assert second.database() is None
    forced = run(second, "restore", "--latest", "--force")
    assert (forced.returncode, "erased people may come back" in forced.stdout) == (0, True), forced.stderr
    # That was said; from now on the log counts as it is.
    second.start()
    second.service.stop()
    assert run(second, "backup", "verify").returncode == 0
    third = new_machine(folder_target)
    third.start()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secret_access_key": "not-the-secret-key"}, "the keys are refused"),
        pytest.param({"bucket": "another"}, "there is no such bucket", marks=pytest.mark.long),
        pytest.param({"endpoint": "http://127.0.0.1:9"}, "it does not answer", marks=pytest.mark.long),
    ],
)
def test_a_bucket_that_cannot_be_used_stops_the_start(
    new_machine: MakeMachine, rclone: Rclone, changes: dict[str, str], words: str
) -> None:
    message = new_machine(bucket(rclone, **changes)).refuse()
    assert message.startswith("The backup at s3://")
    assert words in message
    assert "secret" not in message


@pytest.mark.long
async def test_a_bucket_that_goes_away_harms_nobody(new_machine: MakeMachine, rclone: Rclone) -> None:
    machine = new_machine(bucket(rclone))
    machine.start()
    person = Person(machine)
    await replicated(machine)
    rclone.stop()
    person.say(machine, *TEXTS)
    await until(there(lambda: metric(machine, "backup_lag_seconds") > 0), what="the lag to be seen")
    await until(there(lambda: health(machine)["error"] == "it does not answer"), what="the reason to be seen")
    assert health(machine)["latency_ms"] > 0
    started = time.monotonic()
    person.say(machine, "still here")
    assert time.monotonic() - started < 30
    rclone.start()
    await replicated(machine)
    await until(there(lambda: health(machine)["error"] is None), what="the reason to go")
    machine.lose()
    second = new_machine(bucket(rclone))
    second.start()
    assert person.history(second) == person.said


@pytest.mark.long
async def test_a_folder_that_hangs_harms_nobody(machine: Machine, folder_target: Target) -> None:
    """As on a network disk that is away."""
    folder = Path(folder_target.path)
    machine.start()
    person = Person(machine)
    await replicated(machine)
    renewed_at = (folder / LEASE).stat().st_mtime_ns
    # Just written: the next time it is read first, and not written over.
    await until(there(lambda: (folder / LEASE).stat().st_mtime_ns != renewed_at), what="the lease to be renewed")
    with hanging(folder / LEASE), hanging(folder / CURRENT):
        person.say(machine, *TEXTS)
        await until(there(lambda: health(machine)["error"] == "it does not answer"), what="the reason to be seen")
        person.say(machine, "still here")
    await until(there(lambda: health(machine)["error"] is None), what="the reason to go")
    with hanging(folder / LEASE), hanging(folder / CURRENT):
        person.say(machine, "not for long")
        assert machine.service.stop() == 0
    machine.start()
    assert person.history(machine) == person.said
    await replicated(machine)
    assert health(machine)["status"] == "up"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    require("a tmpfs of one's own (root, or user namespaces)", can_mount())
    with SmallDisk(tmp_path / "small", 16 * 1024 * 1024) as disk:
        yield disk


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "reason"), [("folder", "it is full"), ("bucket", "the server answers 500, as a full one may")]
)
async def test_a_target_that_is_full_harms_nobody_and_says_so(
    new_machine: MakeMachine, small: SmallDisk, tmp_path: Path, kind: str, reason: str
) -> None:
    with Rclone(small.inside / "rclone") as server:
        target = bucket(server) if kind == "bucket" else Target(None, str(tmp_path / "small" / "backups"))
        machine, second = new_machine(target), new_machine(target)
        for one in (machine, second):
            one.service = ServiceOnDisk(one.folder, small, **one.service.settings)
        machine.start()
        person = Person(machine)
        await replicated(machine)
        small.fill()
        person.say(machine, *TEXTS)
        await until(there(lambda: health(machine)["error"] == reason), what="the reason to be seen")
        person.say(machine, "still here")
        small.empty()
        await replicated(machine)
        await until(there(lambda: health(machine)["error"] is None), what="the reason to go")
        machine.lose()
        second.start()
        assert person.history(second) == person.said


@pytest.mark.long
async def test_a_disk_on_which_it_has_no_room_is_not_filled_by_a_restore(
    new_machine: MakeMachine, folder_target: Target, tmp_path: Path
) -> None:
    require("a tmpfs of one's own (root, or user namespaces)", can_mount())
    machine = new_machine(folder_target)
    machine.start()
    Person(machine).say(machine, *TEXTS)
    await replicated(machine)
    machine.lose()
    second = new_machine(folder_target)
    with SmallDisk(second.data, 320 * 1024) as disk:
        second.service = ServiceOnDisk(second.folder, disk, **second.service.settings)
        assert re.search(r"This takes \d+ MiB, and the disk of .* make room\. Nothing was changed\.", second.refuse())


@pytest.mark.long
async def test_one_that_is_started_while_its_bucket_is_away_lags(new_machine: MakeMachine, rclone: Rclone) -> None:
    machine = new_machine(bucket(rclone))
    machine.start()
    person = Person(machine)
    await replicated(machine)
    rclone.stop()
    person.say(machine, *TEXTS)
    (await litestream_of(machine)).kill()
    await until(there(lambda: metric(machine, "backup_restarts_total") == 1), what="it to be missed")
    await until(there(lambda: health(machine)["error"] == "it does not answer"), what="the reason to be seen")
    late = there(lambda: metric(machine, "backup_lag_seconds") > LAGGING_SECONDS)
    await until(late, what="it to lag", seconds=2 * LAGGING_SECONDS)

    def is_told() -> bool:  # but for the moment in which Litestream is started anew, as it is each minute
        told = health(machine)
        error = "changes do not arrive at the backup: it does not answer"
        return (told["status"], told["error"]) == ("degraded", error)

    await until(there(is_told), what="it to be told")
    rclone.start()
    await replicated(machine)
    await until(there(lambda: health(machine)["status"] == "up"), what="it to be well again")
    machine.lose()
    second = new_machine(bucket(rclone))
    second.start()
    assert person.history(second) == person.said


@pytest.mark.long
async def test_everything_is_sent_before_it_ends(
    new_machine: MakeMachine, machine: Machine, folder_target: Target
) -> None:
    machine.start()
    person = Person(machine)
    person.say(machine, *TEXTS)
    assert machine.service.process.end(signal.SIGTERM) == 0
    again = new_machine(folder_target)
    await asyncio.to_thread(again.start)
    assert person.history(again) == TEXTS


@pytest.mark.long
async def test_one_that_was_taken_over_sends_no_more_and_says_so(machine: Machine, folder_target: Target) -> None:
    machine.start()
    person = Person(machine)
    await replicated(machine)

    async def notices() -> bool:
        await give_to_another(folder_target)
        return bool(health(machine)["status"] == "down")

    await until(notices, what="it to notice")
    assert health(machine)["error"] == "another service has taken the backup over"
    assert metric(machine, "backup_up") == 0
    await until(there(lambda: not litestreams_of(machine)), what="Litestream to end")
    person.say(machine, "people are served all the same")
    assert "another-machine" in machine.service.process.output
    assert machine.service.stop() == 0
    stored = await BackupStore(folder_target).get(LEASE)
    assert stored is not None
    assert stored.data == ANOTHER, "it has taken the lease of another away"


@pytest.mark.long
async def test_an_erasure_empties_the_log_also_beside_litestream(machine: Machine) -> None:
    machine.start()
    person = Person(machine)
    mark = b"a-mark-that-stands-nowhere-else"
    person.say(machine, mark.decode())
    await replicated(machine)
    files = [machine.data / name for name in ("yral_chat.db", "yral_chat.db-wal")]
    assert any(mark in file.read_bytes() for file in files)
    with machine.client(person.user_id) as client:
        assert client.delete("/api/v1/users/me").status_code == 200
    assert not any(mark in file.read_bytes() for file in files)
    another = Person(machine, "another")
    another.say(machine, "and on it goes")
    await replicated(machine)
    assert metric(machine, "backup_up") == 1


@pytest.mark.long
async def test_it_proves_by_itself_that_the_backup_restores(new_machine: MakeMachine, folder_target: Target) -> None:
    machine = new_machine(folder_target, BACKUP_DRILL_HOURS="0.002")
    machine.start()
    assert math.isnan(metric(machine, "backup_proven_timestamp_seconds"))
    person = Person(machine)
    person.say(machine, *TEXTS)
    await replicated(machine)

    async def is_proven() -> bool:
        return metric(machine, "backup_proven_timestamp_seconds") > 0

    await until(is_proven, what="the first drill", seconds=60)
    assert metric(machine, "backup_findings") == 0
    assert metric(machine, "backup_recovery_seconds") > 0
    assert metric(machine, "backup_recovery_point_seconds") > 0
    assert health(machine)["error"] is None
    proof = machine.data / "backup-proof.json"
    before = proof.read_bytes()
    await until(there(lambda: proof.read_bytes() != before), what="another drill", seconds=60)
    found = msgspec.json.decode(proof.read_bytes())
    assert found["is_compared"], "it was not held against what the service has"
    # What another drill leaves there is seen, too.
    found |= {"is_proven": False, "findings": [{"subject": "a check", "text": "It does not hold."}]}
    written = machine.folder / "proof.json"
    written.write_bytes(msgspec.json.encode(found))
    written.replace(proof)  # whole, whenever the service looks
    await until(there(lambda: health(machine)["status"] == "degraded"), what="it to be seen")
    assert health(machine)["error"] == "the last drill has found something wrong"
    assert metric(machine, "backup_findings") == 1


@pytest.mark.long
async def test_what_a_drill_has_found_counts_for_its_own_backup(machine: Machine, folder_target: Target) -> None:
    machine.start()
    await replicated(machine)
    entry = await Catalogue(BackupStore(folder_target)).current()
    assert entry is not None
    at, url = "2026-01-01T00:00:00.000000Z", machine.service.settings["BACKUP_URL"]
    ours = Proof(at, is_proven=False, proven_at=at, target=url, database_id=entry.database_id)
    for target, database_id in [("file:///elsewhere", entry.database_id), (url, "another")]:
        save_proof(machine.data, msgspec.structs.replace(ours, target=target, database_id=database_id))
        assert math.isnan(metric(machine, "backup_proven_timestamp_seconds"))
        await until(there(lambda: health(machine)["status"] == "up"), what="it to be left out")
        save_proof(machine.data, ours)
        await until(there(lambda: health(machine)["status"] == "degraded"), what="it to be seen")
        assert metric(machine, "backup_proven_timestamp_seconds") > 0
    save_proof(machine.data, msgspec.structs.replace(ours, is_proven=True, proven_at=to_text(now() - DAY - DAY // 24)))
    words = "for a day nothing has proved that the backup restores"
    await until(there(lambda: health(machine)["error"] == words), what="that it is a day ago")
    assert health(machine)["status"] == "degraded"
    assert metric(machine, "backup_proof_stale") == 1
    save_proof(machine.data, msgspec.structs.replace(ours, is_proven=True, proven_at=to_text(now() - DAY + DAY // 24)))
    await until(there(lambda: health(machine)["status"] == "up"), what="that it is not a day ago")
