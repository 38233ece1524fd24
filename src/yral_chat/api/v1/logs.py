"""What `yral-chat log-level` asks of a running server. Not a part of the public contract."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from yral_chat.api.deps import Services, admin, json_response
from yral_chat.core.config import LogLevel

router = APIRouter(prefix="/api/v1/admin/log-level", include_in_schema=False, dependencies=[admin])


class LevelBody(BaseModel):
    """Which level, and for how long; neither: only tell it. `reset`: the one of the settings."""

    level: LogLevel | None = None
    seconds: Annotated[float, Field(gt=0, le=7 * 86400)] | None = None
    reset: bool = False


@router.post("")
async def change_log_level(body: LevelBody, services: Services) -> Response:
    """Changes the level of the running log, or tells it."""
    levels = services.log_levels
    is_asked = body.level is not None or body.reset
    return json_response({"level": levels.change(body.level, body.seconds) if is_asked else levels.current})
