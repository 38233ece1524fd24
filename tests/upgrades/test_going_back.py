"""After an upgrade that failed the earlier program starts as before; after one that went well there is a way back.

The earlier program is the real one, out of the history of this repository. The commands are those of
docs/operations/upgrades.md.
"""

import asyncio
import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.cli.commands import Cli
from tests.client import Api, Document, Json
from tests.programs import postgres_binaries, require
from tests.service import ROOT, FakeModel, Service
from tests.test_documents import blocks
from tests.upgrades.conftest import EARLIER, LeftBy, on_sqlite
from tests.upgrades.dumps import DATA, state_of
from tests.upgrades.faults import failing_after
from tests.upgrades.make import SETTINGS
from tests.upgrades.seen import Looking, differences, plain
from tests.upgrades.versions import OldService, source_of, unpack
from yral_chat.core.config import Settings
from yral_chat.db.failures import DatabaseDamaged, DatabaseInUse, DatabaseUnusable
from yral_chat.db.files import load_driver
from yral_chat.db.migrations import HEAD, migrate
from yral_chat.services.backups.before_upgrade import go_back
from yral_chat.services.backups.local import load_state, save_state
from yral_chat.services.backups.restoring import RestoreFailed
from yral_chat.services.backups.starting import End, LocalState

LAST = EARLIER[-1]
RUNBOOK = ROOT / "docs/operations/upgrades.md"
# Of every upgrade so many are run before its end.
STATEMENTS = 3


def documented(word: str) -> str:
    """The block of the runbook that has this word in it."""
    (found,) = [block.text for block in blocks(RUNBOOK) if word in block.text]
    return found


