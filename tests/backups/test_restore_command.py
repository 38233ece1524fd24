"""`yral-chat restore` and `yral-chat backup`, and the runbook docs/operations/restore.md, executed."""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.backups.conftest import MakeMachine
from tests.backups.targets import Machine, Person, bucket, hash_of, replicated, settings_of
from tests.cli.commands import Cli, Finished
from tests.clients.refusing import Refusing
from tests.crash.disk import SmallDisk, can_mount
from tests.object_stores import program
from tests.programs import require
from tests.rows import execute
from tests.test_documents import ROOT, blocks
from tests.waiting import room_in, there, until
from yral_chat.clients.backup_store import Target
from yral_chat.clients.litestream import txid_text, wait_for_orphan
from yral_chat.core.clock import now, to_text
from yral_chat.core.sizes import MEBIBYTE
from yral_chat.db.files import load_driver

EARLY, LATE = ["the first words", "and more"], ["said later"]


class Operator:
    """Somebody with the settings of a machine and a shell on it."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.settings: dict[str, str | None] = {
            "DATA_DIR": str(machine.data),
            "BACKUP_LEASE_SECONDS": "3",
            **settings_of(target),
        }
        self.cli = Cli(machine.folder / "operator", **self.settings)

    def run(self, *words: str, **changes: str | None) -> Finished:
        return Cli(self.cli.folder, **(self.settings | changes)).run(*words)

    def refuse(self, *words: str, **changes: str | None) -> str:
        before = self.machine.database()
        done = self.run(*words, **changes)
        assert done.status == 1, done
        assert self.machine.database() == before
        return done.err.strip()


@pytest.fixture
async def machine(new_machine: MakeMachine, folder_target: Target) -> Machine:
    return new_machine(folder_target)


@pytest.fixture
def operator(machine: Machine, folder_target: Target) -> Operator:
    return Operator(machine, folder_target)


def damage(path: Path) -> bytes:
    """Overwrites a few pages; returns what stands there now."""
    damaged = b"\x00" * 4096 * 3
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + damaged + whole[4096 + len(damaged) :])
    for name in ("-wal", "-shm"):
        Path(f"{path}{name}").unlink(missing_ok=True)
    return damaged


async def lived(machine: Machine) -> tuple[Person, str]:
    """Somebody who has talked, and a time before their last words."""
    machine.start()
    person = Person(machine)
    person.say(machine, *EARLY)
    await replicated(machine)
    await asyncio.sleep(2.5)  # Litestream writes one state in a second
    between = to_text(now())
    await asyncio.sleep(2.5)
    person.say(machine, *LATE)
    await replicated(machine)
    return person, between


@pytest.mark.long
async def test_back_to_a_time_and_back_again(machine: Machine, operator: Operator) -> None:
    person, between = await lived(machine)
    assert "is served by another process" in operator.refuse("restore", "--latest")
    machine.service.stop()

    assert "is newer than what would be restored" in operator.refuse("restore", "--at", between)
    done = operator.run("restore", "--at", between, "--force")
    assert done.status == 0, done.err
    assert "messages      5" in done.out  # the greeting, and two with their answers
    (kept,) = list(machine.data.glob("yral_chat.db.before-restore-*Z"))
    machine.start()
    assert person.history(machine) == EARLY
    person.say(machine, "another way")
    await replicated(machine)

    machine.service.stop()
    assert "is newer than what would be restored" in operator.refuse("restore", "--file", str(kept))
    assert kept.exists()
    done = operator.run("restore", "--file", str(kept), "--force")
    assert done.status == 0, done.err
    assert not kept.exists()
    machine.start()
    assert person.history(machine) == EARLY + LATE
    await replicated(machine)
    listed = operator.run("backup", "list").out
    assert listed.count("(restored)") == 2
    assert listed.count("(first)") == 1


def objects(target: Target, levels: str) -> list[Path]:
    return list(Path(target.path).rglob(f"ltx/{levels}/*.ltx"))


async def test_a_time_that_something_is_missing_before_is_not_taken_for_an_earlier_one(
    machine: Machine, operator: Operator, folder_target: Target
) -> None:
    """Litestream restores what leads up to the gap, and says that all is well."""
    machine.start()
    person = Person(machine)
    newest: list[Path] = []
    times: list[str] = []
    for words in ("One", "Two", "Three"):
        person.say(machine, words)
        await replicated(machine)
        newest.append(max(objects(folder_target, "0")))
        await asyncio.sleep(2.5)  # Litestream writes one state in a second
        times.append(to_text(now()))
    machine.service.stop()
    machine.lose()
    whole, copy = machine.folder.parent / "whole.db", machine.folder.parent / "copy.db"
    assert operator.run("restore", "--at", times[2], "--to", str(whole)).status == 0
    missing = [path for path in objects(folder_target, "0") if newest[0].name < path.name <= newest[1].name]
    same_changes = [path for path in objects(folder_target, "[1-9]") if path.name[17:33] > newest[0].name[17:33]]
    for path in (*missing, *same_changes):
        path.unlink()
    for time in times[1:]:  # within what is missing, and behind it
        assert "is missing at" in operator.refuse("restore", "--at", time)
    copy.write_text("somebody's")
    (said,) = {operator.refuse("restore", "--at", time, "--to", str(whole.with_name("new.db"))) for time in times[1:]}
    done = operator.run("restore", "--at", times[2], "--to", str(copy), "--force")
    assert done.status == 0, done.err
    assert "is missing at" in done.out
    copy.unlink()
    assert not await asyncio.to_thread(whole.with_name("new.db").exists)
    (earlier,) = re.findall(r"--at (\S+),", said)
    done = operator.run("restore", "--at", earlier, "--to", str(copy))
    assert done.status == 0, done.err
    with closing(load_driver().connect(str(copy))) as connection:
        said_then = connection.execute("SELECT content FROM messages WHERE role = 'user' ORDER BY seq").fetchall()
    assert said_then == [("One",)]


@pytest.mark.long
async def test_a_time_of_the_last_hour_is_not_taken_for_that_of_a_coarser_state(
    machine: Machine, operator: Operator, folder_target: Target
) -> None:
    """Where level 0 has gone level 1 still leads on, by the half minute."""
    machine.start()
    person = Person(machine)
    await room_in(30, 20)  # all of it in one half minute
    times: list[str] = []
    for words in ("One", "Two", "Three"):
        person.say(machine, words)
        await replicated(machine)
        await asyncio.sleep(2.5)  # Litestream writes one state in a second
        times.append(to_text(now()))
    last = max(objects(folder_target, "0")).name[17:33]
    await until(there(lambda: any(path.name[17:33] >= last for path in objects(folder_target, "1"))), what="level 1")
    machine.service.stop()
    machine.lose()
    copy = machine.folder.parent / "copy.db"
    assert operator.run("restore", "--at", times[1], "--to", str(copy)).status == 0
    for path in sorted(objects(folder_target, "0"))[:-1]:
        path.unlink()
    copy.unlink()
    assert "is missing at" in operator.refuse("restore", "--at", times[1], "--to", str(copy))


async def test_a_generation_without_its_beginning_is_not_taken_for_the_one_before(
    machine: Machine, operator: Operator, folder_target: Target
) -> None:
    machine.start()
    person = Person(machine)
    person.say(machine, "Earlier")
    await replicated(machine)
    machine.service.stop()
    await asyncio.sleep(2)  # a generation is told from the one before by the second
    earlier, before = to_text(now()), set(objects(folder_target, "*"))
    machine.start("--new")
    for words in ("Later", "Later still"):  # in two objects
        person.say(machine, words)
        await replicated(machine)
    machine.service.stop()
    machine.lose()
    time = to_text(now())
    for path in set(objects(folder_target, "*")) - before:
        if path.name.startswith(txid_text(1)):
            path.unlink()
    copy = str(machine.folder.parent / "copy.db")
    assert "The beginning of generation" in operator.refuse("restore", "--at", time, "--to", copy)
    assert operator.run("restore", "--at", earlier, "--to", copy).status == 0


@pytest.mark.long
@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
async def test_a_log_without_its_database_is_kept_aside(machine: Machine, operator: Operator, is_there: bool) -> None:
    person, between = await lived(machine)
    machine.service.kill()
    await wait_for_orphan(machine.data)  # it may move the log into the file
    database, log = machine.data / "yral_chat.db", machine.data / "yral_chat.db-wal"
    for options, history in ((["--at", between], EARLY), (["--latest"], EARLY + LATE)):
        database.write_bytes(b"") if is_there else database.unlink()
        log.write_bytes(b"what nobody else has" * 100)
        done = operator.run("restore", *options)
        assert done.status == 0, done.err
        (kept,) = machine.data.glob("yral_chat.db.broken-*Z-wal")
        assert kept.read_bytes() == b"what nobody else has" * 100
        assert f"kept as {str(kept).removesuffix('-wal')}" in done.out
        kept.unlink()
        kept.with_name(kept.name.removesuffix("-wal")).unlink(missing_ok=True)
        machine.service.settings["LITESTREAM_ENABLED"] = "false"
        machine.start()
        assert person.history(machine) == history
        assert machine.service.stop() == 0


async def talked(machine: Machine) -> None:
    """Somebody has said something, and all of it has arrived."""
    machine.start()
    Person(machine).say(machine, *EARLY)
    await replicated(machine)


@pytest.mark.long
async def test_one_setting_that_was_changed_since_is_not_lost_without_force(
    machine: Machine, operator: Operator
) -> None:
    await talked(machine)
    machine.service.stop()
    machine.service.settings["LITESTREAM_ENABLED"] = "false"
    machine.start()  # a start alone makes nothing newer
    machine.service.stop()
    done = operator.run("restore", "--latest")
    assert done.status == 0, done.err
    machine.start()
    with machine.client("somebody") as client:
        assert client.put("/api/v1/users/me/settings", json={"locale": "de"}).status_code == 200
    machine.service.stop()
    assert "is newer than what would be restored" in operator.refuse("restore", "--latest")
    assert operator.run("restore", "--latest", "--force").status == 0


@pytest.mark.long
async def test_a_terminal_shows_how_far_it_is(machine: Machine, operator: Operator) -> None:
    await talked(machine)
    full = r"\[#{30}\] (\d+\.\d) of \1 MiB"
    to = machine.folder / "then.db"
    for words, last, seen in (
        (("restore", "--latest", "--to", str(to)), "Restored", [full]),
        (("backup", "drill"), "Proven", [full]),
        (("backup", "verify"), "Sound.", [r"\[#{30}\] (\d+) of \1 objects read", full]),
    ):
        with operator.cli.in_terminal(*words) as terminal:
            terminal.expect(last)
            assert terminal.wait() == 0
            assert all(re.search(pattern, terminal.shown) for pattern in seen), terminal.shown
        done = operator.run(*words, *(["--force"] if "--to" in words else []))
        assert (done.status, done.err) == (0, ""), "where nobody looks there are the lines alone"
        assert "#" not in done.out


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    require("a tmpfs of one's own (root, or user namespaces)", can_mount())
    with SmallDisk(tmp_path / "small", 4 * MEBIBYTE) as disk:
        yield disk


@pytest.mark.long
async def test_without_room_nothing_is_said_against_the_backup(
    machine: Machine, operator: Operator, small: SmallDisk, tmp_path: Path
) -> None:
    """Whether it is seen before, or the disk fills up while Litestream writes to it."""
    await talked(machine)
    place = tmp_path / "small"
    filling = tmp_path / "litestream-on-a-disk-that-fills"
    filling.write_text(
        f"#!/bin/sh\n[ $1 = restore ] && dd if=/dev/zero of={place}/more bs=4096 2>/dev/null\n"
        f'exec {program("litestream")} "$@"\n'
    )
    filling.chmod(0o700)

    def refuse(*words: str, **settings: str) -> str:
        done = subprocess.run(
            [*small.enter, *operator.cli.command(*words)],
            env=operator.cli.environment(**settings), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done
        return done.stderr

    def left() -> list[str]:
        names = [path.name for path in small.inside.iterdir() if path.suffix != ".lock"]
        return [name for name in names if name != "backup-seen.json"]  # what a look has noted says nothing of a restore

    restore = ("restore", "--latest", "--to", str(place / "then.db"))
    said = refuse(*restore, LITESTREAM_PATH=str(filling))
    assert said.startswith(f"The disk of {place} is full (")
    assert said.endswith("Nothing was changed. Make room, then repeat this.\n")
    assert left() == ["more"]
    seen = rf"This takes \d+ MiB, and the disk of {place} has 0 MiB free: make room. Nothing was changed.\n"
    assert re.fullmatch(seen, refuse(*restore))
    for command in ("verify", "drill"):
        (small.inside / "more").unlink()
        said = refuse("backup", command, LITESTREAM_PATH=str(filling), DATA_DIR=str(place))
        assert said.endswith("make room.\n")
        assert left() == ["more"], "and no proof, for or against"


@pytest.mark.long
async def test_memories_that_were_deleted_since_do_not_come_back_without_force(
    machine: Machine, operator: Operator
) -> None:
    await talked(machine)
    machine.service.stop()
    execute(machine.service, text("INSERT INTO forgotten_memories SELECT id, 'town', 1 FROM conversations LIMIT 1"))
    assert "has deleted memories" in operator.refuse("restore", "--latest")
    assert operator.run("restore", "--latest", "--force").status == 0


@pytest.mark.long
async def test_what_is_torn_is_restored_only_with_force(machine: Machine, operator: Operator) -> None:
    await talked(machine)
    with closing(load_driver().connect(str(machine.data / "yral_chat.db"), timeout=30)) as connection:
        connection.execute("INSERT INTO memories SELECT 'nowhere', 'town', 'Rome', NULL, 1, 90, 1, 1")
        connection.commit()
    await replicated(machine)
    machine.service.stop()
    assert "What would be restored is damaged (" in operator.refuse("restore", "--latest")
    done = operator.run("restore", "--latest", "--force")
    assert (done.status, "✗" in done.out) == (0, True)


@pytest.mark.long
async def test_a_damaged_database_is_replaced_without_force(machine: Machine, operator: Operator) -> None:
    person, _ = await lived(machine)
    machine.service.stop()
    damaged = damage(machine.data / "yral_chat.db")
    done = operator.run("restore", "--latest")
    assert done.status == 0, done.err
    (kept,) = machine.data.glob("yral_chat.db.broken-*Z")
    assert damaged in kept.read_bytes()
    machine.start()
    assert person.history(machine) == EARLY + LATE


def log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


@pytest.mark.long
async def test_what_is_looked_at_keeps_its_log(machine: Machine, operator: Operator) -> None:
    person, between = await lived(machine)
    machine.service.kill()
    await wait_for_orphan(machine.data)  # it may move the log into the file
    database = machine.data / "yral_chat.db"
    there = hash_of(log_of(database))
    assert log_of(database).stat().st_size
    assert "is newer than" in operator.refuse("restore", "--at", between)
    assert hash_of(log_of(database)) == there
    content = bytearray(database.read_bytes())
    content[4096 : len(content) // 2] = bytes(len(content) // 2 - 4096)
    database.write_bytes(content)
    done = operator.run("restore", "--latest")
    assert done.status == 0, done.err
    (kept,) = machine.data.glob("yral_chat.db.broken-*Z")
    assert (hash_of(kept), hash_of(log_of(kept))) == (hashlib.sha256(content).hexdigest(), there)
    machine.start()
    assert person.history(machine) == EARLY + LATE


@pytest.mark.long
async def test_what_is_of_another_version_is_not_called_sound_without_a_word(
    machine: Machine, operator: Operator
) -> None:
    await lived(machine)
    execute(machine.service, text("UPDATE alembic_version SET version_num = '0004'"))
    await replicated(machine)
    to = machine.folder / "then.db"
    done = operator.run("restore", "--latest", "--to", str(to))
    assert done.status == 0, done.err
    assert "checked in part: sound" in done.out
    assert "0004 of the tables, of another version: their own rules were not checked" in done.out
    drilled = operator.run("backup", "drill")
    assert drilled.status == 0, drilled.out
    assert "Its tables are of another version (0004): their own rules were not checked." in drilled.out
    assert "of another version (0004): their own rules were not checked." in operator.run("backup", "verify").out


@pytest.mark.long
async def test_into_a_file_beside_the_running_service(machine: Machine, operator: Operator) -> None:
    person, between = await lived(machine)
    to = machine.folder / "then? #1%20.db"
    done = operator.run("restore", "--at", between, "--to", str(to))
    assert done.status == 0, done.err
    assert "Looking at all of it." in done.out
    assert "checked: sound" in done.out
    assert "rules were not checked" not in done.out
    assert to.stat().st_mode & 0o777 == 0o600
    assert "is there already" in operator.refuse("restore", "--latest", "--to", str(to))
    assert operator.run("restore", "--latest", "--to", str(to), "--force").status == 0
    database = machine.data / "yral_chat.db"
    for name in (database, f"{database}-wal", f"{database}-journal"):
        assert "is the database" in operator.refuse("restore", "--latest", "--to", str(name), "--force")
    to.with_name(f"{to.name}-wal").write_bytes(b"")
    assert "somebody has open" in operator.refuse("restore", "--latest", "--to", str(to), "--force")
    assert "is not a file" in operator.refuse("restore", "--latest", "--to", str(machine.folder), "--force")
    assert person.history(machine) == EARLY + LATE


@pytest.mark.long
async def test_what_cannot_be_restored_is_said_in_a_sentence(
    machine: Machine, operator: Operator, folder_target: Target
) -> None:
    assert operator.refuse("restore", "--latest") == f"{folder_target.name} holds no backup."
    assert "BACKUP_URL is not set" in operator.refuse("restore", "--latest", BACKUP_URL=None, LITESTREAM_ENABLED=None)
    with Refusing(404, "") as server:
        elsewhere = {**settings_of(bucket(server)), "LITESTREAM_ENABLED": None}
        assert "there is no S3 server at this address" in operator.refuse("restore", "--latest", **elsewhere)
    (foreign := Path(folder_target.path) / "somebody's").mkdir(parents=True)
    (foreign / "file").touch()
    assert "holds files, but no current.json" in operator.refuse("restore", "--latest")
    shutil.rmtree(foreign)
    assert operator.refuse("restore", "--file", str(machine.folder)) == f"{machine.folder} is not a file."
    assert "is not a time" in operator.refuse("restore", "--at", "yesterday")
    assert "is not a time" in operator.refuse("restore", "--at", "9999-12-31T23:59:59-12:00")
    assert "or with an offset" in operator.refuse("restore", "--at", "2026-11-27T10:00:00")
    assert "Say which state" in operator.refuse("restore")
    assert "Say which state" in operator.refuse("restore", "--latest", "--at", "2026-11-27T10:00:00Z")
    assert "Install it" in operator.refuse("restore", "--latest", LITESTREAM_PATH="/nowhere/litestream")
    assert operator.run("backup", "status").out.splitlines()[1] == "backup      none yet"
    machine.start()
    Person(machine).say(machine, *EARLY)
    await replicated(machine)
    machine.service.stop()
    assert "holds nothing of that time" in operator.refuse("restore", "--at", "2020-01-01T00:00:00Z")
    broken = machine.folder / "broken.db"
    shutil.copy(machine.data / "yral_chat.db", broken)
    damage(broken)
    assert "is damaged" in operator.refuse("restore", "--file", str(broken))
    assert broken.exists()


def steps() -> dict[str, str]:
    """The commands of the runbook, by the heading above them."""
    found: dict[str, str] = {}
    for part in (ROOT / "docs/operations/restore.md").read_text().split("\n## ")[1:]:
        code = re.findall(r"^```sh\n(.*?)^```$", part, re.M | re.S)
        found[part.splitlines()[0]] = "".join(code)
    return found


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_runbook(
    machine: Machine, operator: Operator, new_machine: MakeMachine, folder_target: Target
) -> None:
    """Each step in the situation that it is for. The last line of some starts the service, which the test does."""
    runbook = steps()
    assert len(runbook) == len(blocks(ROOT / "docs/operations/restore.md"))
    person, between = await lived(machine)

    def follow(step: str, on: Machine = machine) -> str:
        lines = [re.sub(r"^TIME=.*", f"TIME={between}", line) for line in runbook[step].splitlines()]
        start = "yral-chat serve --litestream"
        script = "\n".join(["set -euo pipefail", *(line for line in lines if line != start)])
        environment = {**operator.cli.environment(), "DATA_DIR": str(on.data)}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        bash = require("bash", shutil.which("bash"))
        done = subprocess.run(
            [bash, "-c", script],
            cwd=on.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if start in lines:
            on.start("--litestream")
        return done.stdout

    shown = follow("What there is")
    assert "server      up" in shown
    assert "to the second since" in shown
    follow("Look at a state without touching anything")
    assert (machine.folder / "then.db").exists()
    machine.service.stop()
    follow("Go back to a time")
    assert person.history(machine) == EARLY
    machine.service.stop()
    follow("Take a restore back")
    assert person.history(machine) == EARLY + LATE
    await replicated(machine)
    machine.service.stop()
    damage(machine.data / "yral_chat.db")
    follow("The database is damaged")
    assert person.history(machine) == EARLY + LATE
    await replicated(machine)
    machine.lose()
    another = new_machine(folder_target)
    await room_in(86_400, 120)  # with a new day Litestream makes a second snapshot
    follow("The machine is lost", another)
    assert person.history(another) == EARLY + LATE
    await replicated(another)
    newest = max(objects(folder_target, "0")).parents[1]
    await until(there(lambda: any(newest.glob("9/*.ltx"))), what="its first snapshot")
    (snapshot,) = newest.glob("9/*.ltx")
    another.lose()
    third = new_machine(folder_target)
    os.truncate(snapshot, 500)
    assert "could not be restored" in third.refuse()
    assert snapshot.name in follow("An object of the backup is damaged", third)
    snapshot.rename(third.folder / "damaged.ltx")
    follow("The machine is lost", third)
    assert person.history(third) == EARLY + LATE
