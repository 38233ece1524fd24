"""Targets of backups and machines that use them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.backups.targets import Machine, bucket
from tests.object_stores import Moto, Rclone, program, settings_for
from yral_chat.clients.backup_store import Target
from yral_chat.core.metrics import Metrics
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database
from yral_chat.db.migrations import migrate
from yral_chat.db.urls import database_path
from yral_chat.services.backups.service import BackupService

MakeMachine = Callable[..., Machine]


@pytest.fixture(scope="session", autouse=True)
def _litestream() -> None:
    program("litestream")


@pytest.fixture
def folder_target(tmp_path: Path) -> Target:
    return Target(None, str(tmp_path / "backups"))


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[Rclone]:
    """Checks signatures, and ignores conditions."""
    with Rclone(tmp_path / "rclone") as server:
        yield server


@pytest.fixture
def moto() -> Iterator[Moto]:
    """Honours conditions."""
    with Moto() as server:
        yield server


@pytest.fixture(
    params=[
        "folder",
        pytest.param("bucket", marks=pytest.mark.long),
        pytest.param("bucket with conditions", marks=pytest.mark.long),
    ]
)
def target(request: pytest.FixtureRequest, folder_target: Target) -> Target:
    match request.param:
        case "folder":
            return folder_target
        case "bucket":
            return bucket(request.getfixturevalue("rclone"))
        case _:
            return bucket(request.getfixturevalue("moto"))


@pytest.fixture
def new_machine(tmp_path: Path) -> Iterator[MakeMachine]:
    """`new_machine(target)`: an empty one, on which nothing runs yet."""
    machines: list[Machine] = []

    def make(target: Target, **settings: str) -> Machine:
        machines.append(Machine(tmp_path / f"machine-{len(machines)}", target, **settings))
        return machines[-1]

    yield make
    for machine in machines:
        machine.service.__exit__(None, None, None)


@pytest.fixture
async def prepared(tmp_path: Path, folder_target: Target) -> AsyncIterator[tuple[Database, BackupService]]:
    """A new database in this process, and its backup, which is yet to begin."""
    settings = settings_for(
        tmp_path / "data", backup_url=f"file://{folder_target.path}", litestream_enabled=True, backup_lease_seconds=3
    )
    settings.data_dir.mkdir()
    url = settings.resolved_database_url
    database = create_database(url, is_replicated=True)
    backup = BackupService(settings, database_path(url), Metrics(), database)
    database.lock()
    await backup.prepare()
    await asyncio.to_thread(migrate, url, is_replicated=True)
    await database.open()
    yield database, backup
    await database.close()
    await backup.end()
