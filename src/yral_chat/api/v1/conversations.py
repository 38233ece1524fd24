"""Conversations: open, list, get, read, delete (contract section 7)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from yral_chat.api.deps import (
    Caller,
    HistoryLimit,
    Offset,
    OptionalId,
    PageLimit20,
    PathId,
    Services,
    absent_when_empty,
    json_response,
)
from yral_chat.api.errors import errors
from yral_chat.api.v1.schemas import ConversationList, DeleteResult, MessageList, OpenConversation, ReadResult
from yral_chat.core.errors import Invalid
from yral_chat.core.objects import Conversation

router = APIRouter(
    prefix="/api/v1/chat/conversations", tags=["conversations"], responses=errors(401, 422, 429, 500, 503)
)


@router.post("", status_code=201, response_model=Conversation, responses=errors(403, 404, 413))
async def open_conversation(body: OpenConversation, caller: Caller, services: Services) -> Response:
    """Opens the caller's conversation with an influencer, or makes it."""
    return json_response(await services.chat.open(caller.user_id, body.influencer_id), 201)


@router.get("", response_model=ConversationList)
async def list_conversations(
    caller: Caller,
    services: Services,
    limit: PageLimit20 = 20,
    offset: Offset = 0,
    influencer_id: OptionalId = None,
) -> Response:
    """The caller's AI conversations with their newest messages, newest first."""
    page = await services.chat.list_own(caller.user_id, influencer_id=influencer_id, limit=limit, offset=offset)
    has_more = offset + len(page["conversations"]) < page["total"]
    return json_response({**page, "limit": limit, "offset": offset, "has_more": has_more})


@router.get("/{conversation_id}", response_model=Conversation, responses=errors(403, 404))
async def get_conversation(conversation_id: PathId, caller: Caller, services: Services) -> Response:
    """One conversation with its newest messages, for its user or the owner of the bot."""
    return json_response(await services.chat.get(caller.user_id, conversation_id))


@router.get("/{conversation_id}/messages", response_model=MessageList, responses=errors(403, 404))
async def list_messages(
    conversation_id: PathId,
    caller: Caller,
    services: Services,
    limit: HistoryLimit = 50,
    offset: Offset = 0,
    order: Annotated[Literal["asc", "desc"], Query(), absent_when_empty("desc")] = "desc",
    before: OptionalId = None,
    after: OptionalId = None,
    include: Annotated[Literal["unfinished"] | None, Query(), absent_when_empty(None)] = None,
) -> Response:
    """The history, by offset or beside a message. Reading it marks nothing as read."""
    if before is not None and after is not None:
        raise Invalid.field(["query", "after"], "Give before or after, not both")
    if (before or after) is not None and offset > 0:
        raise Invalid.field(["query", "offset"], "An offset does not go with before or after")
    page = await services.chat.list_messages(
        caller.user_id,
        conversation_id,
        limit=limit,
        offset=offset,
        is_ascending=order == "asc",
        before=before,
        after=after,
        is_complete=include == "unfinished",
    )
    return json_response({"conversation_id": conversation_id, **page, "limit": limit, "offset": offset})


@router.post("/{conversation_id}/read", response_model=ReadResult, responses=errors(403, 404))
async def mark_read(conversation_id: PathId, caller: Caller, services: Services) -> Response:
    """Marks everything the other side has said as read."""
    return json_response(await services.chat.mark_read(caller.user_id, conversation_id))


@router.delete("/{conversation_id}", response_model=DeleteResult, responses=errors(403, 404))
async def delete_conversation(conversation_id: PathId, caller: Caller, services: Services) -> Response:
    """Deletes the conversation with everything in it; a running reply is stopped."""
    count = await services.chat.delete(caller.user_id, conversation_id)
    return json_response(
        {
            "success": True,
            "message": "Conversation deleted",
            "deleted_conversation_id": conversation_id,
            "deleted_messages_count": count,
        }
    )
