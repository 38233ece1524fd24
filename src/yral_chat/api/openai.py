"""Personas for clients of OpenAI's API: models, and chat completions (contract section 15)."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from typing_extensions import TypedDict, TypeVar

from yral_chat.api.deps import Caller, Id, IdempotencyKey, Services, Text, checked_key, json_response, whole
from yral_chat.api.errors import errors
from yral_chat.api.event_stream import EventStreamResponse, until_gone
from yral_chat.core import deadlines
from yral_chat.core.errors import AppError, ContentBlocked, Invalid, envelope
from yral_chat.core.logging import correlation_id
from yral_chat.services.completions import Answer, Finish, FinishReason, Line, LineRole, Wish

T = TypeVar("T")

router = APIRouter(prefix="/v1", tags=["openai"], responses=errors(401, 429, 500, 503))

MAX_CHARACTERS = 100_000  # of all messages together
# Of a message. A body of 1 MiB holds 350,000 empty ones: collecting what is wrong with each would take 3 s and 800 MB.
MAX_PARTS = 1000
MAX_TURN_CHARACTERS = 4000  # of a message in a conversation (contract section 8.2)

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"

_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "description": "A `chat.completion.chunk` as JSON; the error envelope as JSON; at the end `[DONE]`",
        }
    },
}
_COMPLETION_OR_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The completion; with `stream: true` server-sent events",
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    }
}


class Model(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["yral"]
    name: str


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


class CompletionMessage(TypedDict):
    role: Literal["assistant"]
    content: str


class CompletionChoice(TypedDict):
    index: Literal[0]
    message: CompletionMessage
    finish_reason: FinishReason


class CompletionUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionMetadata(TypedDict):
    conversation_id: str
    user_message_id: str
    assistant_message_id: str


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage
    metadata: CompletionMetadata | None


class TextPart(BaseModel):
    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    role: LineRole
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]


class StreamOptions(BaseModel):
    include_usage: bool | None = False


class RequestMetadata(BaseModel):
    conversation_id: Id | None = None


MaxTokens = Annotated[int, Field(ge=1, le=8192), whole]


class CreateCompletion(BaseModel):
    """With `metadata.conversation_id` the last message becomes a turn of that conversation, and the other messages,
    `temperature` and the limits of tokens say nothing."""

    model: Id
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=100, fail_fast=True)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    n: Annotated[int, Field(ge=1, le=1), whole] | None = 1
    metadata: RequestMetadata | None = None


@router.get("/models", response_model=ModelList)
async def list_models(services: Services, _: Caller) -> Response:
    """The active influencers."""
    return Response(await services.completions.list_models(), media_type="application/json")


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={**errors(403, 404, 409, 413, 422, 504), **_COMPLETION_OR_STREAM},
)
async def create_chat_completion(
    request: Request,
    body: CreateCompletion,
    caller: Caller,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """An influencer's answer, within 28 seconds or as a stream."""
    wish = _wish(body)
    conversation_id = body.metadata.conversation_id if body.metadata is not None else None
    if conversation_id is None:
        answer = await services.completions.begin(caller.user_id, wish)
    else:
        _check_turn(wish)
        key = checked_key(idempotency_key)
        answer = await services.completions.begin_turn(caller.user_id, wish, conversation_id, key)
    try:
        if body.stream:
            return await _streamed(request, answer, body.stream_options or StreamOptions())
        return await _whole(request, answer, deadlines.to_wait(services.settings.send_timeout_seconds))
    except AppError as error:
        error.headers = _headers(answer)
        if error.status == 409:
            # OpenAI's clients repeat after a 409; here that would run a reply again which somebody has stopped.
            error.headers["x-should-retry"] = "false"
        raise


def _wish(body: CreateCompletion) -> Wish:
    """The checks that belong to the messages as a whole. Raises Invalid."""
    lines = tuple(Line(message.role, _text(message.content)) for message in body.messages)
    if sum(len(line.text) for line in lines) > MAX_CHARACTERS:
        raise Invalid.field(["body", "messages"], f"More than {MAX_CHARACTERS} characters together", "string_too_long")
    if lines[-1].role != "user":
        raise Invalid.field(["body", "messages", len(lines) - 1, "role"], "The last message is the user's", "last_role")
    if not lines[-1].text:
        raise Invalid.field(["body", "messages", len(lines) - 1, "content"], "It needs content", "missing_content")
    return Wish(body.model, lines, body.temperature, body.max_completion_tokens or body.max_tokens)


def _check_turn(wish: Wish) -> None:
    if len(wish.lines[-1].text) > MAX_TURN_CHARACTERS:
        place: list[str | int] = ["body", "messages", len(wish.lines) - 1, "content"]
        raise Invalid.field(place, f"At most {MAX_TURN_CHARACTERS} characters in a conversation", "string_too_long")


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content).strip()


async def _whole(request: Request, answer: Answer, seconds: float) -> Response:
    text, finish = await _while_connected(request, answer.whole(seconds))
    message = {"role": "assistant", "content": text}
    body = {
        **_head(answer, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish.reason}],
        "usage": _usage(finish),
    }
    response = json_response(body, headers=_headers(answer))
    response.background = BackgroundTask(_received, answer)
    return response


async def _received(answer: Answer) -> None:
    """After the last byte: the client has the answer."""
    answer.received()


async def _streamed(request: Request, answer: Answer, options: StreamOptions) -> Response:
    """Begins with the first piece of text, so that what fails before it has its status."""
    pieces = answer.pieces()
    first = await _while_connected(request, _first(pieces))
    frames = _frames(answer, first, pieces, has_usage=bool(options.include_usage))
    return EventStreamResponse(frames, headers=_headers(answer), on_complete=answer.received)


async def _first(pieces: AsyncGenerator[str | Finish]) -> str | Finish:
    while not (piece := await anext(pieces)):
        pass
    return piece


async def _frames(
    answer: Answer, piece: str | Finish, pieces: AsyncGenerator[str | Finish], *, has_usage: bool
) -> AsyncGenerator[bytes]:
    head = _head(answer, "chat.completion.chunk")
    # With usage in the last chunk, OpenAI's other chunks say that they have none.
    chunk = {**head, "usage": None} if has_usage else head
    async with aclosing(pieces):
        try:
            yield _delta(chunk, {"role": "assistant", "content": ""})
            while isinstance(piece, str):
                yield _delta(chunk, {"content": piece}) if piece else PING
                piece = await anext(pieces)
            yield _delta(chunk, {}, piece.reason)
            if has_usage:
                yield _data({**head, "choices": [], "usage": _usage(piece)})
        except AppError as error:
            if isinstance(error, ContentBlocked):
                yield _delta(chunk, {}, "content_filter")
            yield b"data: %b\n\n" % envelope(error.code, error.message, error.details, correlation_id.get())
    yield DONE


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "metadata": answer.metadata,
    }


def _delta(chunk: dict[str, Any], delta: dict[str, str], reason: FinishReason | None = None) -> bytes:
    return _data({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


def _usage(finish: Finish) -> CompletionUsage:
    return {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "total_tokens": finish.prompt_tokens + finish.completion_tokens,
    }


def _headers(answer: Answer) -> dict[str, str]:
    return {"Idempotency-Replayed": "true"} if answer.is_replay else {}


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Raises ClientDisconnect."""
    worker = asyncio.create_task(work)
    listener = asyncio.create_task(until_gone(request.receive))
    try:
        await asyncio.wait((worker, listener), return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            raise ClientDisconnect
        return worker.result()
    finally:
        for task in (worker, listener):
            task.cancel()
        await asyncio.gather(worker, listener, return_exceptions=True)
