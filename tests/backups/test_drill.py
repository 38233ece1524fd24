"""`yral-chat backup drill` and `verify`: beside a real server with the real Litestream, and without one."""

import asyncio
import re
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from tests.backups.commands import arguments, drilled, environment, run, verified
from tests.backups.conftest import MakeMachine
from tests.backups.ltx_objects import rewrite
from tests.backups.targets import Machine, Person, bucket, has_ended, health, noted, replicated
from tests.history.stored import is_at_rest
from tests.object_stores import Rclone, settings_for
from tests.rows import execute, fetch
from tests.waiting import there, until
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.clients.litestream import find_litestream
from yral_chat.core.clock import now, to_text
from yral_chat.db import moments
from yral_chat.db.files import load_driver
from yral_chat.db.verification import examine
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.backups import drill as drills
from yral_chat.services.backups.catalogue import Catalogue
from yral_chat.services.backups.proof import load_proof
from yral_chat.services.backups.scratch import ScratchUnusable


@pytest.fixture
def machine(new_machine: MakeMachine, folder_target: Target) -> Machine:
    return new_machine(folder_target)


@pytest.fixture
def talking(machine: Machine) -> Person:
    """Somebody who has said something, which need not have arrived yet."""
    machine.start()
    person = Person(machine)
    person.say(machine, "One", "Unheard-of")
    return person


def objects(target: Target) -> list[Path]:
    return sorted(Path(target.path).rglob("*.ltx"))


def newest(target: Target, level: int) -> str:
    """The last transaction that has an object of this level, in hexadecimal."""
    return max((path.name[17:33] for path in objects(target) if path.parent.name == str(level)), default="")


def claim_many_pages(target: Target) -> None:
    """More than there is room for on any disk."""
    for path in objects(target):
        data = path.read_bytes()
        path.write_bytes(data[:12] + (2**31).to_bytes(4) + data[16:])


def catalogue_of(target: Target) -> list[Path]:
    return [path for name in ("current.json", "database.json") for path in Path(target.path).rglob(name)]


def begun(machine: Machine) -> "subprocess.Popen[str]":
    """A drill that is under way."""
    command, pipe = arguments("backup", "drill"), subprocess.PIPE
    drill = subprocess.Popen(command, env=environment(machine), cwd=machine.folder, stdout=pipe, text=True)
    assert drill.stdout is not None
    drill.stdout.readline()
    return drill


def subjects(machine: Machine) -> set[str]:
    return {finding.subject for finding in drilled(machine).findings}


@pytest.mark.long
async def test_beside_a_server_what_comes_back_is_what_that_has(new_machine: MakeMachine, target: Target) -> None:
    machine = new_machine(target)
    machine.start()
    person = Person(machine)
    person.say(machine, "One", "Unheard-of")
    before = to_text(now())
    proof = drilled(machine)
    assert proof.findings == ()
    assert (proof.is_proven, proof.is_compared) == (True, True)
    assert proof.proven_at is not None
    assert before <= proof.proven_at <= proof.at
    assert proof.rows >= 10
    assert proof.bytes > 100_000
    assert proof.recovery_point_seconds is not None
    assert proof.recovery_seconds is not None
    entry = await Catalogue(BackupStore(target)).current()
    assert entry is not None
    assert (proof.database_id, proof.generation) == (entry.database_id, entry.generations[-1].id)
    assert verified(machine) == []
    assert verified(machine, "--all") == []
    person.say(machine, "and nobody was disturbed")


@pytest.mark.long
async def test_while_everybody_writes_each_drill_finds_the_same_on_both_sides(machine: Machine) -> None:
    machine.start()
    person = Person(machine)
    has_to_end = asyncio.Event()

    async def talk() -> None:
        number = 0
        while not has_to_end.is_set():
            await asyncio.to_thread(person.say, machine, f"Number {number}")
            number += 1

    talking = asyncio.create_task(talk())
    proofs = [await asyncio.to_thread(drilled, machine) for _ in range(3)]
    has_to_end.set()
    await talking
    assert [proof.findings for proof in proofs] == [()] * 3
    assert all(proof.is_compared for proof in proofs)
    assert proofs[0].rows < proofs[1].rows < proofs[2].rows
    assert len({proof.txid for proof in proofs}) == 3


