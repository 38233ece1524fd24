"""Beside a Litestream that somebody has installed alone: without the libraries that read its objects."""

from pathlib import Path

import pytest

from tests.backups.commands import run
from tests.backups.conftest import MakeMachine
from tests.backups.targets import Person, health, replicated
from yral_chat.clients.backup_store import Target
from yral_chat.services.backups.proof import load_proof

INSTALL = "is not there. Install it: pip install 'yral-chat[litestream]'"


@pytest.fixture
def without(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """A setting by which a Python finds one that cannot be imported."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / f"{request.param}.py").write_text("raise ImportError")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("without", ["fastcrc", "lz4"], indirect=True)
async def test_nothing_is_said_against_the_backup_and_it_is_restored(
    new_machine: MakeMachine, folder_target: Target, without: dict[str, str]
) -> None:
    machine = new_machine(folder_target, **without)
    machine.start("--litestream")
    person = Person(machine)
    person.say(machine, "One", "Two")
    await replicated(machine)
    drill = run(machine, "backup", "drill")
    assert drill.returncode != 0
    assert INSTALL in drill.stderr
    assert load_proof(machine.data) is None
    assert health(machine)["status"] == "up"
    verify = run(machine, "backup", "verify")
    assert verify.returncode != 0
    assert INSTALL in verify.stdout + verify.stderr
    machine.lose()
    another = new_machine(folder_target, **without)
    another.start("--litestream")
    assert person.history(another) == person.said
