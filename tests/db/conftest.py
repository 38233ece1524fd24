"""Databases for tests below the wire: the real ones, opened as the service opens them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from yral_chat.core.clock import now
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.migrations import migrate


@pytest.fixture
def database_url(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> str:
    """An empty database with all tables."""
    if dialect == "postgresql":
        url: str = request.getfixturevalue("postgres").create_database()
    else:
        url = f"sqlite:///{tmp_path}/test.db"
    migrate(url)
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = create_database(database_url, pool_size=4)
    await opened.open()
    yield opened
    await opened.close()


def add_influencer(uow: UnitOfWork, influencer_id: str, /, **values: object) -> None:
    """A persona that can be talked to."""
    time = now()
    uow.influencers.add(
        {
            "id": influencer_id,
            "name": influencer_id,
            "name_key": influencer_id.lower(),
            "display_name": influencer_id.title(),
            "status": "active",
            "status_rank": 0,
            "is_nsfw": False,
            "system_instructions": "Be kind.",
            "initial_greeting": "Hello!",
            "created_at": time,
            "updated_at": time,
            **values,
        }
    )
