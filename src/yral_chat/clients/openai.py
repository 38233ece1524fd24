"""Chat completions as OpenAI defined them and OpenRouter, Ollama, vLLM, llama.cpp and others speak them.

https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from yral_chat.clients.language_model import (
    Completion,
    Delta,
    ModelCall,
    ModelFailure,
    ModelMessage,
    ModelRequest,
    Outcome,
    Usage,
)
from yral_chat.clients.request_body import Base64, JsonBody
from yral_chat.clients.vendor_http import (
    SILENCE_SECONDS,
    UNRECOGNISED,
    Call,
    Chunk,
    Part,
    VendorHttp,
    alternating,
    common_headers,
    failure_in_stream,
    stream_answer,
)
from yral_chat.core.decoding import decode

BASE_URL = "https://api.openai.com/v1"

# "empty": stopped for something else than an answer (a tool call that nobody offered).
FINISH_REASONS: dict[str, Outcome] = {
    "stop": "completed",
    "eos": "completed",
    "length": "truncated",
    "content_filter": "blocked",
    "tool_calls": "empty",
    "function_call": "empty",
    "error": "overloaded",  # OpenRouter's, beside an error object
}


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    message: _Message | None = None  # in an answer that is not streamed
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Response(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None
    object: str | None = None
    code: Any = None  # of vLLM's errors, which have no object of their own


class OpenAIClient:
    """One model behind an OpenAI-compatible address. Without a key no Authorization header is sent."""

    provider = "openai"

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_seconds: float = 60,
        silence_seconds: float = SILENCE_SECONDS,
        http: VendorHttp | None = None,
    ) -> None:
        self.model = model
        self._api_key = api_key
        base_url = base_url or BASE_URL
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        # OpenAI's own models want the new name, compatible servers of any age know the old one.
        is_openai = urlsplit(base_url).hostname == urlsplit(BASE_URL).hostname
        self._limit_name = "max_completion_tokens" if is_openai else "max_tokens"
        self._timeout_seconds = timeout_seconds
        self._silence_seconds = silence_seconds
        self._http = http or VendorHttp()

    def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        headers = common_headers(request)
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        call = Call(
            provider=self.provider,
            model=self.model,
            url=self._url,
            headers=headers,
            body=JsonBody(self._body(request)),
            timeout_seconds=self._timeout_seconds,
            silence_seconds=self._silence_seconds,
            end_marker=b"[DONE]",
        )
        return stream_answer(self._http, call, request, calls, _read)

    async def close(self) -> None:
        await self._http.close()

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "system", "content": request.system}] if request.system else []
        heard = tuple(_sendable(message) for message in request.messages)
        messages += [{"role": role, "content": _content(parts)} for role, parts in alternating(heard)]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": request.temperature,
            self._limit_name: request.max_output_tokens,
        }
        if request.schema is not None:
            answer = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": answer}
        return body


def _sendable(message: ModelMessage) -> ModelMessage:
    """An assistant's message is made of text alone in this protocol, and recordings have their own endpoint."""
    if message.recordings:
        raise ModelFailure("rejected", "recordings cannot be sent to a chat completion")
    return message.without_pictures() if message.role == "assistant" else message


def _content(parts: list[Part]) -> str | list[dict[str, Any]]:
    """A plain string wherever it can be one: servers of some age know nothing else."""
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "\n\n".join(texts)
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": Base64(part.data, prefix=f"data:{part.mime_type};base64,")}}


def _read(event: bytes) -> Chunk:
    response = decode(event, _Response)
    chunk = Chunk(model=response.model)
    if response.usage is not None:
        chunk.usage = _usage(response.usage)
    if response.error is not None or response.object == "error":
        chunk.failure = failure_in_stream(response.error or {"code": response.code}, event)
    elif response.choices:
        choice = response.choices[0]
        message = choice.delta or choice.message
        if message is not None and message.content:
            chunk.text = message.content
        if reason := choice.finish_reason:
            chunk.outcome = FINISH_REASONS.get(reason, "empty")
            chunk.finish_reason = reason if reason in FINISH_REASONS else UNRECOGNISED
    return chunk


def _usage(usage: _Usage) -> Usage:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    thinking = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None
    return Usage(
        prompt=usage.prompt_tokens or 0,
        cached=cached or 0,
        output=max(0, (usage.completion_tokens or 0) - (thinking or 0)),
        thinking=thinking or 0,
    )
