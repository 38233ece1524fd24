"""Users of services with settings of their own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from tests.client import Api, Document
from tests.service import Service

MakeUser = Callable[..., Api]


@pytest.fixture
async def user_of() -> AsyncIterator[MakeUser]:
    """`user_of(service, user_id=None, **headers)`: somebody who uses this service."""
    async with AsyncExitStack() as stack:

        def make(service: Service, user_id: str | None = None, headers: dict[str, str] | None = None) -> Api:
            document = Document.of(service)
            client = Api(service.url, document, user_id)
            client.http.headers.update(headers or {})
            stack.push_async_callback(client.close)
            return client

        yield make
