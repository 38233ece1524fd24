"""What is remembered of a conversation: list it, forget it (contract section 14)."""

from fastapi import APIRouter
from starlette.responses import Response
from typing_extensions import TypedDict

from yral_chat.api.deps import Caller, PathId, Services, json_response
from yral_chat.api.errors import errors
from yral_chat.services.memories.service import MemoryList

router = APIRouter(
    prefix="/api/v1/chat/conversations/{conversation_id}/memories",
    tags=["memories"],
    responses=errors(401, 403, 404, 409, 422, 429, 500, 503),
)


class Deleted(TypedDict):
    deleted: int


@router.get("", response_model=MemoryList)
async def list_memories(conversation_id: PathId, caller: Caller, services: Services) -> Response:
    """What the persona remembers of the caller, by key."""
    return json_response(await services.memories.list_own(caller.user_id, conversation_id))


@router.delete("", response_model=Deleted)
async def delete_memories(conversation_id: PathId, caller: Caller, services: Services) -> Response:
    """Forgets everything that was remembered until now."""
    return json_response({"deleted": await services.memories.delete_all(caller.user_id, conversation_id)})


@router.delete("/{key}", response_model=Deleted)
async def delete_memory(conversation_id: PathId, key: PathId, caller: Caller, services: Services) -> Response:
    """Forgets one memory; it is not drawn again from what was said until now."""
    return json_response({"deleted": await services.memories.delete(caller.user_id, conversation_id, key)})
