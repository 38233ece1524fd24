"""The objects of the newest generation are gone: nobody takes what came before it for the newest state."""

import shutil
from pathlib import Path

import pytest

from tests.backups.commands import run, verified
from tests.backups.conftest import MakeMachine
from tests.backups.targets import Person, noted, replicated
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.core.clock import SECOND, from_text, to_text
from yral_chat.services.backups.catalogue import place

pytestmark = pytest.mark.long


async def test_a_generation_that_is_missing_is_not_passed_over(
    new_machine: MakeMachine, folder_target: Target, tmp_path: Path
) -> None:
    store = BackupStore(folder_target)
    machine = new_machine(folder_target)
    machine.start()
    person = Person(machine)
    person.say(machine, "early")
    await replicated(machine)
    machine.service.stop()
    assert run(machine, "restore", "--latest").returncode == 0
    machine.start()
    person.say(machine, "late")
    await replicated(machine)
    entry, newest = await noted(store)
    machine.service.stop()
    objects = Path(folder_target.path) / place(entry.database_id, newest.id)
    shutil.move(objects, tmp_path / "kept")

    empty = new_machine(folder_target)
    missing = f"generation {newest.id}"
    assert missing in empty.refuse()
    (said,) = verified(empty)
    assert missing in said
    status = run(empty, "backup", "status")
    assert (status.returncode, missing in status.stderr) == (1, True)
    assert (
        f"{newest.id}  database {entry.database_id}  (restored)\n  nothing of it is there now\n"
        in run(empty, "backup", "list").stdout
    )
    later = to_text(from_text(newest.begun_at) + 60 * SECOND)
    assert missing in run(empty, "restore", "--at", later).stderr

    done = run(empty, "restore", "--at", newest.begun_at)
    assert done.returncode == 0, done.stderr
    shutil.move(tmp_path / "kept", objects)
    assert "may be older than its backup" in empty.refuse(), "they are back"
    shutil.move(objects, tmp_path / "kept")
    empty.start()
    assert person.history(empty) == ["early"]
