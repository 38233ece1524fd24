"""A service that begins to back up, on a database that an earlier program has left."""

from pathlib import Path

import pytest

from tests.backups.targets import Machine, replicated
from tests.client import Document
from tests.object_stores import program
from tests.upgrades.conftest import EARLIER
from tests.upgrades.dumps import faults_of, load
from tests.upgrades.life import AT_REST
from tests.upgrades.make import SETTINGS
from tests.upgrades.seen import Looking, differences
from yral_chat.clients.backup_store import Target
from yral_chat.db.migrations import HEAD


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    """One that has the database, and an empty one."""
    program("litestream")
    target = Target(None, str(tmp_path / "backups"))
    old, new = Machine(tmp_path / "old", target, **SETTINGS), Machine(tmp_path / "new", target, **SETTINGS)
    old.data.mkdir()
    load(EARLIER[-1], f"sqlite:///{old.data}/yral_chat.db")
    return old, new


async def seen_on(machine: Machine) -> dict[str, object]:
    document = Document.of(machine.service)
    found: dict[str, object] = {}
    for name in AT_REST:
        looking = Looking(machine.service.url, document, name)
        found[name] = await looking.look()
        await looking.api.close()
    return found


@pytest.mark.long
async def test_what_was_upgraded_is_backed_up(machines: tuple[Machine, Machine]) -> None:
    old, new = machines
    with old.service:
        assert "database.migrated" in old.service.process.output
        assert (old.data / f"yral_chat.db.before-{HEAD}").exists()
        await replicated(old)
        seen = await seen_on(old)
        old.lose()
    with new.service:
        assert "backup.restored" in new.service.process.output
        assert differences(seen, await seen_on(new)) == []
        assert faults_of(new.service.database_url) == []
        assert [path.name for path in new.data.glob("yral_chat.db.before-*")] == []
