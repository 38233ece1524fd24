"""People who write to people (contract section 13.1)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from yral_chat.api.deps import Caller, IdempotencyKey, Offset, PageLimit20, PathId, Services, json_response
from yral_chat.api.errors import errors
from yral_chat.api.v1.messages import new_message, wait
from yral_chat.api.v1.schemas import HumanChatList, OpenHumanChat, SendMessage, SendResult
from yral_chat.core.objects import Conversation

router = APIRouter(
    prefix="/api/v1/chat/human/conversations", tags=["people"], responses=errors(401, 422, 429, 500, 503)
)


@router.post("", status_code=201, response_model=Conversation, responses=errors(413))
async def open_human_chat(body: OpenHumanChat, caller: Caller, services: Services) -> Response:
    """Opens the caller's conversation with another person, or makes it."""
    return json_response(await services.chat.open_with(caller.user_id, body.participant_id), 201)


@router.get("", response_model=HumanChatList)
async def list_human_chats(caller: Caller, services: Services, limit: PageLimit20 = 20, offset: Offset = 0) -> Response:
    """The caller's conversations with people, newest first."""
    page = await services.chat.list_inbox(
        caller.user_id, principal=None, type_="human", influencer_id=None, limit=limit, offset=offset
    )
    has_more = offset + len(page["conversations"]) < page["total"]
    return json_response({**page, "limit": limit, "offset": offset, "has_more": has_more})


@router.post("/{conversation_id}/messages", response_model=SendResult, responses=errors(403, 404, 409, 413))
async def send_human_message(
    request: Request,
    conversation_id: PathId,
    body: SendMessage,
    caller: Caller,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Sends a message to the other person."""
    message = new_message(services, body, idempotency_key)
    attached = await services.people.send(caller.user_id, conversation_id, message)
    return await wait(request, services, attached)
