"""Google's Gemini over REST: https://ai.google.dev/api/generate-content"""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import msgspec

from yral_chat.clients.language_model import (
    Completion,
    Delta,
    ModelCall,
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

BASE_URL = "https://generativelanguage.googleapis.com/v1beta"

# The four that can be set: https://ai.google.dev/gemini-api/docs/safety-settings (civic integrity is deprecated).
SAFETY_CATEGORIES = (
    "HARM_CATEGORY_HARASSMENT",
    "HARM_CATEGORY_HATE_SPEECH",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "HARM_CATEGORY_DANGEROUS_CONTENT",
)

# https://ai.google.dev/api/generate-content#FinishReason. "empty" stands for the reasons that stop an answer short
# for the model's own reasons: with text it is a shortened answer, without text an empty one.
FINISH_REASONS: dict[str, Outcome] = {
    "STOP": "completed",
    "MAX_TOKENS": "truncated",
    "CONTINUATION": "truncated",
    "SAFETY": "blocked",
    "RECITATION": "blocked",
    "BLOCKLIST": "blocked",
    "PROHIBITED_CONTENT": "blocked",
    "SPII": "blocked",
    "MODEL_ARMOR": "blocked",
    "ESCALATION": "blocked",
    "IMAGE_SAFETY": "blocked",
    "IMAGE_PROHIBITED_CONTENT": "blocked",
    "IMAGE_RECITATION": "blocked",
    "PUP_LIMITED_DISABLED": "rejected",
    "FINISH_REASON_UNSPECIFIED": "empty",
    "OTHER": "empty",
    "LANGUAGE": "empty",
    "MALFORMED_FUNCTION_CALL": "empty",
    "MALFORMED_RESPONSE": "empty",
    "UNEXPECTED_TOOL_CALL": "empty",
    "TOO_MANY_TOOL_CALLS": "empty",
    "MISSING_THOUGHT_SIGNATURE": "empty",
    "NO_IMAGE": "empty",
    "IMAGE_OTHER": "empty",
}
# https://ai.google.dev/api/generate-content#BlockReason
BLOCK_REASONS = frozenset(
    {"SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"}
)


class _Part(msgspec.Struct):
    text: str | None = None
    thought: bool | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Response(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    error: Any = None


class GeminiClient:
    """One Gemini model. The key travels in a header only, never in an address."""

    provider = "gemini"

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        base_url: str = BASE_URL,
        thinking_budget: int | None = None,
        safety_threshold: str | None = None,
        timeout_seconds: float = 60,
        silence_seconds: float = SILENCE_SECONDS,
        is_streamed: bool = True,
        http: VendorHttp | None = None,
    ) -> None:
        self.model = model
        self._api_key = api_key
        path = quote(model if model.startswith(("models/", "tunedModels/")) else f"models/{model}")
        self._accept = "text/event-stream" if is_streamed else "application/json"
        method = "streamGenerateContent?alt=sse" if is_streamed else "generateContent"
        self._url = f"{base_url.rstrip('/')}/{path}:{method}"
        self._thinking_budget = thinking_budget
        self._safety_threshold = safety_threshold
        self._timeout_seconds = timeout_seconds
        self._silence_seconds = silence_seconds
        self._http = http or VendorHttp()

    def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        call = Call(
            provider=self.provider,
            model=self.model,
            url=self._url,
            headers={**common_headers(request), "Accept": self._accept, "x-goog-api-key": self._api_key},
            body=JsonBody(self._body(request)),
            timeout_seconds=self._timeout_seconds,
            silence_seconds=self._silence_seconds,
        )
        return stream_answer(self._http, call, request, calls, _read)

    async def close(self) -> None:
        await self._http.close()

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        config: dict[str, Any] = {"temperature": request.temperature, "maxOutputTokens": request.max_output_tokens}
        if self._thinking_budget is not None:
            config["thinkingConfig"] = {"thinkingBudget": self._thinking_budget}
        if request.schema is not None:
            # Not responseSchema, which takes a dialect of OpenAPI: this one is what OpenAI takes too.
            config |= {"responseMimeType": "application/json", "responseJsonSchema": request.schema}
        body: dict[str, Any] = {
            "contents": [
                {"parts": [_part(part) for part in parts], "role": "user" if role == "user" else "model"}
                for role, parts in alternating(request.messages)
            ],
            "generationConfig": config,
        }
        if request.system:
            body["systemInstruction"] = {"parts": [{"text": request.system}], "role": "user"}
        if self._safety_threshold is not None:
            body["safetySettings"] = [
                {"category": category, "threshold": self._safety_threshold} for category in SAFETY_CATEGORIES
            ]
        return body


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    return {"inlineData": {"mimeType": part.mime_type, "data": Base64(part.data)}}


def _read(event: bytes) -> Chunk:
    response = decode(event, _Response)
    chunk = Chunk(model=response.model_version)
    if response.usage_metadata is not None:
        chunk.usage = _usage(response.usage_metadata)
    if response.error is not None:
        chunk.failure = failure_in_stream(response.error, event)
    elif response.prompt_feedback is not None and (reason := response.prompt_feedback.block_reason):
        chunk.outcome = "blocked"
        chunk.finish_reason = reason if reason in BLOCK_REASONS else UNRECOGNISED
    elif response.candidates:
        candidate = response.candidates[0]
        if candidate.content is not None and candidate.content.parts:
            chunk.text = "".join([part.text for part in candidate.content.parts if part.text and not part.thought])
        if reason := candidate.finish_reason:
            chunk.outcome = FINISH_REASONS.get(reason, "empty")
            chunk.finish_reason = reason if reason in FINISH_REASONS else UNRECOGNISED
    return chunk


def _usage(usage: _Usage) -> Usage:
    return Usage(
        prompt=usage.prompt_token_count or 0,
        cached=usage.cached_content_token_count or 0,
        output=usage.candidates_token_count or 0,
        thinking=usage.thoughts_token_count or 0,
    )
