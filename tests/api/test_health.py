"""Probes that cannot be used to load the database, and answer when it hangs: contract section 6."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from tests.client import Api
from tests.programs import PrivatePostgres
from tests.waiting import there, until
from yral_chat.core.config import Settings
from yral_chat.main import create_app
from yral_chat.resources import Resources

REQUESTS = 200
AT_ONCE = 20  # fewer than one user's share of places


async def reads(api: Api) -> int:
    text = (await api.get("/metrics")).text
    found = re.search(r'^db_unit_seconds_count\{kind="read"\} (\S+)$', text, re.M)
    assert found is not None
    return int(float(found[1]))


@pytest.mark.parametrize(
    "path", ["/health", "/health/ready", "/status", pytest.param("/metrics", marks=pytest.mark.long)]
)
async def test_two_hundred_requests_are_a_few_reads(api: Api, path: str) -> None:
    before, started = await reads(api), time.monotonic()
    for _ in range(REQUESTS // AT_ONCE):
        answers = await asyncio.gather(*(api.get(path) for _ in range(AT_ONCE)))
        assert {answer.status_code for answer in answers} == {200}
    # One a second and for each of three kinds of figures, and what the service does by itself.
    assert await reads(api) - before < REQUESTS / 10 + 5 * (time.monotonic() - started)


async def test_live_reads_nothing(api: Api) -> None:
    before = await reads(api)
    await asyncio.gather(*(api.get("/health/live") for _ in range(REQUESTS)))
    assert await reads(api) - before < REQUESTS / 5


class Stuck:
    """A database whose connections all do something that does not end, until it is told to."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._gate = threading.Event()
        self._held = 0
        self._tasks: list[asyncio.Task[object]] = []

    async def hold(self, connections: int) -> None:
        for number in range(connections):
            self._tasks.append(asyncio.create_task(self._hold()))
            await until(there(lambda number=number: self._held > number), what="another connection to be held")  # type: ignore[misc]

    async def _hold(self) -> object:
        def wait(_: object) -> None:
            self._held += 1
            self._gate.wait(60)

        return await self._database.read(wait)

    async def let_go(self) -> None:
        self._gate.set()
        await asyncio.gather(*self._tasks)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> str:
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path}/yral_chat.db"
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return server.create_database()


@asynccontextmanager
async def stuck_service(database_url: str, folder: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, Stuck, Resources]]:
    """A service in this process, and all its connections that read, held."""
    settings = Settings(
        _env_file=None, environment="test", data_dir=folder, database_url=SecretStr(database_url), database_pool_size=3
    )
    resources = Resources(settings)
    await resources.open()
    app = create_app(settings, resources)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test", timeout=10) as client,
    ):
        assert (await client.get("/health")).json()["status"] == "healthy"
        assert (await client.get("/health/ready")).status_code == 200
        stuck = Stuck(resources)
        await stuck.hold(2 if database_url.startswith("sqlite") else 3)
        try:
            yield client, stuck, resources
        finally:
            await stuck.let_go()


@pytest.mark.long
async def test_a_database_that_hangs_is_down_for_everybody_and_asked_once(database_url: str, tmp_path: Path) -> None:
    async with stuck_service(database_url, tmp_path) as (client, stuck, resources):

        async def is_down() -> bool:
            return (await client.get("/health")).status_code == 503

        await until(is_down, what="the last good answer to grow old")
        paths = ["/health", "/health/ready"] * 25
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        assert {answer.status_code for answer in answers} == {503}
        body = answers[0].json()
        assert (body["status"], body["services"]["database"]["status"]) == ("unhealthy", "down")
        assert body["services"]["database"]["error"] == "the database does not answer"
        assert answers[1].json()["checks"]["database"] is False
        # The probe, what the runner of the jobs wants to know, and what the turns are looked after with.
        assert sum(line.units for line in resources.database.waiting().values()) <= 8
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/status")).status_code == 503
        metrics = await client.get("/metrics")
        assert (metrics.status_code, "db_up 0.0" in metrics.text) == (200, True)
        await stuck.let_go()

        async def is_well() -> bool:
            return bool((await client.get("/health")).json()["status"] == "healthy")

        await until(is_well, what="the database to be found again")
        assert "db_up 1.0" in (await client.get("/metrics")).text
