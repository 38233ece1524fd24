"""The two files that lead to a backup, and the place that it lies at: damaged, deleted, or another than it was."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backups.commands import drilled, run, verified
from tests.backups.conftest import MakeMachine
from tests.backups.targets import Machine, Person, bucket, health, lose_at_rest, metric, noted, replicated
from tests.object_stores import Rclone
from tests.waiting import there, until
from yral_chat.clients.backup_store import BackupStore, BackupStoreError, Target
from yral_chat.core.clock import now, to_text
from yral_chat.services.backups.catalogue import CURRENT, Catalogue, entry_key

Damage = Callable[[bytes], bytes]


def _flipped(data: bytes) -> bytes:
    return data.replace(b'"database_id', b"&database_id")


def _of_another(data: bytes) -> bytes:
    """Still JSON, and a name that nothing has."""
    fields = json.loads(data)
    return json.dumps(fields | {"database_id": fields["database_id"][::-1]}).encode()


async def _damage(store: BackupStore, name: str, damage: Damage | None) -> str:
    """Of `current` or `database`; returns its key. None: it is deleted."""
    entry = await Catalogue(store).read()
    assert entry is not None
    key = CURRENT if name == "current" else entry_key(entry.database_id)
    stored = await store.get(key)
    assert stored is not None
    if damage is None:
        await store.delete(key)
    else:
        await store.put(key, damage(stored.data))
    return key


async def _lived(machine: Machine) -> Person:
    machine.start()
    person = Person(machine)
    person.say(machine, "One", "Two")
    await replicated(machine)
    return person


def _mount(away: str, folder: str) -> bool:
    """Puts it back, with nothing in between that the lease could be written into."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        Path(away).rename(folder)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("current", None),
        ("database", _flipped),
        pytest.param("current", _flipped, marks=pytest.mark.long),
        pytest.param("current", _of_another, marks=pytest.mark.long),
        pytest.param("database", _of_another, marks=pytest.mark.long),
        pytest.param("database", None, marks=pytest.mark.long),
    ],
)
async def test_who_serves_writes_them_anew(
    new_machine: MakeMachine, target: Target, name: str, damage: Damage | None
) -> None:
    machine = new_machine(target)
    person = await _lived(machine)
    store = BackupStore(target)
    before = await Catalogue(store).read()
    await _damage(store, name, damage)

    async def is_mended() -> bool:
        try:
            entry = await Catalogue(store).read()
        except BackupStoreError:
            return False
        assert before is not None
        return entry is not None and [one.id for one in entry.generations] == [one.id for one in before.generations]

    await until(is_mended, what="both files to be whole")
    assert drilled(machine).is_proven
    machine.lose()
    another = new_machine(target)
    another.start()
    assert person.history(another) == person.said


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("database", _flipped),
        pytest.param("current", _flipped, marks=pytest.mark.long),
        pytest.param("database", _of_another, marks=pytest.mark.long),
    ],
)
async def test_a_lost_machine_comes_back_all_the_same(
    new_machine: MakeMachine, target: Target, name: str, damage: Damage
) -> None:
    machine = new_machine(target)
    person = await _lived(machine)
    await lose_at_rest(machine)
    key = await _damage(BackupStore(target), name, damage)
    another = new_machine(target)
    another.data.mkdir()
    findings = drilled(another).findings
    assert [one.subject for one in findings] == ["catalogue"], findings
    (finding,) = findings
    assert key in finding.text
    assert verified(another) == [f"catalogue: {finding.text}"]
    assert run(another, "restore", "--latest", "--to", str(another.folder / "copy.db")).returncode == 0
    another.start()
    assert person.history(another) == person.said
    assert (await Catalogue(BackupStore(target)).read()) is not None


@pytest.mark.long
async def test_one_that_is_missing_is_read_off_the_folders(new_machine: MakeMachine, target: Target) -> None:
    machine = new_machine(target)
    person = await _lived(machine)
    machine.lose()
    await _damage(BackupStore(target), "database", None)
    another = new_machine(target)
    another.start()
    assert person.history(another) == person.said


async def test_a_newer_database_that_is_lost_hides_no_older_one(
    new_machine: MakeMachine, folder_target: Target
) -> None:
    machine = new_machine(folder_target)
    person = await _lived(machine)
    machine.lose()
    await asyncio.sleep(2)  # a generation is told from the one before by the second
    time, store = to_text(now()), BackupStore(folder_target)
    older = await Catalogue(store).read()
    another = new_machine(folder_target)
    another.start("--new")
    await replicated(another)
    another.lose()
    newer = await Catalogue(store).read()
    assert older is not None
    assert newer is not None
    await store.delete_all(newer.database_id)
    third = new_machine(folder_target)
    said = third.refuse()
    assert newer.database_id in said
    assert "restore --at TIME" in said
    assert "--new" in said
    assert said.split("`")[1:2] == run(third, "restore", "--latest").stderr.split("`")[1:2]
    assert older.generations[0].id in run(third, "backup", "list").stdout
    assert f"names a database whose {entry_key(newer.database_id)} is missing" in run(third, "backup", "status").stdout
    assert run(third, "restore", "--at", time).returncode == 0
    third.start("--new")
    assert person.history(third) == person.said


async def test_a_folder_that_was_away_gets_everything(
    new_machine: MakeMachine, folder_target: Target, tmp_path: Path
) -> None:
    """As a disk that is unmounted and mounted again, with another folder seen in between."""
    machine = new_machine(folder_target)
    person = await _lived(machine)
    folder, away = folder_target.path, str(tmp_path / "away")
    shutil.move(folder, away)
    await until(there(lambda: health(machine)["status"] == "down"), what="that it is seen")
    assert "is not the backup of this database any more" in health(machine)["error"]
    await until(there(lambda: metric(machine, "backup_up") == 0), what="Litestream to end")
    person.say(machine, "Three", "Four")
    await until(there(lambda: _mount(away, folder)), what="that nobody writes there just then")
    await until(there(lambda: health(machine)["status"] == "up"), what="that it is seen")
    person.say(machine, "Five")
    await replicated(machine)
    assert drilled(machine).is_proven
    assert verified(machine) == []
    machine.lose()
    another = new_machine(folder_target)
    another.start()
    assert person.history(another) == person.said


@pytest.mark.long
async def test_a_bucket_that_was_emptied_is_no_backup(new_machine: MakeMachine, rclone: Rclone) -> None:
    target = bucket(rclone)
    machine = new_machine(target)
    await _lived(machine)
    store = BackupStore(target)
    await noted(store)  # else it would be begun anew
    await store.delete_all("")
    await until(there(lambda: health(machine)["status"] == "down"), what="that it is seen")
    assert machine.service.stop() == 0
    assert "no current.json" in machine.refuse() or "is empty now" in machine.refuse()
