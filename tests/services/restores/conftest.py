"""A world, and a copy of it as it was at a moment."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.db.conftest import add_influencer
from tests.services.restores.world import World, copy_rows
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.migrations import migrate

MakeCopy = Callable[[], str]


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, to be copied: making them anew for each test would take most of the time."""
    path = tmp_path_factory.mktemp("empty") / "empty.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def empty_database(request: pytest.FixtureRequest, dialect: str) -> str | None:
    """The same on PostgreSQL."""
    if dialect == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres").create_database()
    migrate(url)
    return url


@pytest.fixture
def database_url(request: pytest.FixtureRequest, empty_file: Path, empty_database: str | None, tmp_path: Path) -> str:
    if empty_database is not None:
        url: str = request.getfixturevalue("postgres").create_database(template=empty_database)
        return url
    shutil.copy(empty_file, tmp_path / "test.db")
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
async def world(database: Database, database_url: str, tmp_path: Path) -> World:
    """With two personas, one of them somebody's own, and people of whom nothing may ever change."""

    def unit(uow: UnitOfWork) -> None:
        add_influencer(uow, "bot")
        add_influencer(uow, "own", owner_id="owner")

    await database.write(unit)
    made = World(database, database_url, tmp_path)
    await made.say("neighbour", "my own words", "and more")
    await made.write("neighbour", "friend", "between us")
    await made.write("friend", "neighbour", "yes")
    return made


@pytest.fixture
def take_copy(world: World, empty_file: Path, tmp_path: Path) -> MakeCopy:
    """Makes a copy of the present, as a file; returns its URL."""
    made = 0

    def make() -> str:
        nonlocal made
        made += 1
        path = shutil.copy(empty_file, tmp_path / f"copy-{made}.db")
        copy_rows(world.database_url, f"sqlite:///{path}")
        return f"sqlite:///{path}"

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On PostgreSQL in the long run."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        is_ours = item.nodeid.startswith("tests/services/restores/")
        if is_ours and callspec and callspec.params.get("dialect") == "postgresql":
            item.add_marker(pytest.mark.long)
