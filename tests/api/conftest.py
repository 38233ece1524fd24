"""Services with other settings, and users of them."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from tests.client import Api, Document
from tests.conftest import SHARED
from tests.service import FakeModel, Service

StartService = Callable[..., Service]
MakeUser = Callable[..., Api]


@pytest.fixture(scope="session")
def service_with(
    request: pytest.FixtureRequest, dialect: str, tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel
) -> Iterator[StartService]:
    """`service_with(NAME="value", …)`: a service with these settings, started once and shared as `service` is."""
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
def impatient(service_with: StartService) -> Service:
    """A service for everything that is tested with short times and small numbers; one, because a start costs."""
    return service_with(
        ENVIRONMENT="development",
        DOCS_ENABLED="false",
        SEND_TIMEOUT_SECONDS="0.5",
        STREAM_IDLE_LIMIT_SECONDS="2",
        TURN_MAX_SECONDS="8",
        STREAM_COALESCE_MS="1000",
        CACHE_TTL_SECONDS="0.001",
        WS_PING_SECONDS="0.5",
        WS_REPLAY_EVENTS="3",
    )


@pytest.fixture
def broken(service_with: StartService, model: FakeModel) -> Service:
    """A service whose circuits are open, or open with the first failure; the model fails."""
    model.tell(default={"status": 503})
    return service_with(BREAKER_FAILURES="1", BREAKER_OPEN_SECONDS="600")


@pytest.fixture
async def user_of(document: Document) -> AsyncIterator[MakeUser]:
    """`user_of(service, user_id=None)`: somebody who uses this service."""
    async with AsyncExitStack() as stack:

        def make(service: Service, user_id: str | None = None) -> Api:
            client = Api(service.url, document, user_id)
            stack.push_async_callback(client.close)
            return client

        yield make


# `make test` runs these on SQLite, and `make test-long` on PostgreSQL. What most of them test is the wire, or a vendor;
# what differs between the databases (locks, conflicts, what two do at once) is in the modules that are not named.
OF_THE_WIRE = frozenset(
    {
        "test_access", "test_accounts", "test_auth", "test_bad_input", "test_bombs", "test_cards", "test_circuits",
        "test_conversations", "test_creation", "test_headers", "test_health", "test_history", "test_human_chat",
        "test_inbox_socket", "test_influencers", "test_media_files", "test_media_messages", "test_media_upload",
        "test_memories", "test_metrics", "test_moderation", "test_openai_api", "test_openapi", "test_pictures",
        "test_profiles", "test_push", "test_restores", "test_revisions", "test_service_routes", "test_usage",
    }
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if item.path.stem in OF_THE_WIRE and callspec and callspec.params.get("dialect") == "postgresql":
            item.add_marker(pytest.mark.long)
