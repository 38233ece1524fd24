"""Messages: send, stream, resume, regenerate, cancel (contract sections 8 and 9).

A request only attaches to a turn: it waits for its end or relays its events, and may leave at any moment.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.background import BackgroundTask
from starlette.responses import Response

from yral_chat.api.deps import (
    REPLAYED,
    Caller,
    IdempotencyKey,
    PathId,
    Services,
    absent_when_empty,
    checked_key,
    json_response,
)
from yral_chat.api.errors import errors
from yral_chat.api.event_stream import EventStreamResponse
from yral_chat.api.v1.schemas import SendMessage, SendResult
from yral_chat.core import deadlines
from yral_chat.core.errors import AppError, Invalid, NotStreamable
from yral_chat.core.objects import Message
from yral_chat.resources import Resources
from yral_chat.services.turns import Attached, NewMessage

router = APIRouter(
    prefix="/api/v1/chat/conversations/{conversation_id}/messages",
    tags=["messages"],
    responses=errors(401, 403, 404, 422, 429, 500, 503),
)

LastEventId = Annotated[str | None, Header(alias="Last-Event-ID")]

# `itemSchema` speaks of one event; `schema` would speak of the whole stream (OpenAPI 3.2, which FastAPI follows here).
_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": ["start", "token", "done", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `start`, `token`…, then one `done` or `error`",
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    }
}
_REPLY_OR_STREAM: dict[int | str, dict[str, Any]] = {
    200: {**_STREAM[200], "description": "Both messages; with `stream=true` server-sent events"}
}


@router.post("", response_model=SendResult, responses=errors(409, 413, 504))
async def send_message(
    request: Request,
    conversation_id: PathId,
    body: SendMessage,
    caller: Caller,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Sends a message and answers with the reply, within 28 seconds; between people there is none."""
    message = new_message(services, body, idempotency_key)
    try:
        attached = await services.turns.send(caller.user_id, conversation_id, message)
    except NotStreamable:  # nobody replies there: a human chat, whose own route it is that its clients use
        attached = await services.people.send(caller.user_id, conversation_id, message)
    return await wait(request, services, attached)


@router.post(
    "/stream", status_code=200, response_class=EventStreamResponse, responses={**errors(409, 413, 504), **_STREAM}
)
async def stream_message(
    conversation_id: PathId,
    body: SendMessage,
    caller: Caller,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Sends a message and streams the reply."""
    message = new_message(services, body, idempotency_key)
    attached = await services.turns.send(caller.user_id, conversation_id, message)
    return _stream(services, attached)


@router.get(
    "/{message_id}/stream",
    status_code=200,
    response_class=EventStreamResponse,
    responses={**errors(409, 504), **_STREAM},
)
async def resume_stream(
    conversation_id: PathId,
    message_id: PathId,
    caller: Caller,
    services: Services,
    last_event_id: LastEventId = None,
    last_event_id_query: Annotated[str | None, Query(alias="last_event_id")] = None,
) -> Response:
    """Attaches to a reply that is being written, or replays one that has ended."""
    attached = await services.turns.resume(caller.user_id, conversation_id, message_id)
    return _stream(services, attached, last_event_id or last_event_id_query, is_resume=True)


@router.post("/{message_id}/regenerate", response_model=SendResult, responses={**errors(409, 504), **_REPLY_OR_STREAM})
async def regenerate_message(
    request: Request,
    conversation_id: PathId,
    message_id: PathId,
    caller: Caller,
    services: Services,
    stream: Annotated[bool, Query(), absent_when_empty(default=False)] = False,
) -> Response:
    """Writes the newest reply anew; a delivered one stays until the new text is complete."""
    attached = await services.turns.regenerate(caller.user_id, conversation_id, message_id)
    return _stream(services, attached) if stream else await wait(request, services, attached)


@router.post("/{message_id}/cancel", response_model=Message, responses=errors(409))
async def cancel_message(conversation_id: PathId, message_id: PathId, caller: Caller, services: Services) -> Response:
    """Stops a reply that is being written and keeps what is there of it."""
    return json_response(await services.turns.cancel(caller.user_id, conversation_id, message_id))


def new_message(services: Resources, body: SendMessage, header_key: str | None) -> NewMessage:
    """The checks that belong to a message as a whole. Raises Invalid."""
    images, audio = body.media_urls or [], body.audio_url
    _check_fits_type(body, images, audio)
    reduce = services.media.reduce
    return NewMessage(
        content=body.content or "",
        message_type=body.message_type,
        client_message_id=_key(body.client_message_id, header_key),
        images=tuple(reduce(image, ["body", "media_urls", number]) for number, image in enumerate(images)),
        audio=reduce(audio, ["body", "audio_url"]) if audio is not None else None,
        audio_seconds=body.audio_duration_seconds if audio is not None else None,
    )


def _check_fits_type(body: SendMessage, images: list[str], audio: str | None) -> None:
    if body.message_type == "text" and not body.content:
        raise Invalid.field(["body", "content"], "A text message needs content", "missing_content")
    if body.message_type in ("image", "multimodal") and not images:
        raise Invalid.field(["body", "media_urls"], "This type of message needs an image", "missing_media")
    if body.message_type == "audio" and audio is None:
        raise Invalid.field(["body", "audio_url"], "A voice message needs a recording", "missing_media")
    if images and body.message_type not in ("image", "multimodal"):
        raise Invalid.field(["body", "media_urls"], "This type of message has no images", "unexpected_media")
    if audio is not None and body.message_type != "audio":
        raise Invalid.field(["body", "audio_url"], "This type of message has no recording", "unexpected_media")


def _key(body_key: str | None, header: str | None) -> str | None:
    header_key = checked_key(header)
    if body_key is not None and header_key is not None and body_key != header_key:
        raise Invalid.field(["header", "Idempotency-Key"], "Differs from client_message_id", "key_mismatch")
    return body_key or header_key


async def wait(request: Request, services: Resources, attached: Attached) -> Response:
    """The answer to a send: both messages, once the reply is there."""
    headers = REPLAYED if attached.is_replay else {}
    try:
        result = await services.turns.wait(attached, deadlines.to_wait(services.settings.send_timeout_seconds))
    except AppError as error:
        error.headers = headers
        raise
    body = {"user_message": result.user_message, "assistant_message": result.assistant_message}
    response = json_response(body, headers=headers)
    # Asked before the answer leaves: once it has left, the server calls every client disconnected.
    if not await request.is_disconnected():
        response.background = BackgroundTask(_hand_over, services, attached)
    return response


async def _hand_over(services: Resources, attached: Attached) -> None:
    """After the last byte: the client has the answer."""
    services.turns.hand_over(attached)


def _stream(
    services: Resources, attached: Attached, last_event_id: str | None = None, *, is_resume: bool = False
) -> Response:
    return EventStreamResponse(
        services.turns.follow(attached, last_event_id),
        headers=REPLAYED if attached.is_replay and not is_resume else None,
        on_complete=lambda: services.turns.hand_over(attached),
    )
