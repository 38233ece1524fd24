"""A database file that is damaged: the start says so in one sentence, and changes nothing; a healthy one starts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.cli.commands import Cli
from tests.crash.test_bad_database import fingerprints, refused
from tests.rows import execute
from tests.service import SECRET, Service
from yral_chat.db.copies import put_back
from yral_chat.db.damage import check_at_start, check_damage, was_closed
from yral_chat.db.failures import DatabaseDamaged, DatabaseUnusable
from yral_chat.db.migrations import migrate
from yral_chat.db.moments import StandingStill
from yral_chat.db.sqlite import create_sqlite_engine

PAGE = 8192


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a service that was killed; what it wrote last is in the log alone."""
    with Service(tmp_path_factory.mktemp("left")) as service:
        execute(service, text("PRAGMA wal_checkpoint(TRUNCATE)"))
        execute(service, text("UPDATE influencers SET updated_at = updated_at + 1"))
        service.kill()
    return service.folder / "data"


@pytest.fixture
def cli(tmp_path: Path, left: Path) -> Cli:
    shutil.copytree(left, tmp_path / "data")
    return Cli(tmp_path, PORT="0", ENVIRONMENT="test", AUTH_DEV_SECRET=SECRET)


def zeros_in_the_middle(data: bytes) -> bytes:
    place = len(data) // 2 // PAGE * PAGE
    return data[:place] + bytes(PAGE) + data[place + PAGE :]


def flipped_schema(data: bytes) -> bytes:
    return data[:100] + bytes(byte ^ 255 for byte in data[100:116]) + data[116:]


def flipped_header(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def words_of_the_schema(data: bytes) -> bytes:
    return data.replace(b"CREATE TABLE messages", b"CREATE TAPLE messages")


DAMAGES = [zeros_in_the_middle, flipped_schema, flipped_header, cut, words_of_the_schema]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_start_names_damage_and_changes_nothing(cli: Cli, damage: Callable[[bytes], bytes]) -> None:
    database = cli.data / "yral_chat.db"
    database.write_bytes(damage(database.read_bytes()))
    before = fingerprints(cli.data)
    done = cli.run("serve")
    refused(done, "is damaged (", "was left as it is: run `yral-chat restore --file COPY`", "start again.")
    assert done.err.count(". ") == 0, "one sentence"
    after = fingerprints(cli.data)
    after.pop("yral_chat.db-shm", None)
    before.pop("yral_chat.db-shm", None)  # the index of the log, which readers make anew
    assert after.items() >= before.items()


@pytest.fixture(params=["empty", "missing"])
def lost(cli: Cli, request: pytest.FixtureRequest) -> Path:
    """The place of a database whose log is all there is of it, with what somebody was told is kept."""
    database = cli.data / "yral_chat.db"
    database.write_bytes(b"") if request.param == "empty" else database.unlink()
    return database


@pytest.mark.parametrize("command", ["serve", "migrate", "jobs list", "jobs retry --all", "chat -m Hello"])
def test_a_log_without_its_database_is_not_taken_for_a_new_deployment(cli: Cli, lost: Path, command: str) -> None:
    before = fingerprints(cli.data)
    done = cli.run(*command.split())
    refused(done, f"{lost} is damaged (", "was left as it is: run `yral-chat restore --file COPY`", "start again.")
    assert done.err.count(". ") == 0, "one sentence"
    after = fingerprints(cli.data)
    assert after.items() >= before.items()
    assert after.keys() - before.keys() <= {"media-signing-key", "log-key"}


@pytest.mark.parametrize("use", [check_damage, StandingStill, lambda path: put_back(path.with_name("copy"), path)])
def test_whatever_writes_leaves_a_log_without_its_database(lost: Path, use: Callable[[Path], object]) -> None:
    before = fingerprints(lost.parent)
    with pytest.raises(DatabaseDamaged):
        use(lost)
    assert fingerprints(lost.parent) == before


def test_a_moment_of_a_file_that_cannot_be_read_is_refused(cli: Cli) -> None:
    database = cli.data / "yral_chat.db"
    with create_sqlite_engine(database).connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.write_bytes(words_of_the_schema(database.read_bytes()))
    still = StandingStill(database)
    with pytest.raises(DatabaseUnusable, match="cannot be read"):
        still.pin()
    still.release()


def test_a_log_without_changes_is_nothing(cli: Cli, lost: Path) -> None:
    log = Path(f"{lost}-wal")
    log.write_bytes(log.read_bytes()[:32])
    with Service(cli.folder) as service:
        assert service.stop() == 0


def test_a_log_without_its_database_is_kept_beside_the_copy_that_is_put_there(cli: Cli, lost: Path) -> None:
    log = Path(f"{lost}-wal").read_bytes()
    copy = cli.data / "copy.db"
    migrate(f"sqlite:///{copy}")
    done = cli.run("restore", "--file", str(copy))
    assert done.status == 0, done.err
    (kept,) = cli.data.glob("yral_chat.db.broken-*Z-wal")
    assert kept.read_bytes() == log
    assert f"kept as {str(kept).removesuffix('-wal')}" in done.out
    check_damage(lost)
    with Service(cli.folder) as service:
        assert service.stop() == 0


def test_one_that_is_whole_starts(cli: Cli) -> None:
    for is_closed in (False, True):
        assert was_closed(cli.data / "yral_chat.db") == is_closed
        with Service(cli.folder, LOG_LEVEL="DEBUG") as service:
            assert "database.checked" in service.process.output
            assert service.stop() == 0


def test_what_is_damaged_after_a_proper_end_is_seen(cli: Cli) -> None:
    with Service(cli.folder) as service:
        assert service.stop() == 0
    database = cli.data / "yral_chat.db"
    assert was_closed(database)
    database.write_bytes(zeros_in_the_middle(database.read_bytes()))
    with pytest.raises(DatabaseDamaged):
        check_at_start(database)
    refused(cli.run("serve"), "is damaged (")


def test_a_large_one_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    with create_sqlite_engine(path).connect() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (text TEXT)")
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO numbers SELECT printf('%0200d', i) FROM n"
        )
    path.write_bytes(zeros_in_the_middle(path.read_bytes()))
    check_damage(path, seconds=-1)
    with pytest.raises(DatabaseDamaged):
        check_damage(path)
