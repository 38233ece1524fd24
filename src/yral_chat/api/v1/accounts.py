"""Everything of the caller: to take along, and to erase (contract section 14)."""

from fastapi import APIRouter
from starlette.responses import Response
from typing_extensions import TypedDict

from yral_chat.api.deps import Caller, Services, json_response
from yral_chat.api.errors import errors
from yral_chat.api.event_stream import EventStreamResponse
from yral_chat.core.objects import ConversationSummary, Influencer, Message, Time
from yral_chat.services.accounts.erasing import Deleted
from yral_chat.services.memories.service import Memory

router = APIRouter(prefix="/api/v1/users/me", tags=["account"], responses=errors(401, 429, 500, 503))


class ExportedHumanConversation(ConversationSummary):
    messages: list[Message]


class ExportedConversation(ExportedHumanConversation):
    memories: list[Memory]


class ExportedFile(TypedDict):
    storage_key: str
    url: str
    mime_type: str
    size: int
    uploaded_at: Time


class Export(TypedDict):
    exported_at: Time
    user_id: str
    conversations: list[ExportedConversation]
    human_conversations: list[ExportedHumanConversation]
    influencers: list[Influencer]
    media: list[ExportedFile]


class Erased(TypedDict):
    deleted: Deleted


@router.get("/export", response_model=Export)
async def export_account(caller: Caller, services: Services) -> Response:
    """Everything that is stored of the caller as one JSON document, streamed."""
    response = EventStreamResponse(
        services.accounts.export(caller.user_id),
        headers={"Content-Disposition": 'attachment; filename="yral-chat-export.json"'},
    )
    response.headers["Content-Type"] = "application/json"
    return response


@router.delete("", response_model=Erased)
async def erase_account(caller: Caller, services: Services) -> Response:
    """Erases everything of the caller; repeated, it finds nothing. The token goes on to work, for an empty account."""
    return json_response({"deleted": await services.accounts.erase(caller.user_id)})
