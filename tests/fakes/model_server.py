"""A model vendor on loopback: Gemini's and OpenAI's wire formats, and every way in which they fail.

In a test:      async with FakeModelServer() as server: … server.base_url_gemini …
As a program:   python -m tests.fakes.model_server --port 0     (prints its addresses as one line of JSON)

Each call takes the next behaviour of the script, else the one of its model, else the default. Over HTTP the same is
set with `POST /control {"default": {…}, "script": [{…}], "models": {"name": {…}}, "reset": true}`; `GET /control`
counts, `GET /control/requests` shows what was received. Whether the fake is honest is proved with the vendors' own
clients in tests/clients/test_fake_is_honest.py.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from aiohttp import web

PROMPT_TOKENS = 11
CACHED_TOKENS = 3
# Long enough for the reader to see two writes as two packets.
PACKET_PAUSE_SECONDS = 0.003
NATURAL = "natural"

Wire = Literal["gemini", "openai"]


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one call is answered. The default is a short, healthy answer."""

    # An error answer instead of an answer.
    status: int = 200
    retry_after: float | None = None  # RetryInfo's retryDelay, or the Retry-After header
    is_load: bool = False  # a 429 (or 503) that speaks of load instead of quota

    # The text: `pieces`; else `chunks` times `chunk_text`; or the words of the last user message.
    pieces: tuple[str, ...] = ("Hello", " from", " the fake", ".")
    chunks: int = 0
    chunk_text: str = "word "
    echo: bool = False
    thoughts: tuple[str, ...] = ()  # thought parts before the text
    thinking_tokens: int = 0
    model_version: str | None = None  # the answering model, when it is not the one that was asked

    # Time.
    first_byte_delay: float = 0.0
    chunk_delay: float = 0.0

    # How it ends. `finish_reason` None: the stream ends without one.
    finish_reason: str | None = NATURAL
    block_reason: str | None = None
    has_candidates: bool = True
    has_usage: bool = True
    has_end_marker: bool = True  # OpenAI's [DONE]
    stays_open_seconds: float = 0.0  # after the last event
    is_last_line_open: bool = False  # the stream ends without the blank line of its last event
    finish_at: Literal["end", "everywhere", "start"] = "end"  # what some gateways do with the finish reason

    # What goes wrong on the way; numbers count pieces of text.
    stall_after: int | None = None
    error_after: int | None = None
    error_status: int = 503
    cut_after_bytes: int | None = None
    invalid_utf8_in: int | None = None
    duplicate: int | None = None

    # How events travel.
    packets: Literal["event", "pairs", "split_event", "split_character"] = "event"
    newline: Literal["\n", "\r\n", "\r"] = "\n"
    has_comments: bool = False
    is_streamed: bool = True  # False: one JSON object, whatever was asked


class Received(msgspec.Struct):
    """One request as it came in."""

    wire: Wire
    model: str
    target: str  # path and query, undecoded
    peer: str  # the client's end of the connection
    headers: dict[str, str]  # names in lower case
    body: Any


def echo_text(message: str) -> str:
    """What a server in echo mode answers to `message`: whoever reads the answer knows which prompt it belongs to."""
    return f"You said: {message}"


