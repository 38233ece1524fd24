"""Rows that no route can make yet: bots with owners, retired personas, messages of yesterday.

They are written to the database of a running service from outside of it. What the service may have in its cache must
not be changed this way: add a fresh row instead.
"""

import uuid
from contextlib import closing
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, insert, update

from tests.service import Service
from yral_chat.core.clock import SECOND, now
from yral_chat.db.postgres import create_postgres_engine
from yral_chat.db.repositories.influencers import STATUS_RANK
from yral_chat.db.sqlite import create_sqlite_engine
from yral_chat.db.tables import influencers, messages
from yral_chat.db.urls import database_path


class HasDatabase(Protocol):
    """A service, or whatever else has a database."""

    @property
    def database_url(self) -> str: ...


class At(NamedTuple):
    """A database, by its URL."""

    database_url: str


def connect(service: HasDatabase) -> Connection:
    """A connection whose statements take effect one by one; to be closed."""
    url = service.database_url
    if url.startswith("sqlite"):
        return create_sqlite_engine(database_path(url)).connect()
    return create_postgres_engine(url).connect().execution_options(isolation_level="AUTOCOMMIT")


def execute(service: HasDatabase, statement: Any) -> None:
    """Runs one statement that changes rows."""
    with closing(connect(service)) as connection:
        connection.execute(statement)
    connection.engine.dispose()


def fetch(service: HasDatabase, query: Any) -> list[Any]:
    """All rows of a query."""
    with closing(connect(service)) as connection:
        found = list(connection.execute(query))
    connection.engine.dispose()
    return found


def add_influencer(service: Service, **columns: Any) -> str:
    """A persona of its own kind, active and without a greeting unless said otherwise; returns its id."""
    number = uuid.uuid4().hex
    row: dict[str, Any] = {
        "id": f"bot-{number}",
        "name": f"n{number[:12]}",
        "display_name": "Somebody",
        "avatar_url": "",
        "description": "",
        "category": "",
        "status": "active",
        "is_nsfw": False,
        "owner_id": None,
        "source": None,
        "system_instructions": "You are brief.",
        "initial_greeting": "",
        "suggested_messages": "[]",
        "personality_traits": "{}",
        "voice": None,
        "seed_hash": None,
        "conversation_count": 0,
        "message_count": 0,
        "created_at": now(),
        "updated_at": now(),
        **columns,
    }
    row |= {"name_key": row["name"].lower(), "status_rank": STATUS_RANK[row["status"]]}
    execute(service, insert(influencers).values(row))
    influencer_id: str = row["id"]
    return influencer_id


def set_status(service: Service, influencer_id: str, status: str) -> None:
    """As an owner's or operator's decision would."""
    values = {"status": status, "status_rank": STATUS_RANK[status]}
    execute(service, update(influencers).where(influencers.c.id == influencer_id).values(values))


def age(service: Service, seconds: float, *message_ids: str) -> None:
    """Makes messages `seconds` older than they are."""
    micros = round(seconds * SECOND)
    statement = update(messages).where(messages.c.id.in_(message_ids))
    execute(
        service,
        statement.values(created_at=messages.c.created_at - micros, completed_at=messages.c.completed_at - micros),
    )
