"""Databases on a real server, whose dumps go to a folder."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.backups.media.deployment import Deployment
from tests.object_stores import settings_for
from tests.programs import PrivatePostgres, require
from yral_chat.core.config import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session", autouse=True)
def _client_programs() -> None:
    for name in ("pg_dump", "pg_restore"):
        require(name, shutil.which(name))


@pytest.fixture
def settings_of(tmp_path: Path) -> MakeSettings:
    """`settings_of(url)`: those of a machine with the database at `url`, which backs up to a folder."""

    def make(url: str, name: str = "machine", **more: object) -> Settings:
        given = {"backup_url": (tmp_path / "dumps").as_uri(), **more}
        return settings_for(tmp_path / name, database_url=SecretStr(url), **given)

    return make


@pytest.fixture
async def deployment(postgres: PrivatePostgres, settings_of: MakeSettings) -> AsyncIterator[Deployment]:
    """A database with some rows in it."""
    async with Deployment.open(settings_of(postgres.create_database())) as opened:
        await opened.add_many(["ada", "bob", "é"] * 50, 1)
        yield opened


# What stands for the rest in every run; the rest is for the long one.
QUICK = {
    "test_a_dump_comes_back_as_it_was",
    "test_nothing_is_restored_over_tables",
    "test_a_dump_that_fails_leaves_nothing",
    "test_what_restores_is_proven_and_leaves_nothing",
    "test_a_dump_with_a_row_of_its_own_is_not_proven",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/backups/postgres/") and getattr(item, "originalname", "") not in QUICK:
            item.add_marker(pytest.mark.long)
