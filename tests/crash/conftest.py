"""Services that are killed and started again, and their users."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.client import Api, Document
from tests.service import FakeModel, Service

MakeUser = Callable[[Service], Api]


@pytest.fixture
def sqlite_service(tmp_path: Path, model: FakeModel) -> Iterator[Service]:
    """As `own_service`, for what has nothing to do with the kind of database, or with SQLite only."""
    service = Service(tmp_path, **model.settings)
    yield service
    service.__exit__(None, None, None)


@pytest.fixture
async def new_user() -> AsyncIterator[MakeUser]:
    """`new_user(service)`: somebody new of a service that has been started."""
    async with AsyncExitStack() as stack:

        def make(service: Service) -> Api:
            document = Document.of(service)
            client = Api(service.url, document)
            stack.push_async_callback(client.close)
            return client

        yield make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Crashes on PostgreSQL are tested in the long run: what differs from SQLite is tested by the suite of the API."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if item.nodeid.startswith("tests/crash/") and callspec and callspec.params.get("dialect") == "postgresql":
            item.add_marker(pytest.mark.long)