async def test_without_a_server_the_newest_state_is_looked_at(
    machine: Machine, talking: Person, new_machine: MakeMachine, folder_target: Target
) -> None:
    machine.service.stop()
    proof = drilled(machine)
    assert proof.findings == ()
    assert (proof.is_proven, proof.is_compared) == (True, False)
    elsewhere = new_machine(folder_target)  # where nothing is but the settings
    elsewhere.data.mkdir()
    assert drilled(elsewhere).is_proven
    assert verified(elsewhere, "--all") == []
    assert [path.name for path in elsewhere.data.iterdir() if path.suffix == ".db"] == []


@pytest.mark.long
async def test_what_came_back_as_something_else_is_named(
    machine: Machine, talking: Person, folder_target: Target
) -> None:
    """An object that agrees with itself and is not what was written: a fault of Litestream would look like this."""
    await until(there(lambda: any(path.parent.name == "9" for path in objects(folder_target))), what="a snapshot")
    handed_over = text("SELECT count(*) FROM messages WHERE is_handed_over")
    await until(there(lambda: fetch(machine.service, handed_over)[0][0] == 2), what="the last change of the messages")
    await until(there(lambda: is_at_rest(machine.service)), what="nothing runs and nothing waits")
    await replicated(machine)
    # At the next half minute it would be compacted from what Litestream has here, and sound again.
    last = newest(folder_target, 0)
    await until(there(lambda: newest(folder_target, 1) >= last), what="level 1")
    assert sum(rewrite(path, b"Unheard", b"unheard") for path in objects(folder_target)) > 0
    proof = drilled(machine)
    assert not proof.is_proven
    texts = [finding.text for finding in proof.findings if finding.subject == "comparison"]
    assert {told.split()[0] for told in texts} == {"conversations", "events", "messages"}
    assert "messages came back with 5 rows as it must, but not with the same in them." in texts


async def test_what_litestream_did_not_write_is_named(machine: Machine, talking: Person, folder_target: Target) -> None:
    await replicated(machine)
    level = objects(folder_target)[0].parent
    # What it is writing, or was when it was killed; it knows that only under its last name.
    (level / "00000000000000f1-00000000000000f1.ltx.tmp").write_bytes(b"LTX1")
    assert verified(machine) == []
    (level / "notes.txt").write_text("here")
    assert verified(machine) == [f"ltx/{level.name}/notes.txt: Litestream does not know this object."]
    assert subjects(machine) == {f"ltx/{level.name}/notes.txt"}


async def test_a_damaged_catalogue_is_a_finding(machine: Machine, talking: Person, folder_target: Target) -> None:
    await replicated(machine)
    assert machine.service.stop() == 0
    for damaged in catalogue_of(folder_target):
        data = damaged.read_bytes()
        damaged.write_bytes(data[:-1])
        proof = drilled(machine)
        assert f"{damaged.name} is damaged" in proof.findings[0].text
        damaged.write_bytes(data)
    assert len(catalogue_of(folder_target)) == 2
    assert drilled(machine).is_proven


@pytest.mark.long
async def test_older_generations_are_looked_at_when_asked(
    machine: Machine, talking: Person, folder_target: Target
) -> None:
    """After a restore they have all the history, and the newest has one snapshot of it."""
    store = BackupStore(folder_target)
    await noted(store)
    assert machine.service.stop() == 0
    assert run(machine, "restore", "--latest").returncode == 0
    machine.start()
    await replicated(machine)
    entry = await Catalogue(store).current()
    assert entry is not None
    older, newest = entry.generations
    assert verified(machine, "--all") == []
    damaged = next(path for path in objects(folder_target) if older.id in path.parts)
    data = damaged.read_bytes()
    at = len(data) // 2  # a single bit may be of no account
    damaged.write_bytes(data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 64]) + data[at + 64 :])
    assert verified(machine) == []
    found = verified(machine, "--all")
    assert f"{older.id} {damaged.parent.name}/{damaged.name}" in found[0]
    assert not [line for line in found if newest.id in line]
    shutil.rmtree(damaged.parents[1])
    assert verified(machine, "--all") == [f"{older.id} objects: They are missing."]


