"""The inbox, v3: personas and people in one list, with what is unread (contract section 13.1)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from yral_chat.api.deps import Caller, Offset, PageLimit20, Services, absent_when_empty, json_response
from yral_chat.api.errors import errors
from yral_chat.api.v3.schemas import UnifiedInbox

router = APIRouter(
    prefix="/api/v3/chat/conversations", tags=["conversations"], responses=errors(401, 422, 429, 500, 503)
)


@router.get("", response_model=UnifiedInbox)
async def list_unified_inbox(
    caller: Caller,
    services: Services,
    limit: PageLimit20 = 20,
    offset: Offset = 0,
    type_: Annotated[Literal["ai", "human", "all"], Query(alias="type"), absent_when_empty("all")] = "all",
    unread_only: Annotated[bool, Query(), absent_when_empty(default=False)] = False,
) -> Response:
    """The caller's conversations with personas and people, newest first."""
    page = await services.chat.list_unified(
        caller.user_id, type_=type_, is_unread=unread_only, limit=limit, offset=offset
    )
    has_more = offset + len(page["conversations"]) < page["total"]
    return json_response({**page, "limit": limit, "offset": offset, "has_more": has_more})
