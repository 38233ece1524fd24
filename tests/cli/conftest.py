"""The command line and a server that many tests talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Cli
from tests.service import FakeModel, Service


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A folder of its own, in development, as after a fresh checkout."""
    return Cli(tmp_path / "home")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel) -> Iterator[Service]:
    """A development server with the fake vendor behind it."""
    folder = tmp_path_factory.mktemp("server")
    with Service(
        folder, ENVIRONMENT="development", AUTH_DEV_SECRET=None, BREAKER_FAILURES="1000", **model_process.settings
    ) as running:
        yield running


@pytest.fixture
def guest(server: Service, model: FakeModel, tmp_path: Path) -> Cli:
    """The command line of somebody for whom that server is the configured address; the model is healthy."""
    return Cli(tmp_path / "guest", PORT=server.settings["PORT"], DATA_DIR=str(server.folder / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Commands on PostgreSQL in the long run: they are the same but for the address."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if item.nodeid.startswith("tests/cli/") and callspec and callspec.params.get("dialect") == "postgresql":
            item.add_marker(pytest.mark.long)