async def test_a_broken_invariant_is_named_also_where_both_sides_have_it(machine: Machine, talking: Person) -> None:
    assert subjects(machine) == set()
    execute(machine.service, text("UPDATE conversations SET message_count = message_count + 1"))
    proof = drilled(machine)
    assert {finding.subject for finding in proof.findings} == {"conversations.message_count", "counters.messages"}
    assert proof.is_compared
    assert proof.proven_at is not None, "by the drill before"
    assert proof.proven_at < proof.at
    assert run(machine, "backup", "verify").returncode == 1


@pytest.mark.long
async def test_who_was_erased_does_not_come_back(machine: Machine, talking: Person) -> None:
    with machine.client("somebody") as client:
        assert client.delete("/api/v1/users/me").status_code == 200
    other = Person(machine, "another")
    other.say(machine, "I stay")
    assert subjects(machine) == set()
    await replicated(machine)
    machine.service.stop()
    before = examine(machine.service.database_url).tables
    # An erasure that the backup has not lived through is repeated in what was restored, and nowhere else.
    ErasureLog(machine.data / "erasures.jsonl").append(Erasure("late", "another", to_text(now())))
    assert subjects(machine) == set()
    assert examine(machine.service.database_url).tables == before
    machine.start()
    await until(there(lambda: not fetch(machine.service, text("SELECT id FROM messages"))), what="a start to repeat it")


@pytest.mark.long
async def test_erasures_that_the_backup_does_not_know_are_named(machine: Machine, talking: Person) -> None:
    await replicated(machine)
    machine.service.stop()
    ErasureLog(machine.data / "erasures.jsonl").append(Erasure("old", "another", "2026-01-01T00:00:00.000000Z"))
    assert subjects(machine) == {"erasures"}
    verified = run(machine, "backup", "verify")
    assert verified.returncode == 1
    assert "erasures: 1 erasure is not noted at the backup" in verified.stdout


@pytest.mark.long
async def test_erasures_that_the_backup_has_lost_are_named_by_who_never_knew_them(
    machine: Machine, talking: Person, new_machine: MakeMachine, folder_target: Target
) -> None:
    with machine.client("somebody") as client:
        assert client.delete("/api/v1/users/me").status_code == 200
    await replicated(machine)
    machine.service.stop()
    (log,) = Path(folder_target.path).rglob("erasures.jsonl")  # noqa: ASYNC240 - nothing else runs here
    other = new_machine(folder_target)
    other.data.mkdir()
    assert verified(other, "--all") == []
    log.write_bytes(log.read_bytes()[:-9])
    (damaged, *_) = verified(other)
    assert damaged.startswith("erasures: 1 line of erasures.jsonl is damaged: ")
    assert subjects(other) == {"erasures"}
    log.unlink()
    (lost,) = verified(other, "--all")
    assert lost.startswith("erasures: 1 erasure is missing in erasures.jsonl at the backup: ")
    assert subjects(other) == {"erasures"}
    # Whoever has them all brings them back.
    machine.start()
    machine.service.stop()
    assert verified(other) == []


@pytest.mark.long
async def test_what_is_left_of_erased_people_is_named(machine: Machine, talking: Person) -> None:
    with machine.client("another") as client:
        assert client.delete("/api/v1/users/me").status_code == 200
    # A line for somebody who was never erased here, with the audit that says so.
    at = to_text(now())
    log = ErasureLog(machine.data / "erasures.jsonl")
    log.append(Erasure("never", "somebody", at))
    audit = "INSERT INTO audit_events VALUES ('never', 'account.erased', 'x', '', '{}', 0)"
    execute(machine.service, text(audit))
    proof = drilled(machine)
    assert {finding.subject for finding in proof.findings} == {"erased"}
    told = " ".join(finding.text for finding in proof.findings)
    assert "messages.sender_id" in told
    assert "somebody" not in told


@pytest.mark.long
async def test_a_disk_without_room_is_left_alone(machine: Machine, talking: Person, folder_target: Target) -> None:
    await replicated(machine)
    machine.service.stop()
    claim_many_pages(folder_target)
    done = run(machine, "backup", "drill")
    assert done.returncode == 1
    assert "make room" in done.stderr
    assert load_proof(machine.data) is None, "it says nothing of the backup"


