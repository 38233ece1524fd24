"""Services with other settings, and users of them."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from tests.client import Api, Document
from tests.conftest import SHARED
from tests.service import FakeModel, Service

StartService = Callable[..., Service]
MakeUser = Callable[..., Api]


@pytest.fixture(scope="module")
def service_with(
    request: pytest.FixtureRequest, dialect: str, tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel
) -> Iterator[StartService]:
    """`service_with(NAME="value", …)`: a service with these settings, started once for the tests of a module."""
    services: dict[frozenset[tuple[str, str | None]], Service] = {}
    with ExitStack() as stack:

        def start(**settings: str | None) -> Service:
            key = frozenset(settings.items())
            if key not in services:
                url = request.getfixturevalue("postgres").create_database() if dialect == "postgresql" else None
                folder = tmp_path_factory.mktemp("service")
                made = Service(folder, **{"DATABASE_URL": url, **SHARED, **model_process.settings, **settings})
                services[key] = stack.enter_context(made)
            return services[key]

        yield start


@pytest.fixture
async def user_of(document: Document) -> AsyncIterator[MakeUser]:
    """`user_of(service, user_id=None)`: somebody who uses this service."""
    async with AsyncExitStack() as stack:

        def make(service: Service, user_id: str | None = None) -> Api:
            client = Api(service.url, document, user_id)
            stack.push_async_callback(client.close)
            return client

        yield make
