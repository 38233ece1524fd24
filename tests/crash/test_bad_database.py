"""A database that this program must not touch: it says so, ends with status 1, and every byte stays."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.cli.commands import Cli, Finished
from tests.programs import PrivatePostgres
from tests.service import SECRET, Service

HEADER = b"SQLite format 3\x00"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A service that has not been started yet."""
    (tmp_path / "data").mkdir()
    return Cli(tmp_path, PORT="0", ENVIRONMENT="test", AUTH_DEV_SECRET=SECRET)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a service that has been stopped."""
    with Service(tmp_path_factory.mktemp("stopped")) as service:
        assert service.stop() == 0
    return service.folder / "data"


@pytest.fixture
def used(cli: Cli, stopped: Path) -> Path:
    """Its database."""
    shutil.copytree(stopped, cli.data, dirs_exist_ok=True)
    return cli.data / "yral_chat.db"


def fingerprints(folder: Path) -> dict[str, str]:
    """What every file in `folder` holds, except the lock, which says who has it open."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if not path.name.endswith(".lock")
    }


def refused(done: Finished, *words: str) -> None:
    """It ended by itself, with one clear line."""
    assert done.status == 1, done
    assert done.err.count("\n") == 1, done.err
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err + done.out


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def in_rollback_mode(path: Path) -> None:
    """As most programs keep their databases."""
    execute(path, "PRAGMA journal_mode=DELETE")


def in_wal_mode(path: Path) -> None:
    execute(path, "PRAGMA journal_mode=WAL")


def with_a_log(path: Path) -> None:
    """As after a crash: the newest rows are in the write-ahead log only."""
    execute(path, "PRAGMA journal_mode=WAL")
    aside = path.parent / "aside"
    aside.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE newest (id INTEGER)")
        connection.commit()
        for name in (path.name, f"{path.name}-wal"):
            shutil.copy(path.parent / name, aside)
    for name in (path.name, f"{path.name}-wal"):
        shutil.move(aside / name, path.parent / name)
    aside.rmdir()
    assert (path.parent / f"{path.name}-wal").stat().st_size > 0


STATES = pytest.mark.parametrize(
    "state",
    [
        pytest.param(in_rollback_mode, marks=pytest.mark.long),
        in_wal_mode,
        pytest.param(with_a_log, marks=pytest.mark.long),
    ],
)


@STATES
def test_a_database_of_a_newer_version(cli: Cli, used: Path, state: Callable[[Path], None]) -> None:
    execute(used, "UPDATE alembic_version SET version_num = '9999'")
    state(used)
    before = fingerprints(cli.data)
    refused(cli.run("serve"), "newer version", "9999", "nothing was changed")
    assert fingerprints(cli.data).items() >= before.items()


@STATES
def test_a_database_of_another_program(cli: Cli, state: Callable[[Path], None]) -> None:
    database = cli.data / "yral_chat.db"
    execute(database, "CREATE TABLE recipes (name TEXT)", "INSERT INTO recipes VALUES ('dal')")
    state(database)
    before = fingerprints(cli.data)
    refused(cli.run("serve"), "tables of something else", "DATABASE_URL")
    assert fingerprints(cli.data).items() >= before.items()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"Dear diary, " * 400, id="text"),
        pytest.param(b"\x00" * 4096, id="zeros", marks=pytest.mark.long),
        pytest.param(HEADER[:10], id="half a header", marks=pytest.mark.long),
        pytest.param(HEADER + b"but nothing else " * 300, id="only a header"),
    ],
)
def test_a_file_that_is_no_database(cli: Cli, content: bytes) -> None:
    (cli.data / "yral_chat.db").write_bytes(content)
    before = fingerprints(cli.data)
    refused(cli.run("serve"), "database")
    after = fingerprints(cli.data)
    for ours in ("media-signing-key", "log-key"):  # made before the database is looked at
        after.pop(ours, None)
    assert after == before


def test_a_folder_where_the_database_should_be(cli: Cli) -> None:
    (cli.data / "yral_chat.db").mkdir()
    refused(cli.run("serve"), "is not a file")


def without_power(cli: Cli) -> Finished:
    """Serves as somebody to whom permissions apply: root without its capabilities, everybody else as they are."""
    drop = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*drop, *cli.command("serve")],
        cwd=cli.folder,
        env=cli.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_database_that_may_not_be_written(cli: Cli, used: Path, mode: int) -> None:
    before = fingerprints(cli.data)
    used.chmod(mode)
    refused(without_power(cli), str(used), "Check")
    used.chmod(0o600)
    assert fingerprints(cli.data) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_that_may_not_be_written(cli: Cli, used: Path, is_there: bool) -> None:
    if not is_there:
        for path in cli.data.iterdir():
            path.unlink()
    before = fingerprints(cli.data)
    cli.data.chmod(0o500)
    refused(without_power(cli), str(cli.data))
    cli.data.chmod(0o700)
    assert fingerprints(cli.data) == before


@pytest.mark.postgres
@pytest.mark.long
def test_a_postgresql_database_of_a_newer_version(cli: Cli, postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    with Service(cli.folder, DATABASE_URL=url) as service:
        service.stop()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    refused(cli.run("serve", DATABASE_URL=url), "newer version", "9999", "nothing was changed")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


@pytest.mark.postgres
@pytest.mark.long
def test_a_postgresql_database_of_another_program(cli: Cli, postgres: PrivatePostgres) -> None:
    url = postgres.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    refused(cli.run("serve", DATABASE_URL=url), "tables of something else", "DATABASE_URL")
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        assert found.fetchall() == [("recipes",)]


@pytest.mark.postgres
@pytest.mark.long
def test_a_postgresql_server_that_refuses(cli: Cli, postgres: PrivatePostgres) -> None:
    scheme, _, rest = postgres.create_database().partition("://")
    wrong = f"{scheme}://nobody:secret-of-nobody@{rest.partition('@')[2]}"
    done = cli.run("serve", DATABASE_URL=wrong)
    refused(done, "cannot be reached or refuses the login")
    assert "secret-of-nobody" not in done.err + done.out
