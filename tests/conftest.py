"""Fixtures that every part of the suite shares. The API suite runs on both databases."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.client import Api, Document
from tests.ports import HeldPort
from tests.programs import PrivatePostgres, postgres_binaries, require
from tests.service import FakeModel, Service
from yral_chat.core.config import Settings

# An example that takes long says something about the machine.
hypothesis.settings.register_profile("patient", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("patient")

pytest_plugins = ["tests.plugins.skips"]

# One service for many tests: what one test does to the model must not reach the next through a circuit breaker.
SHARED = {"BREAKER_FAILURES": "1000", "STREAM_HEARTBEAT_SECONDS": "0.2"}


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """Nothing outside of the tests decides how the code under test behaves."""
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A host:port at which nobody listens."""
    held = HeldPort()
    yield held.address  # noqa: PT022 - it is held for as long as this waits


@pytest.fixture(scope="session")
def model_process() -> Iterator[FakeModel]:
    fake = FakeModel()
    yield fake
    fake.close()


@pytest.fixture
def model(model_process: FakeModel) -> FakeModel:
    """The fake vendor, healthy and empty."""
    model_process.reset()
    return model_process


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL server of this run's own."""
    with PrivatePostgres(require("PostgreSQL server", postgres_binaries())) as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def service(
    request: pytest.FixtureRequest, dialect: str, tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel
) -> Iterator[Service]:
    """A running service that many tests share; they keep apart by using users of their own."""
    url = request.getfixturevalue("postgres").create_database() if dialect == "postgresql" else None
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, DATABASE_URL=url, **SHARED, **model_process.settings) as running:
        yield running


@pytest.fixture(scope="session")
def document(service: Service) -> Document:
    return Document.of(service)


@pytest.fixture
async def api(service: Service, document: Document, model: FakeModel) -> AsyncIterator[Api]:
    """A new user of the shared service, with a healthy model."""
    client = Api(service.url, document)
    yield client
    await client.close()


@pytest.fixture
async def other(service: Service, document: Document) -> AsyncIterator[Api]:
    """Somebody else."""
    client = Api(service.url, document)
    yield client
    await client.close()


@pytest.fixture
def own_service(request: pytest.FixtureRequest, dialect: str, tmp_path: Path, model: FakeModel) -> Iterator[Service]:
    """A service of this test's own, not started yet: to be killed, restarted or set up differently."""
    url = request.getfixturevalue("postgres").create_database() if dialect == "postgresql" else None
    service = Service(tmp_path, DATABASE_URL=url, **model.settings)
    yield service
    service.__exit__(None, None, None)
