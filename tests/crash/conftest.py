"""Users of a service that is killed and started again."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx2
import pytest

from tests.client import Api, Document
from tests.service import Service

MakeUser = Callable[[], Api]


@pytest.fixture
async def new_user(own_service: Service) -> AsyncIterator[MakeUser]:
    """`new_user()`: somebody new, once the service has been started."""
    async with AsyncExitStack() as stack:

        def make() -> Api:
            document = Document(httpx2.get(f"{own_service.url}/openapi.json", timeout=30).json())
            client = Api(own_service.url, document)
            stack.push_async_callback(client.close)
            return client

        yield make