def follow(commands: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """As an operator does, in a shell in this folder."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(postgres_binaries() or ""), os.environ["PATH"]))
    return subprocess.run(
        ["sh", "-ec", commands],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def earlier(tmp_path: Path, dialect: str, empty_url: str, model: FakeModel) -> OldService:
    """The program that was there before, with the same data folder and database."""
    source = require("the history of this repository (a shallow clone has none), and so the earlier program,",
                     source_of(LAST))  # fmt: skip
    database = {"DATABASE_URL": empty_url} if dialect == "postgresql" else {}
    return OldService(tmp_path, unpack(source, tmp_path / "program"), **model.settings, **SETTINGS, **database)


async def saw(service: Service, name: str = "ada") -> Json:
    looking = Looking(service.url, Document.of(service), name)
    try:
        return await looking.look()
    finally:
        await looking.api.close()


def seen_before(name: str = "ada") -> Json:
    found: Json = plain(orjson.loads(gzip.decompress((DATA / LAST / "seen.json.gz").read_bytes()))[name])
    return found


async def wrote(service: Service, text: str) -> None:
    api = Api(service.url, Document.of(service), "ada")
    try:
        await api.said((await api.open())["id"], text)
    finally:
        await api.close()


@pytest.mark.long
async def test_after_a_failed_upgrade_the_earlier_program_starts_as_before(
    left_by: LeftBy, earlier: OldService
) -> None:
    url = left_by(LAST)
    with failing_after(STATEMENTS), pytest.raises(DatabaseUnusable, match="can start as before"):
        migrate(url)
    with earlier:
        assert differences(seen_before(), await saw(earlier)) == []
        await wrote(earlier, "The earlier version goes on")


@pytest.mark.long
@on_sqlite
@pytest.mark.parametrize("way", ["--force", "mkdir aside"])
async def test_the_runbook_leads_back_to_the_earlier_program(
    left_by: LeftBy, earlier: OldService, tmp_path: Path, data: Path, model: FakeModel, way: str
) -> None:
    left_by(LAST)
    with Service(tmp_path, **model.settings, **SETTINGS) as service:
        await wrote(service, "Written by the new version")
        assert service.stop() == 0
    refused = await asyncio.to_thread(earlier.run, "serve")
    assert refused.returncode == 1
    assert "belongs to a newer version" in refused.stderr
    if way == "--force":
        asked = follow(documented("restore --before-upgrade\n"), data, DATA_DIR=str(data))
        assert asked.returncode == 1
        assert "Nothing was changed. Say --force" in asked.stderr
    done = follow(documented(way), data, DATA_DIR=str(data))
    assert done.returncode == 0, done.stderr
    assert kept_messages(data, "Written by the new version") == 1
    with earlier:
        assert differences(seen_before(), await saw(earlier)) == []
        assert earlier.stop() == 0
    with Service(tmp_path, **model.settings, **SETTINGS) as service:
        assert differences(seen_before(), await saw(service)) == [], "and forward again"


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
async def test_the_runbook_leads_back_on_postgresql(
    left_by: LeftBy, earlier: OldService, tmp_path: Path, data: Path, model: FakeModel
) -> None:
    require("pg_dump", shutil.which("pg_dump", path=str(require("PostgreSQL server", postgres_binaries()))))
    url = left_by(LAST)
    before = state_of(url)
    dumped = follow(documented("pg_dump"), tmp_path, DATABASE_URL=url)
    assert dumped.returncode == 0, dumped.stderr
    with Service(tmp_path, DATABASE_URL=url, **model.settings, **SETTINGS) as service:
        await wrote(service, "Written by the new version")
        assert service.stop() == 0
    restored = follow(documented("pg_restore"), tmp_path, DATABASE_URL=url)
    assert restored.returncode == 0, restored.stderr
    assert state_of(url) == before
    with earlier:
        assert differences(seen_before(), await saw(earlier)) == []


def kept_messages(data: Path, content: str) -> int:
    """How many there are of them in the database that was put aside."""
    (kept,) = [*data.glob("yral_chat.db.before-restore-*"), *data.glob("aside/yral_chat.db")]
    with closing(sqlite3.connect(kept)) as connection:
        found = connection.execute("SELECT count(*) FROM messages WHERE content = ?", (content,))
        count: int = found.fetchone()[0]
        return count


# --- the command by itself


@pytest.fixture
def upgraded(left_by: LeftBy, data: Path) -> Settings:
    """Of a data folder whose database has been upgraded, with the copy beside it."""
    assert migrate(left_by(LAST))
    return Settings(_env_file=None, data_dir=data)


def names(data: Path) -> list[str]:
    return sorted(path.name for path in data.glob("yral_chat.db*") if not path.name.endswith((".lock", "-wal", "-shm")))


@on_sqlite
def test_going_back_says_what_came_back_and_where_the_other_is(upgraded: Settings, tmp_path: Path, data: Path) -> None:
    cli = Cli(tmp_path, DATA_DIR=str(data))
    assert cli.run("restore", "--before-upgrade", "--latest").status == 1
    done = cli.run("restore", "--before-upgrade")
    assert done.status == 0, done.err
    (kept,) = data.glob("yral_chat.db.before-restore-*")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"Went back to yral_chat.db.before-{HEAD}, copied at 20")
    assert lines[1].split() == ["revision", LAST, "of", "the", "tables"]
    assert lines[5].split() == ["before", "kept", "as", str(kept)]
    assert lines[6] == f"Start the version that you came from: this one would upgrade to {HEAD} again."
    assert state_of(f"sqlite:///{data}/yral_chat.db").revision == LAST
    assert state_of(f"sqlite:///{kept}").revision == HEAD
    assert names(data) == ["yral_chat.db", kept.name]
    with pytest.raises(RestoreFailed, match="there is no copy from before an upgrade"):
        go_back(upgraded, is_forced=False)


@on_sqlite
def test_going_back_is_refused_while_another_program_has_the_database(upgraded: Settings, data: Path) -> None:
    with closing(load_driver().connect(str(data / "yral_chat.db"))) as other:
        other.execute("SELECT count(*) FROM messages").fetchone()
        with pytest.raises(DatabaseInUse, match=r"Another program has .* open; nothing was changed"):
            go_back(upgraded, is_forced=True)
    assert names(data) == ["yral_chat.db", f"yral_chat.db.before-{HEAD}"]
    assert state_of(f"sqlite:///{data}/yral_chat.db").revision == HEAD


@on_sqlite
def test_a_database_that_cannot_be_read_is_to_be_moved_away_first(upgraded: Settings, data: Path) -> None:
    database = data / "yral_chat.db"
    database.write_bytes(database.read_bytes()[:100] + b"\xff" * 4000)
    with pytest.raises(DatabaseUnusable, match=r"Move yral_chat.db, .* to another folder, then repeat this"):
        go_back(upgraded, is_forced=False)
    database.rename(data / "elsewhere")
    assert go_back(upgraded, is_forced=False).kept is None
    assert state_of(f"sqlite:///{database}").revision == LAST


@on_sqlite
@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_going_back_leaves_a_log_whose_database_is_gone(upgraded: Settings, data: Path, is_there: bool) -> None:
    database, log = data / "yral_chat.db", data / "yral_chat.db-wal"
    database.write_bytes(b"") if is_there else database.unlink()
    log.write_bytes(b"what nobody else has" * 100)
    with pytest.raises(DatabaseDamaged):
        go_back(upgraded, is_forced=True)
    assert log.read_bytes() == b"what nobody else has" * 100
    assert (data / f"yral_chat.db.before-{HEAD}").exists()
    assert database.exists() == is_there


@on_sqlite
def test_a_copy_that_is_damaged_is_not_put_back(upgraded: Settings, data: Path) -> None:
    copy = data / f"yral_chat.db.before-{HEAD}"
    content = bytearray(copy.read_bytes())
    content[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    copy.write_bytes(content)
    with pytest.raises(RestoreFailed, match="is damaged"):
        go_back(upgraded, is_forced=True)
    assert state_of(f"sqlite:///{data}/yral_chat.db").revision == HEAD


@on_sqlite
def test_going_back_begins_a_new_generation_of_the_backup(upgraded: Settings, data: Path) -> None:
    """The next start must not go on with what Litestream has written of the newer one."""
    save_state(data, LocalState("s3://bucket", "database", "generation"))
    (data / ".yral_chat.db-litestream" / "ltx").mkdir(parents=True)
    go_back(upgraded, is_forced=False)
    assert load_state(data) == LocalState("s3://bucket", "database", None, replaces=End("generation", 0))
    assert not (data / ".yral_chat.db-litestream").exists()
