"""OpenAI's wire: https://platform.openai.com/docs/api-reference/chat-streaming"""

from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from tests.fakes.answers import Event, damaged, finish_reason, json_response, message_of, redirect_of, texts_of
from tests.fakes.behaviour import CACHED_TOKENS, PROMPT_TOKENS, Behaviour
from tests.fakes.media import kind_of, parse_data_url
from tests.fakes.schemas import openai_schema_complaint


def openai_usage(behaviour: Behaviour, output: int) -> dict[str, Any]:
    completion = output + behaviour.thinking_tokens
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": behaviour.thinking_tokens},
    }


def openai_chunk(behaviour: Behaviour, model: str, choices: list[Any], **extra: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": behaviour.model_version or model,
        "choices": choices,
        **extra,
    }


def openai_choice(delta: dict[str, Any], finish_reason: str | None = None) -> list[Any]:
    return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]


def openai_events(behaviour: Behaviour, model: str, wants_usage: bool) -> Iterator[Event]:
    encode = msgspec.json.encode
    finish = finish_reason("openai", behaviour)
    if behaviour.block_reason is not None:
        yield Event(encode(openai_chunk(behaviour, model, openai_choice({}, "content_filter"))))
        yield Event(b"[DONE]")
        return
    if behaviour.has_candidates:
        first = openai_choice({"role": "assistant", "content": ""}, finish if behaviour.finish_at == "start" else None)
        yield Event(encode(openai_chunk(behaviour, model, first)))
        for thought in behaviour.thoughts:
            yield Event(encode(openai_chunk(behaviour, model, openai_choice({"reasoning_content": thought}))))
        for at, text in enumerate(texts_of(behaviour)):
            if behaviour.error_after == at:
                yield Event(encode(openai_error_body(behaviour.error_status, "", behaviour)))
                return
            choices = openai_choice({"content": text}, finish if behaviour.finish_at == "everywhere" else None)
            yield Event(damaged(encode(openai_chunk(behaviour, model, choices)), behaviour, at), is_text=True)
        if finish and behaviour.finish_at != "start":
            yield Event(encode(openai_chunk(behaviour, model, openai_choice({}, finish))))
    if behaviour.has_usage and wants_usage:
        usage = openai_usage(behaviour, len(texts_of(behaviour)))
        yield Event(encode(openai_chunk(behaviour, model, [], usage=usage)))
    if behaviour.has_end_marker:
        yield Event(b"[DONE]")


def openai_complaint(body: Any) -> str | None:
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return "you must provide a model parameter"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: too short"
    if any(message.get("role") not in ("system", "user", "assistant", "developer") for message in messages):
        return "messages: unknown role"
    if (complaint := openai_schema_complaint(body.get("response_format"))) is not None:
        return complaint
    complaints = (content_complaint(message) for message in messages)
    return next((complaint for complaint in complaints if complaint is not None), None)


def content_complaint(message: Any) -> str | None:
    """What the vendor refuses about the content of a message: a string, or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return None
    if not isinstance(content, list) or not content:
        return "Invalid type for 'messages[0].content': expected one of a string or array of objects."
    for part in content:
        if part.get("type") == "text" and part.get("text"):
            continue
        if part.get("type") != "image_url" or message["role"] != "user":
            return f"Invalid value: '{part.get('type')}'."
        if (complaint := image_complaint(part.get("image_url"))) is not None:
            return complaint
    return None


def image_complaint(image: Any) -> str | None:
    """https://platform.openai.com/docs/guides/images-vision: PNG, JPEG, WebP and GIF, 50 MB together."""
    parsed = parse_data_url(image.get("url", "") if isinstance(image, dict) else "")
    if parsed is None or not parsed[1]:
        return "You uploaded an unsupported image. Please make sure your image is valid."
    mime_type, data = parsed
    if mime_type != kind_of(data) or mime_type not in ("image/png", "image/jpeg", "image/webp", "image/gif"):
        return "You uploaded an unsupported image. Please make sure your image has of one the following formats."
    return None


OPENAI_CODE = {
    400: "invalid_request_error",
    401: "invalid_api_key",
    404: "model_not_found",
    429: "insufficient_quota",
    503: "server_error",
}


def openai_error(status: int, detail: str, behaviour: Behaviour) -> web.Response:
    headers = redirect_of(status)
    if behaviour.retry_after is not None:
        headers["Retry-After"] = f"{behaviour.retry_after:g}"
    return json_response(openai_error_body(status, detail, behaviour), status=status, headers=headers)


def openai_error_body(status: int, detail: str, behaviour: Behaviour) -> dict[str, Any]:
    code = "server_busy" if behaviour.is_load else OPENAI_CODE.get(status, "server_error")
    message = f"{message_of(status, behaviour)} {detail}".strip()
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}
