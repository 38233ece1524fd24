"""yral-chat restore --file with a file on another disk: it is copied, and stays there."""

import os
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.commands import SECONDS, Cli
from tests.crash.disk import SmallDisk, can_mount
from tests.programs import require
from yral_chat.db.inspection import find_installation
from yral_chat.db.migrations import migrate


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk than everything else."""
    shm = Path("/dev/shm")
    is_another = shm.is_dir() and os.access(shm, os.W_OK) and shm.stat().st_dev != tmp_path.stat().st_dev
    with tempfile.TemporaryDirectory(dir=require("a second file system", shm if is_another else None)) as folder:
        yield Path(folder)


@pytest.fixture
def copy(elsewhere: Path) -> Path:
    """A sound database."""
    path = elsewhere / "copy.db"
    migrate(f"sqlite:///{path}")
    path.chmod(0o644)
    return path


@pytest.fixture
def database(cli: Cli) -> Path:
    """That of the command line, which nobody serves."""
    assert cli.run("migrate").status == 0
    return cli.data / "yral_chat.db"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_file_of_another_disk_is_copied_and_stays(cli: Cli, database: Path, copy: Path) -> None:
    before, there = find_installation(database), copy.read_bytes()
    done = cli.run("restore", "--file", str(copy))
    assert done.status == 0, done.err
    assert copy.read_bytes() == there
    assert find_installation(database) == find_installation(copy) != before
    assert database.stat().st_mode & 0o777 == 0o600
    (kept,) = cli.data.glob("yral_chat.db.before-restore-*Z")
    assert f"kept as {kept}" in done.out
    assert find_installation(kept) == before


def test_what_is_refused_leaves_no_copy(cli: Cli, database: Path, copy: Path) -> None:
    before, there = database.read_bytes(), copy.read_bytes()
    with closing(sqlite3.connect(database)) as somebody:
        somebody.execute("SELECT count(*) FROM messages").fetchone()
        done = cli.run("restore", "--file", str(copy))
    assert done.status == 1
    assert "nothing was changed. Stop it" in done.err
    assert (database.read_bytes(), copy.read_bytes()) == (before, there)
    assert names(cli.data) == {"yral_chat.db"}


@pytest.mark.long
def test_a_disk_without_room_for_it_is_named(cli: Cli, copy: Path) -> None:
    require("a tmpfs of one's own (root, or user namespaces)", can_mount())
    original = copy.read_bytes()
    with SmallDisk(cli.data, 2 * len(original)) as disk:
        (disk.inside / "yral_chat.db").write_bytes(original)
        done = subprocess.run(
            [*disk.enter, *cli.command("restore", "--file", str(copy))],
            env=cli.environment(), cwd=cli.folder, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert re.fullmatch(
            rf"This takes \d+ MiB, and the disk of {cli.data} has \d+ MiB free: make room. Nothing was changed.\n",
            done.stderr,
        )
        assert (disk.inside / "yral_chat.db").read_bytes() == original
        assert names(disk.inside) == {"yral_chat.db"}
