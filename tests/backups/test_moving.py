"""Copies of a data folder: each is a folder of its own, and writes a history of its own."""

import shutil
from pathlib import Path

import pytest

from tests.backups.conftest import MakeMachine
from tests.backups.targets import Person, replicated
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.services.backups.catalogue import Catalogue
from yral_chat.services.backups.local import owner_of


def test_a_copy_is_another_folder_and_a_renamed_one_is_not(tmp_path: Path) -> None:
    folder, moved = tmp_path / "data", tmp_path / "moved"
    folder.mkdir()
    owner = owner_of(folder)
    assert owner_of(folder) == owner
    assert owner_of(shutil.copytree(folder, tmp_path / "copy")) != owner
    folder.rename(moved)
    assert owner_of(moved) == owner


@pytest.mark.long
async def test_two_copies_never_write_into_one_history(new_machine: MakeMachine, folder_target: Target) -> None:
    first, second = new_machine(folder_target), new_machine(folder_target)
    first.start()
    person = Person(first)
    person.say(first, "before the copy")
    await replicated(first)
    first.service.stop()
    shutil.copytree(first.data, second.data, dirs_exist_ok=True)
    second.start()
    person.say(second, "in the copy")
    await replicated(second)
    entry = await Catalogue(BackupStore(folder_target)).current()
    assert entry is not None
    assert [one.reason for one in entry.generations] == ["first", "moved"]
    second.service.stop()
    assert "may be older than its backup" in first.refuse()
    second.start()
    assert "decision=Continue" in second.service.process.output
    assert person.history(second) == person.said
