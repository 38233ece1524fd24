"""What can be seen of a service from outside while it comes and goes."""

from typing import Any

import httpx2
from sqlalchemy import func, select

from tests.client import Api
from tests.rows import fetch
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.db.tables import turns

# What a client sees of a process that is gone.
CUT = (httpx2.TransportError, OSError)


async def asked(model: FakeModel, times: int) -> None:
    """Waits until the vendor has been asked so often since the last reset."""

    async def count() -> bool:
        return model.state()["requests"] >= times

    await until(count, what=f"{times} requests to the model")


async def ended(api: Api, conversation_id: str, message_id: str) -> dict[str, Any]:
    """Waits until this reply is neither pending nor streaming, and returns it."""

    async def look() -> dict[str, Any] | None:
        found = await whole_history(api, conversation_id)
        reply = next(message for message in found if message["id"] == message_id)
        return None if reply["status"] in ("pending", "streaming") else reply

    reply = await until(look, what="the end of the reply", seconds=30)
    assert reply is not None
    return reply


async def whole_history(api: Api, conversation_id: str) -> list[dict[str, Any]]:
    """Oldest first, unfinished messages included."""
    return await api.history(conversation_id, include="unfinished")


def open_turns(service: Service) -> int:
    """Rows of work that somebody must finish."""
    (row,) = fetch(service, select(func.count()).select_from(turns))
    count: int = row[0]
    return count
