"""Gemini's wire: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
from aiohttp import web

from tests.fakes.answers import Event, damaged, finish_reason, json_response, message_of, redirect_of, texts_of
from tests.fakes.behaviour import CACHED_TOKENS, PROMPT_TOKENS, Behaviour
from tests.fakes.media import decoded, kind_of
from tests.fakes.schemas import gemini_schema_complaint

# https://ai.google.dev/gemini-api/docs/image-understanding and …/audio; what else MP4 and WebM hold is listed in
# https://firebase.google.com/docs/ai-logic/input-file-requirements
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
AUDIO_TYPES = frozenset(
    f"audio/{name}"
    for name in ("wav", "mp3", "mpeg", "mpga", "aiff", "aac", "ogg", "opus", "flac", "m4a", "mp4", "pcm", "webm")
)

GEMINI_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def gemini_chunk(behaviour: Behaviour, model: str, *, output: int, **candidate: Any) -> dict[str, Any]:
    chunk: dict[str, Any] = {}
    if behaviour.has_candidates and candidate:
        chunk["candidates"] = [{**candidate, "index": 0}]
    if behaviour.has_usage:
        thinking = {"thoughtsTokenCount": behaviour.thinking_tokens} if behaviour.thinking_tokens else {}
        chunk["usageMetadata"] = {
            "promptTokenCount": PROMPT_TOKENS,
            "cachedContentTokenCount": CACHED_TOKENS,
            "candidatesTokenCount": output,
            "totalTokenCount": PROMPT_TOKENS + output + behaviour.thinking_tokens,
            **thinking,
        }
    return {**chunk, "modelVersion": behaviour.model_version or model, "responseId": "fake-response"}


def gemini_content(text: str, *, is_thought: bool = False) -> dict[str, Any]:
    part: dict[str, Any] = {"text": text, "thought": True} if is_thought else {"text": text}
    return {"parts": [part], "role": "model"}


def gemini_events(behaviour: Behaviour, model: str) -> Iterator[Event]:
    encode = msgspec.json.encode
    if behaviour.block_reason is not None:
        chunk = gemini_chunk(behaviour, model, output=0)
        yield Event(encode({"promptFeedback": {"blockReason": behaviour.block_reason}, **chunk}))
        return
    for thought in behaviour.thoughts:
        content = gemini_content(thought, is_thought=True)
        yield Event(encode(gemini_chunk(behaviour, model, output=0, content=content)))
    finish = finish_reason("gemini", behaviour)
    if behaviour.finish_at == "start":
        yield Event(encode(gemini_chunk(behaviour, model, output=0, finishReason=finish)))
    texts = texts_of(behaviour)
    for at, text in enumerate(texts):
        if behaviour.error_after == at:
            yield Event(encode(gemini_error_body(behaviour.error_status, "", behaviour)))
            return
        extra = {"finishReason": finish} if behaviour.finish_at == "everywhere" else {}
        chunk = gemini_chunk(behaviour, model, output=at + 1, content=gemini_content(text), **extra)
        yield Event(damaged(encode(chunk), behaviour, at), is_text=True)
    ending = {"content": {"role": "model"}, "finishReason": finish} if finish and behaviour.finish_at != "start" else {}
    yield Event(encode(gemini_chunk(behaviour, model, output=len(texts), **ending)))


def gemini_complaint(body: Any) -> str | None:
    """What the vendor refuses about a conversation."""
    contents = body.get("contents") if isinstance(body, dict) else None
    if not contents:
        return "contents is not specified"
    roles = [content.get("role", "user") for content in contents]
    if not set(roles) <= {"user", "model"}:
        return "Please use a valid role: user, model."
    if roles[0] != "user" or any(one == other for one, other in pairwise(roles)):
        return "Please ensure that multiturn requests alternate between user and model."
    if roles[-1] != "user":
        return "Please ensure that multiturn requests end with a user role."
    parts = [part for content in contents for part in content["parts"]]
    blobs = [part.get("inlineData") or part.get("inline_data") for part in parts]
    if any(not part.get("text") and not blob for part, blob in zip(parts, blobs, strict=True)):
        return "Unable to submit request because it must have a text parameter."
    if (complaint := gemini_schema_complaint(body.get("generationConfig") or {})) is not None:
        return complaint
    complaints = (media_complaint(blob) for blob in blobs if blob)
    return next((complaint for complaint in complaints if complaint is not None), None)


def media_complaint(blob: Any) -> str | None:
    """What the vendor refuses about `inlineData`. Its parser takes either spelling of a name and either alphabet of
    base64: https://protobuf.dev/programming-guides/json/"""
    mime_type, text = blob.get("mimeType") or blob.get("mime_type"), blob.get("data", "")
    if mime_type not in IMAGE_TYPES | AUDIO_TYPES:
        return f"Unsupported MIME type: {mime_type}"
    data = decoded(text.replace("-", "+").replace("_", "/"))
    if not data:
        return "Invalid value at 'contents[0].parts[0].inline_data.data' (TYPE_BYTES), Base64 decoding failed"
    if mime_type in IMAGE_TYPES and kind_of(data) != mime_type:
        return "Unable to process input image. Please retry or report in the troubleshooting guide."
    return None


def gemini_error(status: int, detail: str, behaviour: Behaviour) -> web.Response:
    return json_response(gemini_error_body(status, detail, behaviour), status=status, headers=redirect_of(status))


def gemini_error_body(status: int, detail: str, behaviour: Behaviour) -> dict[str, Any]:
    details: list[dict[str, Any]] = []
    message = f"{message_of(status, behaviour)} {detail}".strip()
    if status == 400 and not detail:
        message = "API key not valid. Please pass a valid API key."
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    if status == 429 and not behaviour.is_load:
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaValue": "250"}]})
    if behaviour.retry_after is not None:
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{behaviour.retry_after:g}s"}
        details.append(delay)
    state = GEMINI_STATUS.get(status, "UNKNOWN")
    return {"error": {"code": status, "message": message, "status": state, "details": details}}
