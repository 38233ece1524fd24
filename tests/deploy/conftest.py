"""The shipped nginx, in front of an upstream that only listens, and in front of the real service."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.client import Api, Document
from tests.deploy.proxy import Certificate, PrivateNginx
from tests.deploy.upstream import Upstream
from tests.programs import nginx_binary, require
from tests.service import FakeModel, Service

StartNginx = Callable[..., PrivateNginx]
Visit = Callable[[PrivateNginx], httpx2.AsyncClient]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def nginx_for(tmp_path: Path, certificate: Certificate) -> Iterator[StartNginx]:
    """`nginx_for("host:port", edits={…})`: in front of whom. One in each test."""
    with ExitStack() as stack:

        def start(upstream: str, edits: dict[str, str] | None = None) -> PrivateNginx:
            binary = require("nginx", nginx_binary())
            return stack.enter_context(PrivateNginx(binary, tmp_path, certificate, upstream, edits))

        yield start


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream().running() as running:
        yield running


@pytest.fixture
def nginx(upstream: Upstream, nginx_for: StartNginx) -> PrivateNginx:
    """In front of `upstream`."""
    return nginx_for(upstream.address)


@pytest.fixture
def lonely(nginx_for: StartNginx, nowhere: str) -> PrivateNginx:
    """In front of nobody."""
    return nginx_for(nowhere)


@pytest.fixture
async def visit(certificate: Certificate) -> AsyncIterator[Visit]:
    """`visit(nginx)`: an HTTP client of its TLS side, always the same."""
    clients: dict[PrivateNginx, httpx2.AsyncClient] = {}
    async with AsyncExitStack() as stack:

        def make(nginx: PrivateNginx) -> httpx2.AsyncClient:
            if nginx in clients:
                return clients[nginx]
            client = clients[nginx] = httpx2.AsyncClient(base_url=nginx.url, verify=certificate.context, timeout=30)
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel) -> Iterator[Service]:
    """The real service, told to believe nginx."""
    settings = {"TRUSTED_PROXIES": "127.0.0.1/32", "BREAKER_FAILURES": "1000", "STREAM_HEARTBEAT_SECONDS": "0.2"}
    with Service(tmp_path_factory.mktemp("deployed"), **settings, **model_process.settings) as running:
        yield running


@pytest.fixture(scope="module")
def front(
    deployed: Service, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateNginx]:
    """nginx in front of the real service."""
    binary = require("nginx", nginx_binary())
    address = deployed.url.removeprefix("http://")
    with PrivateNginx(binary, tmp_path_factory.mktemp("nginx"), certificate, address) as running:
        yield running


@pytest.fixture(scope="module")
def deployed_document(deployed: Service) -> Document:
    return Document.of(deployed)


@pytest.fixture
async def person(front: PrivateNginx, deployed_document: Document, model: FakeModel) -> AsyncIterator[Api]:
    """Somebody who comes through nginx."""
    api = Api(front.url, deployed_document, verify=front.certificate.context)
    yield api
    await api.close()
