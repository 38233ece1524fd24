"""`yral-chat` beside a machine's service, as its operator runs it."""

import os
import subprocess
import sys

from tests.backups.targets import Machine
from yral_chat.services.backups.proof import Proof, load_proof


def run(machine: Machine, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """With the machine's settings."""
    return subprocess.run(
        arguments(*command),
        env=environment(machine, **settings),
        cwd=machine.folder,
        capture_output=True,
        text=True,
        timeout=180,
    )


def arguments(*command: str) -> list[str]:
    return [sys.executable, "-m", "yral_chat.cli", *command]


def environment(machine: Machine, **settings: str) -> dict[str, str]:
    given = {**machine.service.settings, **settings, "PATH": os.environ["PATH"]}
    return {name: value for name, value in given.items() if value is not None}


def drilled(machine: Machine, **settings: str) -> Proof:
    """What a drill has written down; what it says and returns is the same."""
    done = run(machine, "backup", "drill", **settings)
    proof = load_proof(machine.data)
    assert proof is not None, done.stderr
    assert done.returncode == (0 if proof.is_proven else 1), done.stderr
    for finding in proof.findings:
        assert f"{finding.subject}: {finding.text}" in done.stdout
    assert ("Proven: the state of" in done.stdout) == proof.is_proven
    assert not (machine.data / "backup-drill").exists()
    return proof


def verified(machine: Machine, *options: str, **settings: str) -> list[str]:
    """What `verify` finds: its lines but those with what there is, and the last, with the verdict."""
    done = run(machine, "backup", "verify", *options, **settings)
    lines = [line for line in done.stdout.splitlines() if " objects of generation " not in line]
    assert (done.returncode, lines[-1:]) == (0, ["Sound."]) or done.returncode == 1, done.stderr
    assert not (machine.data / "backup-drill").exists()
    return [done.stderr] if done.stderr else lines[:-1]
