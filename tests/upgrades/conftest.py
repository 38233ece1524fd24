"""Databases of earlier revisions, with what people had in them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.upgrades.dumps import DATA, load
from tests.upgrades.make import KEPT
from yral_chat.db.migrations import HEAD

EARLIER = [f"{number:04d}" for number in range(1, int(HEAD))]

# For what PostgreSQL has nothing to do with: no copies are made of it, and it is its own server that writes.
on_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)

LeftBy = Callable[[str], str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, dialect: str, data: Path) -> str:
    """Of a database where nothing is yet."""
    if dialect == "postgresql":
        url: str = request.getfixturevalue("postgres").create_database()
        return url
    return f"sqlite:///{data}/yral_chat.db"


@pytest.fixture
def left_by(data: Path, empty_url: str) -> LeftBy:
    """`left_by(revision)` puts everything where the program of that revision has left it; returns the URL."""

    def leave(revision: str) -> str:
        load(revision, empty_url)
        for name in KEPT:
            place = DATA / revision / name
            if place.is_dir():
                shutil.copytree(place, data / name)
            elif place.exists():
                shutil.copy(place, data / name)
        return empty_url

    return leave


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On PostgreSQL, and from older revisions than the last, in the long run: the newest step differs most often."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if not item.nodeid.startswith("tests/upgrades/") or callspec is None:
            continue
        dialect, revision = callspec.params.get("dialect"), callspec.params.get("revision", EARLIER[-1])
        if dialect == "postgresql" or revision != EARLIER[-1]:
            item.add_marker(pytest.mark.long)
