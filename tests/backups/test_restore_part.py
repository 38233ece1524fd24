"""`yral-chat restore --conversation` and `--user`, out of a real backup, while the service runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.backups.conftest import MakeMachine
from tests.backups.ltx_objects import rewrite
from tests.backups.targets import Person, replicated
from tests.backups.test_restore_command import EARLY, Operator, lived, steps
from tests.client import PLAIN
from tests.programs import require
from tests.service import token
from yral_chat.clients.backup_store import Target

KEY = "the-key-of-the-operator"


def follow(operator: Operator, lines: list[str]) -> "subprocess.CompletedProcess[str]":
    """In a shell of the operator's."""
    environment = operator.cli.environment(ADMIN_API_KEY=KEY)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        [require("bash", shutil.which("bash")), "-c", "\n".join(["set -euo pipefail", *lines])],
        env=environment,
        cwd=operator.machine.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.long
async def test_a_deleted_conversation_is_put_back_by_the_runbook_while_others_go_on(
    new_machine: MakeMachine, folder_target: Target
) -> None:
    machine = new_machine(folder_target, ADMIN_API_KEY=KEY)
    person, between = await lived(machine)
    neighbour = Person(machine, "a-neighbour")
    neighbour.say(machine, "I was here all the time")
    await replicated(machine)
    headers = {"Authorization": f"Bearer {token(person.user_id)}"}
    with httpx2.Client(base_url=machine.service.url, headers=headers, verify=PLAIN, timeout=60) as client:
        assert client.delete(f"/api/v1/chat/conversations/{person.conversation}").status_code == 200
    neighbour.say(machine, "and said more")

    operator = Operator(machine, folder_target)
    operator.settings["ADMIN_API_KEY"] = KEY
    wanted = {"TIME": between, "CONVERSATION": person.conversation}
    lines = [
        re.sub(r"^(\w+)=.*", lambda found: f"{found[1]}={wanted[found[1]]}", line)
        for line in steps()["Put back a conversation, or a person"].splitlines()
    ]
    done = follow(operator, lines)
    assert done.returncode == 0, done.stderr
    assert "Put back: 5 messages, 1 deleted conversation" in done.stdout
    assert person.history(machine) == EARLY
    assert neighbour.history(machine) == ["I was here all the time", "and said more"]
    assert not (machine.data / "restores").exists()

    with httpx2.Client(base_url=machine.service.url, headers=headers, verify=PLAIN, timeout=60) as client:
        assert client.delete(f"/api/v1/chat/conversations/{person.conversation}").status_code == 200
    brought = operator.run("restore", "--at", between, "--user", person.user_id)
    assert "Put back: 5 messages, 1 deleted conversation" in brought.out, brought
    assert person.history(machine) == EARLY
    assert neighbour.history(machine) == ["I was here all the time", "and said more"]

    left = machine.data / "restores" / "left-by-a-kill.db"
    left.parent.mkdir()
    left.write_text("words")
    again = operator.run("restore", "--at", between, "--user", person.user_id)
    assert again.status == 0, again.err
    assert "Put back: 0 messages" in again.out
    assert not left.exists()
    assert "✗" not in again.out

    words = operator.refuse("restore", "--latest", "--user", person.user_id, ADMIN_API_KEY=None, BACKUP_URL="file:///x")
    assert words == "A server uses the database, and takes orders only with ADMIN_API_KEY: set it for both."

    machine.service.stop()  # what it compacts meanwhile would be sound again
    for path in Path(folder_target.path).rglob("*.ltx"):  # noqa: ASYNC240 - nothing else runs here
        rewrite(path, b"delivered", b"deliverex")
    unsound = operator.run("restore", "--latest", "--user", person.user_id)
    assert "✗ Error, end, attempts and listing of a message are those of its status." in unsound.out, unsound
    nowhere = {"BACKUP_URL": None, "LITESTREAM_ENABLED": None}
    assert "BACKUP_URL is not set" in operator.refuse("restore", "--latest", "--user", "x", **nowhere)


@pytest.mark.long
async def test_who_was_erased_does_not_come_back_by_a_folder_that_has_never_heard_of_it(
    new_machine: MakeMachine, folder_target: Target, tmp_path: Path
) -> None:
    machine = new_machine(folder_target)
    person, between = await lived(machine)
    headers = {"Authorization": f"Bearer {token(person.user_id)}"}
    with httpx2.Client(base_url=machine.service.url, headers=headers, verify=PLAIN, timeout=60) as client:
        assert client.delete("/api/v1/users/me").status_code == 200
    assert machine.service.stop() == 0, "it sends the log of erasures at its end"
    (tmp_path / "new").mkdir()
    url = f"sqlite:///{machine.data / 'yral_chat.db'}"
    operator = Operator(machine, folder_target)
    done = operator.run(
        "restore", "--at", between, "--user", person.user_id, DATA_DIR=str(tmp_path / "new"), DATABASE_URL=url
    )
    assert "was erased after the copy was made" in done.out + done.err, done
    assert "Put back" not in done.out
    (log,) = Path(folder_target.path).rglob("erasures.jsonl")  # noqa: ASYNC240 - nothing else runs here
    log.write_bytes(log.read_bytes()[:-9])
    (tmp_path / "newer").mkdir()
    refused = operator.refuse(
        "restore", "--at", between, "--user", person.user_id, DATA_DIR=str(tmp_path / "newer"), DATABASE_URL=url
    )
    assert refused.startswith("1 line of erasures.jsonl is damaged at the backup")
