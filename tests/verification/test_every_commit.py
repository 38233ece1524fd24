"""What verification relies on holds after every commit, also in the middle of what is done bit by bit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Concatenate

import pytest
from pydantic import SecretStr

from tests.object_stores import settings_for
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.db.database import Database, P, T, UnitOfWork
from yral_chat.db.postgres import create_postgres_engine
from yral_chat.db.repositories.jobs import ERASE_JOB
from yral_chat.db.sqlite import create_sqlite_engine
from yral_chat.db.urls import backend_of, database_path
from yral_chat.db.verification import Fault, find_faults
from yral_chat.resources import Resources
from yral_chat.services import chat
from yral_chat.services.accounts.erasing import CHUNK
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.people import _store, open_pair, show
from yral_chat.services.turns import accepting, ending
from yral_chat.services.turns.records import Ending, Limits, NewMessage

LIMITS = Limits(per_conversation=5, per_user=10, duplicate_window=0, duplicate_grace=0, lease=60_000_000)


class Watched:
    """See `Database`: looks for faults after every commit."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url = url
        self.faults: list[Fault] = []
        self.commits = 0

    async def write(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = await self._database.write(fn, *args, **kwargs)
        self.commits += 1
        self.faults += await asyncio.to_thread(self._look)
        return result

    def _look(self) -> list[Fault]:
        url = self._url
        is_sqlite = backend_of(url) == "sqlite"
        engine = create_sqlite_engine(database_path(url), is_reader=True) if is_sqlite else create_postgres_engine(url)
        with engine.connect() as connection:
            found = find_faults(connection)
        engine.dispose()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class WatchedResources(Resources):
    def _build_database(self) -> Database:
        self.watched = Watched(super()._build_database(), self.settings.resolved_database_url)
        return self.watched


@pytest.fixture
def settings(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgres").create_database() if dialect == "postgresql" else None
    return settings_for(tmp_path, database_url=None if url is None else SecretStr(url), allow_offline_model=True)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[WatchedResources]:
    resources = WatchedResources(settings)
    async with AsyncExitStack() as stack:
        await resources.open()
        stack.push_async_callback(resources.close)
        yield resources


def fill(uow: UnitOfWork) -> None:
    """More of everything than one unit of an erasure takes away."""
    persona = uow.influencers.list_listed(1, 0)[0].id
    conversation = chat._open(uow, "ana", persona)["id"]
    for number in range(CHUNK // 2 + 10):
        message = NewMessage(f"Number {number}")
        turn = accepting.accept(uow, "ana", conversation, message, LIMITS, "process", frozenset()).turn
        assert turn is not None
        ending.end(uow, turn, Ending("Nice.", provider="p", model="m"), [], str)
    accepting.accept(uow, "ana", conversation, NewMessage("The last"), LIMITS, "process", frozenset())
    talk = open_pair(uow, "ben", "ana")
    show(uow, talk, "ana")
    for number in range(CHUNK + 10):
        stored = uow.conversations.find_locked(talk)
        assert stored is not None
        _store(uow, stored, "ana" if number % 50 else "ben", NewMessage(f"Number {number}"))


async def test_an_erasure_is_told_from_damage_at_every_step(settings: Settings) -> None:
    async with opened(settings) as resources:
        await resources.database.write(fill)
        before = resources.watched.commits
        deleted = await resources.accounts.erase("ana")
        assert deleted["messages"] > 2 * CHUNK
        assert resources.watched.commits - before > 6
        assert resources.watched.faults == []


async def test_so_is_one_that_is_repeated_after_a_restore(settings: Settings) -> None:
    async with opened(settings) as resources:
        await resources.database.write(fill)
    ErasureLog(settings.data_dir / "erasures.jsonl").append(Erasure("erasure", "ana", to_text(now())))
    async with opened(settings) as resources:
        assert resources.watched.commits > 6
        assert resources.watched.faults == []
        assert await resources.database.read(lambda uow: uow.accounts.is_finished("erasure"))
        queued = await resources.database.read(lambda uow: uow.jobs.list_queued(is_dead=False, most=1000))
        assert ERASE_JOB not in {job.name for job in queued}
