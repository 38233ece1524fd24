"""What comes out of a backup is looked at before it becomes the database."""

from pathlib import Path

import pytest

from tests.backups.conftest import MakeMachine
from tests.backups.ltx_objects import rewrite
from tests.backups.targets import Person, replicated
from yral_chat.clients.backup_store import Target


def damage(backup: Path) -> int:
    """The objects still agree with themselves: Litestream restores them without a word."""
    return sum(rewrite(path, b"CREATE TABLE messages", b"CREATE TABLF messages") for path in backup.rglob("*.ltx"))


@pytest.mark.long
async def test_a_damaged_database_does_not_become_the_one_in_use(
    new_machine: MakeMachine, folder_target: Target
) -> None:
    first = new_machine(folder_target)
    first.start()
    Person(first).say(first, "words")
    await replicated(first)
    assert first.service.stop() == 0
    assert damage(Path(folder_target.path))
    second = new_machine(folder_target)
    assert "what came is damaged" in second.refuse()
    assert not (second.data / "yral_chat.db").exists()
