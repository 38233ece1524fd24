"""What people set for themselves (contract section 14)."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from yral_chat.api.deps import Caller, Services, cleaned, json_response
from yral_chat.api.errors import errors
from yral_chat.services.preferences import Preferences

router = APIRouter(prefix="/api/v1/users/me", tags=["users"], responses=errors(401, 422, 429, 500, 503))


def _switch(value: Any) -> Any:
    """JSON's true and false; pydantic would take words and numbers too."""
    if value is not None and not isinstance(value, bool):
        raise ValueError("Not true or false")
    return value


class ChangeSettings(BaseModel):
    """What is absent stays as it is; null clears a locale or a time zone."""

    memories_enabled: Annotated[bool | None, BeforeValidator(_switch)] = None
    locale: Annotated[Annotated[str, Field(max_length=100), cleaned] | None, Field()] = None
    time_zone: Annotated[Annotated[str, Field(max_length=100), cleaned] | None, Field()] = None


@router.get("/settings", response_model=Preferences)
async def get_settings(caller: Caller, services: Services) -> Response:
    """What the caller has set, or the defaults."""
    return json_response(await services.preferences.get(caller.user_id))


@router.put("/settings", response_model=Preferences, responses=errors(413))
async def change_settings(body: ChangeSettings, caller: Caller, services: Services) -> Response:
    """Sets any of them, and answers the whole."""
    changes = body.model_dump(include=body.model_fields_set)
    return json_response(await services.preferences.update(caller.user_id, changes))
