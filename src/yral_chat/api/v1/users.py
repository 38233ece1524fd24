"""What people set for themselves, and what they have used (contract section 14)."""

import re
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from yral_chat.api.deps import Caller, Services, absent_when_empty, cleaned, json_response
from yral_chat.api.errors import errors
from yral_chat.services.preferences import Preferences
from yral_chat.services.usage import UsageReport

router = APIRouter(prefix="/api/v1/users/me", tags=["users"], responses=errors(401, 422, 429, 500, 503))

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.A)


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


def _calendar_date(value: Any) -> Any:
    """`YYYY-MM-DD` alone: pydantic would take seconds since the epoch too, and Python weeks."""
    if isinstance(value, str):
        if not _DATE.fullmatch(value):
            raise ValueError("Not a date such as 2026-03-01")
        return date.fromisoformat(value)
    return value


Day = Annotated[date | None, BeforeValidator(_calendar_date), absent_when_empty(None)]


@router.get("/usage", response_model=UsageReport)
async def get_usage(
    caller: Caller,
    services: Services,
    first: Annotated[Day, Query(alias="from", description="The first day, UTC; by default 29 days before `to`")] = None,
    last: Annotated[Day, Query(alias="to", description="The last day, UTC; by default today")] = None,
) -> Response:
    """What the caller has used, for every day of the range, and what may be used in a day."""
    return json_response(await services.usage.report(caller.user_id, first, last))
