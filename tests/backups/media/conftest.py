"""Media in a folder, and a copy of them in another."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.backups.media.deployment import CopyFolder, Deployment, copy_in, settings_for
from tests.db.conftest import database_url
from tests.object_stores import Rclone

__all__ = ["bucket", "copy", "database_url", "deployment"]


@pytest.fixture
def copy(tmp_path: Path) -> CopyFolder:
    return CopyFolder(tmp_path / "copy")


@pytest.fixture
async def deployment(tmp_path: Path, copy: CopyFolder) -> AsyncIterator[Deployment]:
    async with Deployment.open(settings_for(tmp_path / "data", **copy_in(copy.root))) as opened:
        yield opened


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Rclone]:
    folder = tmp_path / "bucket"
    folder.mkdir()
    with Rclone(folder) as server:
        yield server
