"""The copy of a SQLite database that is made before its tables are upgraded."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import update

from tests.client import Api, Document
from tests.crash.disk import SmallDisk, can_mount
from tests.programs import require
from tests.rows import execute
from tests.service import FakeModel, Service
from tests.upgrades.conftest import EARLIER, LeftBy, on_sqlite
from tests.upgrades.dumps import load, state_of
from tests.upgrades.life import DIFFICULT
from tests.upgrades.make import SETTINGS
from yral_chat.core.clock import DAY
from yral_chat.db.copies import Copy, list_copies
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.files import load_driver
from yral_chat.db.migrations import HEAD, migrate
from yral_chat.db.tables import audit_events
from yral_chat.services.upkeep import is_expired

LAST = EARLIER[-1]
COPY = f"yral_chat.db.before-{HEAD}"
# Room for the database, and not for its copy.
DISK_BYTES = 768 * 1024


def names(data: Path) -> list[str]:
    return sorted(path.name for path in data.glob("yral_chat.db*") if not path.name.endswith(".lock"))


# --- what it is


@on_sqlite
def test_the_copy_is_what_was_there_also_in_the_log(left_by: LeftBy, data: Path) -> None:
    url = left_by(LAST)
    with closing(load_driver().connect(str(data / "yral_chat.db"), isolation_level=None)) as other:
        other.execute("PRAGMA wal_autocheckpoint=0")
        other.execute("UPDATE counters SET value = 4711")
        before = state_of(url)
        assert migrate(url)
    copy = data / COPY
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert names(data) == ["yral_chat.db", COPY]
    assert "4711" in str(before.rows["counters"])
    assert state_of(f"sqlite:///{copy}") == before


@on_sqlite
def test_nothing_is_copied_where_nothing_is_upgraded(empty_url: str, data: Path) -> None:
    assert migrate(empty_url)
    assert not migrate(empty_url)
    assert names(data) == ["yral_chat.db"]


@on_sqlite
def test_the_last_two_are_kept(left_by: LeftBy, data: Path) -> None:
    url = left_by(LAST)
    for day, revision in enumerate(("0002", "0003", LAST), start=1):
        path = data / f"yral_chat.db.before-{revision}"
        path.touch()
        os.utime(path, (day * 86400, day * 86400))
    (data / "yral_chat.db.before-restore-20260301T093000Z").touch()
    (data / f"{COPY}.part").write_text("what a crash has left")
    migrate(url)
    assert names(data) == [
        "yral_chat.db", f"yral_chat.db.before-{LAST}", COPY, "yral_chat.db.before-restore-20260301T093000Z",
    ]  # fmt: skip
    assert [copy.before for copy in list_copies(data / "yral_chat.db")] == [LAST, HEAD]


# --- when it cannot be made


@on_sqlite
def test_a_damaged_database_is_not_upgraded(left_by: LeftBy, data: Path) -> None:
    url = left_by(LAST)
    path = data / "yral_chat.db"
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'ix_messages_history'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(
        DatabaseUnusable, match=r"is damaged \(.*\): its tables are not upgraded, and nothing was changed"
    ):
        migrate(url)
    assert path.read_bytes() == bytes(content)
    assert names(data) == ["yral_chat.db"]


@pytest.fixture
def small_disk(data: Path, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk with a database on it that has to be upgraded, and no room for a second one."""
    require("a tmpfs of one's own (root, or user namespaces)", can_mount())
    load(LAST, f"sqlite:///{tmp_path}/old.db")
    with SmallDisk(data, DISK_BYTES) as disk:
        (disk.inside / "yral_chat.db").write_bytes((tmp_path / "old.db").read_bytes())
        yield disk


def on(disk: SmallDisk, tmp_path: Path, data: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(data), "PYTHONDONTWRITEBYTECODE": "1", "PORT": "0"}
    command = [*disk.enter, sys.executable, "-m", "yral_chat.cli", *arguments]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_disk_without_room_stops_the_start_before_anything_is_changed(
    small_disk: SmallDisk, tmp_path: Path, data: Path
) -> None:
    before = (small_disk.inside / "yral_chat.db").read_bytes()
    done = on(small_disk, tmp_path, data, "serve")
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        f"Before its tables are upgraded {data}/yral_chat.db is copied: that takes 1 MiB, and the disk"
    )
    assert "Nothing was changed. Make room and start again; or, if you have a copy elsewhere, run" in said
    assert (small_disk.inside / "yral_chat.db").read_bytes() == before
    assert names(small_disk.inside) == ["yral_chat.db"]
    done = on(small_disk, tmp_path, data, "migrate", "--without-copy")
    assert (done.returncode, done.stdout) == (0, f"Tables brought to revision {HEAD}.\n"), done.stderr
    assert names(small_disk.inside) == ["yral_chat.db"]


# --- how long it is kept


def test_a_copy_ends_with_its_time_or_a_day_after_somebody_in_it_was_erased() -> None:
    copy = Copy(Path("copy"), HEAD, made_at=100 * DAY)
    assert not is_expired(copy, None, 130 * DAY - 1, retention_days=30)
    assert is_expired(copy, None, 130 * DAY, retention_days=30)
    assert not is_expired(copy, 103 * DAY, 104 * DAY - 1, retention_days=30)
    assert is_expired(copy, 103 * DAY, 104 * DAY, retention_days=30)


@on_sqlite
async def test_an_erased_account_does_not_survive_in_a_copy(
    left_by: LeftBy, tmp_path: Path, data: Path, model: FakeModel
) -> None:
    left_by(LAST)
    mark = DIFFICULT.splitlines()[0].encode()
    with Service(tmp_path, **model.settings, **SETTINGS) as service:
        ada = Api(service.url, Document.of(service), "ada")
        erased = await ada.http.request("DELETE", "/api/v1/users/me", params={"confirm": "ada"})
        assert erased.status_code == 200, erased.text
        await ada.close()
        assert holding(data, mark) == [COPY], "for a day it can be gone back to"
        assert service.stop() == 0
    # A day later.
    await asyncio.to_thread(make_older, service, data)
    with Service(tmp_path, **model.settings, **SETTINGS):
        for _ in range(500):
            if not holding(data, mark):
                break
            await asyncio.sleep(0.02)
        assert holding(data, mark) == []
        assert COPY not in names(data)


def make_older(service: Service, data: Path) -> None:
    copy = data / COPY
    made_at = copy.stat().st_mtime - 86400
    os.utime(copy, (made_at, made_at))
    execute(service, update(audit_events).values(created_at=audit_events.c.created_at - DAY))


def holding(data: Path, mark: bytes) -> list[str]:
    found = []
    for path in data.glob("yral_chat.db*"):
        with suppress(FileNotFoundError):  # it goes while we look
            if mark in path.read_bytes():
                found.append(path.name)
    return found
