"""The inbox, v2: without recent messages, and for the bots that the caller owns (contract section 7.4)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from yral_chat.api.deps import (
    Caller,
    Offset,
    OptionalId,
    PageLimit20,
    Services,
    absent_when_empty,
    json_response,
)
from yral_chat.api.errors import errors
from yral_chat.api.v2.schemas import InboxList

router = APIRouter(
    prefix="/api/v2/chat/conversations", tags=["conversations"], responses=errors(401, 403, 422, 429, 500, 503)
)

Filter = Literal["ai", "human", "all"]


@router.get("", response_model=InboxList)
async def list_inbox(
    caller: Caller,
    services: Services,
    limit: PageLimit20 = 20,
    offset: Offset = 0,
    influencer_id: OptionalId = None,
    principal: OptionalId = None,
    type_: Annotated[Filter | None, Query(alias="type"), absent_when_empty(None)] = None,
) -> Response:
    """The caller's inbox, or that of an owned bot, newest first."""
    page = await services.chat.list_inbox(
        caller.user_id,
        principal=principal,
        type_=type_,
        influencer_id=influencer_id,
        limit=limit,
        offset=offset,
    )
    has_more = offset + len(page["conversations"]) < page["total"]
    return json_response({**page, "limit": limit, "offset": offset, "has_more": has_more})