class FakeModelServer:
    """The vendor. `key` is the only accepted one; None accepts any, "" also none at all."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, key: str | None = None) -> None:
        self._host = host
        self._port = port
        self._key = key
        self._runner: web.AppRunner | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.reset()

    def reset(self) -> None:
        self.default = Behaviour()
        self.models: dict[str, Behaviour] = {}
        self.script: deque[Behaviour] = deque()
        self.requests: deque[Received] = deque(maxlen=1000)
        self.request_count = 0
        self.open_streams = 0
        self.peak_streams = 0
        self.disconnects = 0

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def base_url_gemini(self) -> str:
        return f"{self.base_url}/v1beta"

    @property
    def base_url_openai(self) -> str:
        return f"{self.base_url}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1beta/{kind:models|tunedModels}/{target}", self._gemini)
        app.router.add_get("/v1beta/{kind:models|tunedModels}/{target}", self._describe_gemini_model)
        app.router.add_post("/v1/chat/completions", self._openai)
        app.router.add_get("/v1/models", self._list_openai_models)
        app.router.add_post("/control", self._set_control)
        app.router.add_get("/control", self._get_control)
        app.router.add_get("/control/requests", self._get_requests)
        # A handler is cancelled when its client leaves, which is how the fake sees it.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def until(self, condition: Callable[[], bool], *, timeout: float = 5.0) -> None:
        """Waits until `condition` holds; it is looked at whenever a request begins or ends."""
        async with asyncio.timeout(timeout):
            while not condition():
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- the two wires

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        model, _, method = request.match_info["target"].partition(":")
        body = await self._receive(request, "gemini", model)
        key = request.headers.get("x-goog-api-key", "")
        if not self._accepts(key):
            # The vendor answers a missing key with 403 and a wrong one with 400.
            return _gemini_error(400 if key else 403, "", Behaviour())
        if (complaint := _gemini_complaint(body)) is not None:
            return _gemini_error(400, complaint, Behaviour())
        if method not in ("generateContent", "streamGenerateContent"):
            return _gemini_error(404, method, Behaviour())
        # Without alt=sse the vendor streams a JSON array, which nobody here wants by accident.
        if method == "streamGenerateContent" and request.query.get("alt") != "sse":
            return _gemini_error(400, "only alt=sse is supported", Behaviour())
        prompt = body["contents"][-1]["parts"][-1]["text"]
        return await self._answer(request, "gemini", model, prompt, is_stream=method == "streamGenerateContent")

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = await self._receive(request, "openai", "")
        key = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not self._accepts(key):
            return _openai_error(401, "", Behaviour())
        if (complaint := _openai_complaint(body)) is not None:
            return _openai_error(400, complaint, Behaviour())
        prompt = body["messages"][-1]["content"]
        wants_usage = not body.get("stream") or (body.get("stream_options") or {}).get("include_usage", False)
        return await self._answer(
            request, "openai", body["model"], prompt, is_stream=bool(body.get("stream")), wants_usage=wants_usage
        )

    async def _describe_gemini_model(self, request: web.Request) -> web.Response:
        """Every name is a model, unless its behaviour says otherwise."""
        model, key = request.match_info["target"], request.headers.get("x-goog-api-key", "")
        if not self._accepts(key):
            return _gemini_error(400 if key else 403, "", Behaviour())
        behaviour = self.models.get(model, self.default)
        if behaviour.status != 200:
            return _gemini_error(behaviour.status, "", behaviour)
        methods = ["generateContent", "countTokens"]
        return _json_response({"name": f"models/{model}", "version": "001", "supportedGenerationMethods": methods})

    async def _list_openai_models(self, request: web.Request) -> web.Response:
        """The models whose behaviours were set."""
        if not self._accepts(request.headers.get("Authorization", "").removeprefix("Bearer ").strip()):
            return _openai_error(401, "", Behaviour())
        if self.default.status != 200:
            return _openai_error(self.default.status, "", self.default)
        data = [{"id": name, "object": "model", "created": 1767225600, "owned_by": "fake"} for name in self.models]
        return _json_response({"object": "list", "data": data})

    def _accepts(self, key: str) -> bool:
        if self._key is None:
            return bool(key)
        return self._key == "" or key == self._key

    async def _receive(self, request: web.Request, wire: Wire, model: str) -> Any:
        try:
            body = msgspec.json.decode(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = None
        if wire == "openai" and isinstance(body, dict):
            model = str(body.get("model"))
        headers = {name.lower(): value for name, value in request.headers.items()}
        peer = str(request.transport.get_extra_info("peername")) if request.transport is not None else ""
        received = Received(wire=wire, model=model, target=request.raw_path, peer=peer, headers=headers, body=body)
        self.requests.append(received)
        self.request_count += 1
        self._changed()
        return body

    async def _answer(
        self,
        request: web.Request,
        wire: Wire,
        model: str,
        prompt: str,
        *,
        is_stream: bool,
        wants_usage: bool = True,
    ) -> web.StreamResponse:
        behaviour = self.script.popleft() if self.script else self.models.get(model, self.default)
        self.open_streams += 1
        self.peak_streams = max(self.peak_streams, self.open_streams)
        self._changed()
        try:
            if behaviour.first_byte_delay:
                await asyncio.sleep(behaviour.first_byte_delay)
            if behaviour.status != 200:
                refuse = _gemini_error if wire == "gemini" else _openai_error
                return refuse(behaviour.status, prompt, behaviour)
            if behaviour.echo:
                behaviour = msgspec.structs.replace(behaviour, echo=False, pieces=_words(echo_text(prompt)))
            if not is_stream or not behaviour.is_streamed:
                return _json_response(_whole(wire, behaviour, model))
            return await self._stream(request, wire, behaviour, model, wants_usage=wants_usage)
        except asyncio.CancelledError:
            self.disconnects += 1
            raise
        finally:
            self.open_streams -= 1
            self._changed()

    async def _stream(
        self, request: web.Request, wire: Wire, behaviour: Behaviour, model: str, *, wants_usage: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        sent = 0
        for packet in _packets(wire, behaviour, model, wants_usage):
            if packet.stalls:
                await asyncio.Event().wait()  # until the client leaves
            if packet.pause:
                await asyncio.sleep(packet.pause)
            data = packet.data
            if behaviour.cut_after_bytes is not None and sent + len(data) >= behaviour.cut_after_bytes:
                await response.write(data[: behaviour.cut_after_bytes - sent])
                if request.transport is not None:
                    request.transport.close()
                return response
            sent += len(data)
            await response.write(data)
        if behaviour.stays_open_seconds:
            await asyncio.sleep(behaviour.stays_open_seconds)
        return response

    # --- control over HTTP

    async def _set_control(self, request: web.Request) -> web.Response:
        try:
            wish = msgspec.json.decode(await request.read(), type=_Control)
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=400)
        if wish.reset:
            self.reset()
        if wish.default is not None:
            self.default = wish.default
        self.models.update(wish.models)
        self.script.extend(wish.script)
        return await self._get_control(request)

    async def _get_control(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self.request_count,
                "open_streams": self.open_streams,
                "peak_streams": self.peak_streams,
                "disconnects": self.disconnects,
                "script": len(self.script),
            }
        )

    async def _get_requests(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(list(self.requests)), content_type="application/json")


class _Control(msgspec.Struct, forbid_unknown_fields=True):
    default: Behaviour | None = None
    script: list[Behaviour] = []
    models: dict[str, Behaviour] = {}
    reset: bool = False


class _Packet(msgspec.Struct, frozen=True):
    """Bytes that are written at once, after `pause` seconds; or the point at which nothing more comes."""

    data: bytes = b""
    pause: float = 0.0
    stalls: bool = False


class _Event(msgspec.Struct, frozen=True):
    data: bytes
    is_text: bool = False


@lru_cache(maxsize=64)
def _packets(wire: Wire, behaviour: Behaviour, model: str, wants_usage: bool) -> tuple[_Packet, ...]:
    """Encoded once for every behaviour: the fake must not cost what is measured."""
    packets = list(_build_packets(wire, behaviour, model, wants_usage))
    if behaviour.is_last_line_open:
        packets[-1] = msgspec.structs.replace(packets[-1], data=packets[-1].data.rstrip(b"\r\n"))
    return tuple(packets)


def _build_packets(wire: Wire, behaviour: Behaviour, model: str, wants_usage: bool) -> Iterator[_Packet]:
    texts = 0
    waiting = b""  # the first of a pair
    for event in _events(wire, behaviour, model, wants_usage):
        if behaviour.stall_after == texts:
            yield _Packet(stalls=True)
        pause = behaviour.chunk_delay if texts and event.is_text else 0.0
        texts += event.is_text
        data = _frame(event.data, behaviour)
        if behaviour.packets == "pairs":
            if waiting:
                yield _Packet(waiting + data, pause)
            waiting = b"" if waiting else data
        elif behaviour.packets == "event":
            yield _Packet(data, pause)
        else:
            split = _inside_a_character(data) if behaviour.packets == "split_character" else len(data) // 2
            yield _Packet(data[:split], pause or PACKET_PAUSE_SECONDS)
            yield _Packet(data[split:], PACKET_PAUSE_SECONDS)
    if waiting:
        yield _Packet(waiting)


def _frame(data: bytes, behaviour: Behaviour) -> bytes:
    newline = behaviour.newline.encode()
    comment = b": still here" + newline + newline if behaviour.has_comments else b""
    return comment + b"data: " + data + newline + newline


def _inside_a_character(data: bytes) -> int:
    """The place after the first byte of the first character that has several."""
    return next((at + 1 for at, byte in enumerate(data) if byte >= 0xC0), len(data) // 2)


def _words(text: str) -> tuple[str, ...]:
    words = text.split(" ")
    return tuple(word if not at else f" {word}" for at, word in enumerate(words))


def _texts(behaviour: Behaviour) -> tuple[str, ...]:
    texts = (behaviour.chunk_text,) * behaviour.chunks or behaviour.pieces
    if behaviour.duplicate is not None:
        texts = texts[: behaviour.duplicate + 1] + texts[behaviour.duplicate :]
    return texts


def _events(wire: Wire, behaviour: Behaviour, model: str, wants_usage: bool) -> Iterator[_Event]:
    if wire == "gemini":
        yield from _gemini_events(behaviour, model)
    else:
        yield from _openai_events(behaviour, model, wants_usage)


def _damage(data: bytes, behaviour: Behaviour, at: int) -> bytes:
    if behaviour.invalid_utf8_in != at:
        return data
    text = b'"text":"' if b'"text":"' in data else b'"content":"'
    return data.replace(text, text + b"\xff\xfe", 1)


# --- Gemini: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse

_GEMINI_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _gemini_chunk(behaviour: Behaviour, model: str, *, output: int, **candidate: Any) -> dict[str, Any]:
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


def _gemini_content(text: str, *, is_thought: bool = False) -> dict[str, Any]:
    part: dict[str, Any] = {"text": text, "thought": True} if is_thought else {"text": text}
    return {"parts": [part], "role": "model"}


def _gemini_events(behaviour: Behaviour, model: str) -> Iterator[_Event]:
    encode = msgspec.json.encode
    if behaviour.block_reason is not None:
        chunk = _gemini_chunk(behaviour, model, output=0)
        yield _Event(encode({"promptFeedback": {"blockReason": behaviour.block_reason}, **chunk}))
        return
    for thought in behaviour.thoughts:
        content = _gemini_content(thought, is_thought=True)
        yield _Event(encode(_gemini_chunk(behaviour, model, output=0, content=content)))
    finish = _finish_reason("gemini", behaviour)
    if behaviour.finish_at == "start":
        yield _Event(encode(_gemini_chunk(behaviour, model, output=0, finishReason=finish)))
    texts = _texts(behaviour)
    for at, text in enumerate(texts):
        if behaviour.error_after == at:
            yield _Event(encode(_gemini_error_body(behaviour.error_status, "", behaviour)))
            return
        extra = {"finishReason": finish} if behaviour.finish_at == "everywhere" else {}
        chunk = _gemini_chunk(behaviour, model, output=at + 1, content=_gemini_content(text), **extra)
        yield _Event(_damage(encode(chunk), behaviour, at), is_text=True)
    ending = {"content": {"role": "model"}, "finishReason": finish} if finish and behaviour.finish_at != "start" else {}
    yield _Event(encode(_gemini_chunk(behaviour, model, output=len(texts), **ending)))


def _gemini_complaint(body: Any) -> str | None:
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
    if any(not part.get("text") for content in contents for part in content["parts"]):
        return "Unable to submit request because it must have a text parameter."
    return None


def _gemini_error(status: int, detail: str, behaviour: Behaviour) -> web.Response:
    return _json_response(_gemini_error_body(status, detail, behaviour), status=status, headers=_redirect(status))


def _gemini_error_body(status: int, detail: str, behaviour: Behaviour) -> dict[str, Any]:
    details: list[dict[str, Any]] = []
    message = f"{_message(status, behaviour)} {detail}".strip()
    if status == 400 and not detail:
        message = "API key not valid. Please pass a valid API key."
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    if status == 429 and not behaviour.is_load:
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaValue": "250"}]})
    if behaviour.retry_after is not None:
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{behaviour.retry_after:g}s"}
        details.append(delay)
    state = _GEMINI_STATUS.get(status, "UNKNOWN")
    return {"error": {"code": status, "message": message, "status": state, "details": details}}


# --- OpenAI: https://platform.openai.com/docs/api-reference/chat-streaming


def _openai_usage(behaviour: Behaviour, output: int) -> dict[str, Any]:
    completion = output + behaviour.thinking_tokens
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": behaviour.thinking_tokens},
    }


def _openai_chunk(behaviour: Behaviour, model: str, choices: list[Any], **extra: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": behaviour.model_version or model,
        "choices": choices,
        **extra,
    }


def _openai_choice(delta: dict[str, Any], finish_reason: str | None = None) -> list[Any]:
    return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]


def _openai_events(behaviour: Behaviour, model: str, wants_usage: bool) -> Iterator[_Event]:
    encode = msgspec.json.encode
    finish = _finish_reason("openai", behaviour)
    if behaviour.block_reason is not None:
        yield _Event(encode(_openai_chunk(behaviour, model, _openai_choice({}, "content_filter"))))
        yield _Event(b"[DONE]")
        return
    if behaviour.has_candidates:
        first = _openai_choice({"role": "assistant", "content": ""}, finish if behaviour.finish_at == "start" else None)
        yield _Event(encode(_openai_chunk(behaviour, model, first)))
        for thought in behaviour.thoughts:
            yield _Event(encode(_openai_chunk(behaviour, model, _openai_choice({"reasoning_content": thought}))))
        for at, text in enumerate(_texts(behaviour)):
            if behaviour.error_after == at:
                yield _Event(encode(_openai_error_body(behaviour.error_status, "", behaviour)))
                return
            choices = _openai_choice({"content": text}, finish if behaviour.finish_at == "everywhere" else None)
            yield _Event(_damage(encode(_openai_chunk(behaviour, model, choices)), behaviour, at), is_text=True)
        if finish and behaviour.finish_at != "start":
            yield _Event(encode(_openai_chunk(behaviour, model, _openai_choice({}, finish))))
    if behaviour.has_usage and wants_usage:
        usage = _openai_usage(behaviour, len(_texts(behaviour)))
        yield _Event(encode(_openai_chunk(behaviour, model, [], usage=usage)))
    if behaviour.has_end_marker:
        yield _Event(b"[DONE]")


def _openai_complaint(body: Any) -> str | None:
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return "you must provide a model parameter"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: too short"
    if any(message.get("role") not in ("system", "user", "assistant", "developer") for message in messages):
        return "messages: unknown role"
    return None


_OPENAI_CODE = {
    400: "invalid_request_error",
    401: "invalid_api_key",
    404: "model_not_found",
    429: "insufficient_quota",
    503: "server_error",
}


def _openai_error(status: int, detail: str, behaviour: Behaviour) -> web.Response:
    headers = _redirect(status)
    if behaviour.retry_after is not None:
        headers["Retry-After"] = f"{behaviour.retry_after:g}"
    return _json_response(_openai_error_body(status, detail, behaviour), status=status, headers=headers)


def _openai_error_body(status: int, detail: str, behaviour: Behaviour) -> dict[str, Any]:
    code = "server_busy" if behaviour.is_load else _OPENAI_CODE.get(status, "server_error")
    message = f"{_message(status, behaviour)} {detail}".strip()
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


# --- both


def _redirect(status: int) -> dict[str, str]:
    """To an address that answers 200, so that whoever follows it notices."""
    return {"Location": "/control"} if 300 <= status < 400 else {}


def _message(status: int, behaviour: Behaviour) -> str:
    if status == 429:
        return "Too many requests at the moment, try again later." if behaviour.is_load else "You exceeded your quota."
    return {401: "Incorrect key.", 404: "The model is not found.", 503: "The model is overloaded."}.get(
        status, f"The request failed with {status}."
    )


def _finish_reason(wire: Wire, behaviour: Behaviour) -> str | None:
    if behaviour.finish_reason != NATURAL:
        return behaviour.finish_reason
    return "STOP" if wire == "gemini" else "stop"


def _whole(wire: Wire, behaviour: Behaviour, model: str) -> dict[str, Any]:
    """The answer as one object."""
    text = "".join(_texts(behaviour))
    finish = _finish_reason(wire, behaviour)
    if wire == "openai":
        if behaviour.block_reason is not None:
            finish, text = "content_filter", ""
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": finish}] if behaviour.has_candidates else []
        usage = {"usage": _openai_usage(behaviour, len(_texts(behaviour)))} if behaviour.has_usage else {}
        return {**_openai_chunk(behaviour, model, choices, **usage), "object": "chat.completion"}
    if behaviour.block_reason is not None:
        feedback = {"promptFeedback": {"blockReason": behaviour.block_reason}}
        return {**feedback, **_gemini_chunk(behaviour, model, output=0)}
    ending = {"finishReason": finish} if finish else {}
    return _gemini_chunk(behaviour, model, output=len(_texts(behaviour)), content=_gemini_content(text), **ending)


def _json_response(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")


# --- as a program


async def _serve(host: str, port: int, key: str, default: Behaviour) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with FakeModelServer(host=host, port=port, key=key) as server:
        server.default = default
        addresses = {
            "base_url": server.base_url,
            "base_url_gemini": server.base_url_gemini,
            "base_url_openai": server.base_url_openai,
        }
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake model vendor on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="", help="the only key that is accepted; empty accepts everybody")
    parser.add_argument("--default", default="{}", help="the default behaviour, as JSON")
    options = parser.parse_args()
    default = msgspec.json.decode(options.default, type=Behaviour)
    asyncio.run(_serve(options.host, options.port, options.key, default))


if __name__ == "__main__":
    main()
