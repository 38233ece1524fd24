"""What `yral-chat restore --conversation` and `--user` ask of a running server. Not a part of the public contract."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from yral_chat.api.deps import Id, Services, Text, admin
from yral_chat.api.event_stream import EventStreamResponse
from yral_chat.core.errors import AppError
from yral_chat.services.restores import Wanted
from yral_chat.services.restores.records import Step

router = APIRouter(prefix="/api/v1/admin/restores", include_in_schema=False, dependencies=[admin])


class RestoreBody(BaseModel):
    """Out of which copy: a `file` below DATA_DIR, or a `database` on the same PostgreSQL server; and what.

    `force`: also when it is the copy of another database.
    """

    file: Text | None = None
    database: Text | None = None
    conversation_id: Id | None = None
    user_id: Id | None = None
    force: bool = False


@router.post("")
async def restore(body: RestoreBody, services: Services) -> Response:
    """Puts it back. One JSON object per line: how many messages were looked at, and at the end what has come back."""
    url = await services.restores.locate(file=body.file, database=body.database)
    steps = services.restores.put_back(url, Wanted(body.conversation_id, body.user_id, body.force))
    first = await anext(steps)  # before it a refusal is an ordinary one
    response = EventStreamResponse(_lines(first, steps))
    response.headers["Content-Type"] = "application/x-ndjson"
    return response


async def _lines(first: Step, steps: AsyncGenerator[Step, None]) -> AsyncGenerator[bytes, None]:
    yield _line(first)
    async with aclosing(steps):
        try:
            async for step in steps:
                yield _line(step)
        except AppError as error:
            yield _line({"error": {"code": error.code, "message": error.message}})


def _line(value: object) -> bytes:
    return orjson.dumps(value) + b"\n"
