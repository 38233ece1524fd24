"""Pictures that personas make (contract section 8.7)."""

from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.responses import Response

from yral_chat.api.deps import REPLAYED, Caller, IdempotencyKey, PathId, Services, checked_key, json_response
from yral_chat.api.errors import errors
from yral_chat.api.v1.schemas import MakePicture
from yral_chat.core.errors import AppError
from yral_chat.core.objects import Message
from yral_chat.resources import Resources

router = APIRouter(
    prefix="/api/v1/chat/conversations/{conversation_id}/images",
    tags=["messages"],
    responses=errors(401, 403, 404, 409, 413, 422, 429, 500, 503, 504),
)


@router.post("", status_code=201, response_model=Message)
async def make_picture(
    request: Request,
    conversation_id: PathId,
    caller: Caller,
    services: Services,
    body: MakePicture | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Makes a picture and adds it to the conversation as a message of the persona."""
    prompt = (body.prompt if body is not None else None) or ""
    key = checked_key(idempotency_key)
    request_id, is_replay = await services.pictures.ask(caller.user_id, conversation_id, prompt, key)
    headers = REPLAYED if is_replay else {}
    try:
        message = await services.pictures.wait(request_id)
    except AppError as error:
        error.headers = headers
        raise
    response = json_response(message, 201, headers)
    # Asked before the answer leaves: once it has left, the server calls every client disconnected.
    if not await request.is_disconnected():
        response.background = BackgroundTask(_hand_over, services, message)
    return response


async def _hand_over(services: Resources, message: Message) -> None:
    """After the last byte: the client has the picture."""
    services.pictures.hand_over(message)
