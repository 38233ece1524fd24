"""yral-chat migrate, on both databases."""

import shutil

import pytest
from sqlalchemy import text

from tests.cli.commands import ROOT, Cli
from tests.service import Service
from yral_chat.db.migrations import HEAD, open_engine


@pytest.fixture
def migrating(request: pytest.FixtureRequest, dialect: str, cli: Cli) -> Cli:
    """A command line with an empty database."""
    if dialect == "postgresql":
        cli.settings["DATABASE_URL"] = request.getfixturevalue("postgres").create_database()
    else:
        cli.settings["DATABASE_URL"] = f"sqlite:///{cli.data}/yral_chat.db"
    return cli


def change(cli: Cli, statement: str) -> None:
    engine = open_engine(str(cli.settings["DATABASE_URL"]))
    with engine.connect() as connection:
        connection.execute(text(statement))
        connection.commit()
    engine.dispose()


def test_migrate_creates_the_tables_once(migrating: Cli) -> None:
    first = migrating.run("migrate")
    assert (first.status, first.out) == (0, f"Tables brought to revision {HEAD}.\n"), first.err
    second = migrating.run("migrate")
    assert (second.status, second.out, second.err) == (0, f"Tables are at revision {HEAD} already.\n", "")


def test_migrate_is_refused_while_a_server_uses_the_database(own_service: Service, cli: Cli) -> None:
    with own_service:
        done = cli.run("migrate", DATABASE_URL=own_service.database_url)
    assert (done.status, done.out) == (1, "")
    assert "served by another process" in done.err
    assert done.err.count("\n") == 1


def test_a_newer_database_is_refused(migrating: Cli) -> None:
    assert migrating.run("migrate").status == 0
    change(migrating, "UPDATE alembic_version SET version_num = '9999'")
    done = migrating.run("migrate")
    assert done.status == 1
    assert f"belongs to a newer version (schema 9999, this program knows {HEAD})" in done.err


def test_a_database_of_something_else_is_refused(migrating: Cli) -> None:
    change(migrating, "CREATE TABLE recipes (id integer)")
    done = migrating.run("migrate")
    assert done.status == 1
    assert "holds tables of something else; nothing was changed" in done.err


def test_an_unreachable_server_is_said(cli: Cli) -> None:
    done = cli.run("migrate", DATABASE_URL="postgresql://somebody:hunter2@127.0.0.1:1/chat")
    assert done.status == 1
    assert done.err.startswith("PostgreSQL at 127.0.0.1:1 cannot be reached")
    assert "hunter2" not in done.err


@pytest.mark.parametrize("name", ["what?", "50%25 off", "a & b = #c"])
def test_any_folder_may_hold_the_data(cli: Cli, name: str) -> None:
    folder = cli.folder / name
    done = cli.run("migrate", DATA_DIR=str(folder))
    assert done.status == 0, done.err
    assert [path.name for path in cli.folder.iterdir()] == [name]
    assert sorted(path.name for path in folder.iterdir()) == ["yral_chat.db", "yral_chat.db.lock"]


def test_any_folder_may_hold_the_program(cli: Cli) -> None:
    place = cli.folder / "100%" / "yral_chat"
    shutil.copytree(ROOT / "src/yral_chat", place, ignore=shutil.ignore_patterns("__pycache__", "static"))
    done = cli.run("migrate", PYTHONPATH=str(place.parent))
    assert (done.status, done.out) == (0, f"Tables brought to revision {HEAD}.\n"), done.err