async def test_what_is_no_drill_of_this_backup_is_not_written_down(
    machine: Machine, talking: Person, folder_target: Target, tmp_path: Path
) -> None:
    """As from a shell without the service's settings: what the service has found stays so."""
    await replicated(machine)
    (objects(folder_target)[0].parent / "notes.txt").write_text("here")
    found = drilled(machine)
    assert not found.is_proven
    without = run(machine, "backup", "drill", BACKUP_URL="", LITESTREAM_ENABLED="false")
    assert (without.returncode, without.stdout) == (1, "")
    assert "BACKUP_URL is not set" in without.stderr
    elsewhere = run(machine, "backup", "drill", BACKUP_URL=f"file://{tmp_path}/elsewhere")
    assert elsewhere.returncode == 1
    assert f"is backed up to {folder_target.path}" in elsewhere.stdout
    assert load_proof(machine.data) == found
    assert "drill has found something" in health(machine)["error"]


@pytest.mark.long
async def test_what_is_wrong_with_the_objects_is_said_also_where_nothing_can_be_restored(
    machine: Machine, talking: Person, folder_target: Target
) -> None:
    await replicated(machine)
    machine.service.stop()
    (objects(folder_target)[0].parent / "notes.txt").write_text("here")
    claim_many_pages(folder_target)
    done = run(machine, "backup", "verify")
    assert done.returncode == 1
    assert "make room" in done.stderr
    assert "notes.txt: Litestream does not know this object." in done.stdout
    assert "It is damaged" in done.stdout


@pytest.mark.long
async def test_a_drill_that_was_killed_leaves_nothing_for_long(machine: Machine, talking: Person) -> None:
    scratch = machine.data / "backup-drill"
    scratch.mkdir()
    (scratch / "restored.db").write_bytes(b"left by a drill that was killed")
    drill = begun(machine)
    other = run(machine, "backup", "verify")
    assert psutil.Process(drill.pid).nice() == 19  # the lowest priority
    children = psutil.Process(drill.pid).children(recursive=True)
    drill.send_signal(signal.SIGKILL)
    drill.communicate()
    await until(there(lambda: all(has_ended(child) for child in children)), what="its Litestream to end")
    assert other.returncode == 1 or "Sound" in other.stdout  # it was faster than we looked
    assert subjects(machine) == set()
    assert not scratch.exists()


@pytest.mark.long
async def test_a_comparison_for_which_the_log_would_grow_too_long_is_given_up(
    machine: Machine, talking: Person, folder_target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads keeps the log from beginning anew; this one would read for ever."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    monkeypatch.setattr(moments, "QUICK_CHECK", endless)
    monkeypatch.setattr(drills, "MAX_LOG_BYTES", -1)
    settings = settings_for(machine.data, backup_url=f"file://{folder_target.path}")
    proof = await drills.Drill(settings, lambda _: None).run()
    (finding,) = proof.findings
    assert finding.text == "The server's own tables could not be read for it: interrupted."
    assert not proof.is_compared
    assert proof.recovery_seconds is not None
    talking.say(machine, "and on it goes")


async def test_without_a_backup_there_is_nothing_to_prove(machine: Machine, folder_target: Target) -> None:
    machine.data.mkdir()
    proof = drilled(machine)
    assert (proof.is_proven, proof.proven_at) == (False, None)
    assert [finding.text for finding in proof.findings] == [f"{folder_target.path} holds no backup."]
    assert verified(machine) == [f"{folder_target.path} holds no backup.\n"]


async def test_a_target_that_does_not_answer_says_nothing_of_the_backup(machine: Machine, nowhere: str) -> None:
    machine.data.mkdir()
    away = {
        "BACKUP_URL": "s3://some/where", "BACKUP_ENDPOINT_URL": f"http://{nowhere}",
        "BACKUP_ACCESS_KEY_ID": "some", "BACKUP_SECRET_ACCESS_KEY": "some",
    }  # fmt: skip
    done = run(machine, "backup", "drill", **away)
    assert (done.returncode, load_proof(machine.data)) == (1, None)
    assert done.stderr == "The backup at s3://some/where cannot be used: it does not answer.\n"


@pytest.mark.long
async def test_a_target_that_goes_away_beside_a_server_says_nothing_of_the_backup(
    new_machine: MakeMachine, rclone: Rclone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drills, "ARRIVAL_SECONDS", 3.0)
    target = bucket(rclone)
    machine = new_machine(target)
    machine.start()
    person = Person(machine)
    await replicated(machine)
    rclone.stop()
    person.say(machine, "This cannot arrive")
    settings = settings_for(
        machine.data, backup_url=f"s3://{target.bucket}/{target.path}", backup_endpoint_url=target.endpoint,
        backup_access_key_id=SecretStr(target.access_key_id),
        backup_secret_access_key=SecretStr(target.secret_access_key),
    )  # fmt: skip
    with pytest.raises(ScratchUnusable, match="it does not answer"):
        await drills.Drill(settings, lambda _: None).run()


def damage_an_index(database: Path) -> None:
    """One that a chat does not need."""
    connection = load_driver().connect(f"file:{database}?mode=ro", uri=True)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'ix_audit_events_subject'").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


@pytest.mark.long
async def test_a_database_that_is_damaged_itself_is_named(
    machine: Machine, talking: Person, folder_target: Target
) -> None:
    """Beside the server, and without one; what a snapshot of that brings back is named by its own checks."""
    await replicated(machine)
    damage_an_index(machine.data / "yral_chat.db")
    for subject in ("server", "database"):
        texts = [finding.text for finding in drilled(machine).findings if finding.subject == subject]
        assert len(texts) == 1
        assert re.search("is damaged .*: docs/operations/restore.md says what to do", texts[0])
        machine.service.stop()
    for path in objects(folder_target):
        path.write_bytes(path.read_bytes()[:-50])
    assert {finding.subject for finding in drilled(machine).findings} >= {"drill", "database"}, "the one hides no other"


@pytest.mark.long
async def test_a_server_that_backs_up_to_another_place_is_named(
    machine: Machine, talking: Person, tmp_path: Path
) -> None:
    await replicated(machine)
    half_written = shutil.ignore_patterns("*#*", "*.tmp")  # these get another name any moment
    shutil.copytree(tmp_path / "backups", tmp_path / "other", ignore=half_written)
    done = run(machine, "backup", "drill", BACKUP_URL=f"file://{tmp_path}/other")
    assert done.returncode == 1
    assert "server: The server that runs does not back up to BACKUP_URL." in done.stdout
    assert load_proof(machine.data) is None, "it says nothing of the backup that is made here"


def test_a_drill_without_a_data_folder_says_so(new_machine: MakeMachine, folder_target: Target) -> None:
    machine = new_machine(folder_target, DATA_DIR="nowhere")
    Path(folder_target.path).mkdir()
    done = run(machine, "backup", "drill")
    assert (done.returncode, "backup-drill.lock" in done.stderr) == (1, False)
    assert "There is no folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process has loaded is asked of Linux")
def test_litestream_restores_beside_a_drill_that_has_not_loaded_sqlalchemy(
    machine: Machine, talking: Person, tmp_path: Path
) -> None:
    """That is a third of what the drill has in memory, and Litestream needs its most at the end of a restore."""
    assert "/sqlalchemy/" in Path("/proc/self/maps").read_text(), "whoever has loaded it shows it"
    program, seen = tmp_path / "litestream", tmp_path / "seen"
    look = f'[ "$1" != restore ] || cat /proc/$PPID/maps >> {seen}'
    program.write_text(f'#!/bin/sh\n{find_litestream(None)} "$@"\nstatus=$?\n{look}\nexit $status\n')
    program.chmod(0o700)
    for has_server in (True, False):
        assert drilled(machine, LITESTREAM_PATH=str(program)).is_compared == has_server
        loaded = seen.read_text()
        assert "/obstore/" in loaded, "it is the drill that was looked at"
        assert [line for line in loaded.splitlines() if "/sqlalchemy/" in line] == []
        seen.unlink()
        machine.service.stop()
