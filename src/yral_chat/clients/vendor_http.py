"""One streamed conversation over HTTP with a model vendor: connections, time limits, typed failures.

Gemini and the OpenAI-compatible vendors differ in what they are sent and in how one event is read; everything
else is here, once.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from yral_chat.clients.language_model import (
    CallRecord,
    Completion,
    Delta,
    ModelCall,
    ModelFailure,
    ModelMessage,
    ModelRequest,
    Outcome,
    Picture,
    Recording,
    Usage,
)
from yral_chat.clients.request_body import JsonBody
from yral_chat.clients.resilience import seconds_left
from yral_chat.clients.sse import MAX_EVENT_BYTES, EventParser, EventTooLarge
from yral_chat.clients.token_counts import estimated, size_of
from yral_chat.core.decoding import decode
from yral_chat.core.tracing import Span, trace_headers

# A vendor that has sent nothing for so long is asked no further: clients give up at 30 s, and the next model of
# the chain needs its part of that.
SILENCE_SECONDS = 20.0
CONNECT_SECONDS = 5.0
# For the end of a body after its last event; a new connection costs less than to wait longer.
END_SECONDS = 0.1
# Streams are long-lived and mostly idle, so the pool is as large as the streams one process may hold.
MAX_CONNECTIONS = 1024
MAX_ERROR_BYTES = 64 * 1024

# Stands for a finish or block reason that is newer than our lists. The vendor's own text is not passed on.
UNRECOGNISED = "unrecognised"

# Stands before an answer that opens the window of history: Gemini, and the chat templates of many open models,
# refuse a conversation that does not begin with the user.
OPENING = "…"

# https://platform.openai.com/docs/guides/error-codes
_STATUS_OF_WORD = {
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
}

# A server that runs a model without eyes and blames itself: llama.cpp answers 500 with these words.
_NO_PICTURES = re.compile(rb"image input is not supported|does not support image", re.IGNORECASE)
_LOAD = re.compile(rb"overload|capacity|try again later|high demand|server_busy", re.IGNORECASE)
_QUOTA = re.compile(rb"quota|billing|credit", re.IGNORECASE)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?")


class VendorHttp:
    """The connections to the vendors: one session, opened when it is first needed, one limit for all who share it."""

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


# What a message consists of for a vendor.
Part = str | Picture | Recording


class Call(msgspec.Struct, frozen=True):
    """What one request to a vendor consists of."""

    provider: str
    model: str
    url: str
    headers: dict[str, str]
    body: JsonBody
    timeout_seconds: float  # for the whole call
    silence_seconds: float = SILENCE_SECONDS
    end_marker: bytes | None = None  # the event after which nothing comes


class Chunk(msgspec.Struct):
    """What one event says."""

    text: str = ""
    outcome: Outcome | None = None  # how the answer ended, when this event tells
    finish_reason: str = ""
    usage: Usage | None = None
    model: str | None = None
    failure: ModelFailure | None = None


async def stream_answer(
    http: VendorHttp, call: Call, request: ModelRequest, calls: list[ModelCall], read: Callable[[bytes], Chunk]
) -> AsyncIterator[Delta | Completion]:
    """Sends `call` and turns its events into deltas and one completion. `read` decodes one event.

    Raises ModelFailure in every other case, also when the stream just ends.
    """
    if seconds_left(request.deadline) <= 0:
        raise ModelFailure("timeout", "no time left", is_outage=False)
    with CallRecord(calls, call.provider, call.model) as record:
        answer = _Answer()
        try:
            async with aclosing(_events(http, call, request, record.span)) as packets:
                try:
                    async for events in packets:
                        for event in events:
                            if text := answer.take(read(event), record):
                                yield Delta(text)
                except (msgspec.DecodeError, ModelFailure) as error:
                    # After its end nothing that happens to the connection changes an answer; only usage may be missing.
                    if not answer.has_ended or error is answer.failure:
                        raise _typed(error) from error
        finally:
            if answer.is_untold:
                record.call.usage = estimated(request, answer.size)
                record.call.is_estimated = True
        outcome = answer.conclude()
        record.close(outcome)
        yield Completion(
            outcome=outcome,
            finish_reason=answer.finish_reason,
            usage=record.call.usage,
            provider=call.provider,
            model=record.call.model,
        )


def _typed(error: Exception) -> ModelFailure:
    if isinstance(error, ModelFailure):
        return error
    return ModelFailure("unreachable", "unreadable event in the stream")


class _Answer:
    """What is known of an answer while it streams in."""

    __slots__ = ("_blank", "_has_events", "_has_text", "_has_usage", "_outcome", "failure", "finish_reason", "size")

    def __init__(self) -> None:
        self._has_events = False
        self._has_usage = False
        self.size = 0  # bytes of text that arrived
        self._has_text = False
        self._blank = ""  # white space that came before any word: without a word it is no answer
        self._outcome: Outcome | None = None
        self.finish_reason = ""
        self.failure: ModelFailure | None = None  # that the vendor announced in the stream

    @property
    def has_ended(self) -> bool:
        return self._outcome == "blocked" or (self._has_text and self._outcome is not None)

    @property
    def is_untold(self) -> bool:
        """It has begun, and what it costs was not said. A failure that comes first is no beginning."""
        return self._has_events and not self._has_usage

    def take(self, chunk: Chunk, record: CallRecord) -> str:
        """The text of `chunk`. Raises its failure."""
        if chunk.usage is not None:
            record.call.usage = chunk.usage
            self._has_usage = True
        if chunk.model:
            record.call.model = chunk.model
        if chunk.failure is not None:
            self.failure = chunk.failure
            raise chunk.failure
        self._has_events = True
        self.size += size_of(chunk.text)
        if chunk.outcome is not None:
            self._outcome, self.finish_reason = chunk.outcome, chunk.finish_reason
        elif chunk.text and self._outcome != "blocked":
            # Some gateways send a finish reason with every event: only the one after the last text counts.
            self._outcome = None
        if self._has_text or not chunk.text:
            return chunk.text
        text = self._blank + chunk.text
        if text.isspace():
            self._blank = text
            return ""
        self._has_text = True
        record.token()
        return text

    def conclude(self) -> Outcome:
        """`completed` or `truncated`; everything else is a failure."""
        if self._outcome is None:
            if self._has_text:
                raise ModelFailure("unreachable", "the stream ended without a finish reason")
            if self._has_events:
                raise ModelFailure("empty", "no text and no finish reason")
            raise ModelFailure("unreachable", "the stream held no event")
        if self._outcome == "empty" and self._has_text:
            return "truncated"
        if self._outcome not in ("completed", "truncated"):
            raise ModelFailure(self._outcome, f"finish reason {self.finish_reason}")
        if self._has_text:
            return self._outcome
        if self._outcome == "truncated":
            raise ModelFailure("truncated", "the output limit was reached before any text")
        raise ModelFailure("empty", f"no text, finish reason {self.finish_reason}")


async def _events(http: VendorHttp, call: Call, request: ModelRequest, span: Span) -> AsyncGenerator[list[bytes], None]:
    """The data of the events of each packet. Raises ModelFailure; nothing of aiohttp's gets out."""
    left = seconds_left(request.deadline)
    timeout = time_limits(min(call.timeout_seconds, left), call.silence_seconds)
    # A vendor is not to blame when we gave it less time than we usually do.
    with typed_failures(is_our_haste=left < min(call.timeout_seconds, call.silence_seconds)):
        # No redirects: the key would follow to wherever they lead.
        async with http.session.post(
            call.url,
            data=call.body.content(),
            headers={**call.headers, **call.body.headers, **trace_headers(span)},
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise failure_of_status(response.status, await read_error(response), response.headers)
            if response.content_type == "application/json":
                # A server that does not stream answers with one object.
                yield [await read_whole(response, MAX_EVENT_BYTES)]
                return
            parser = EventParser()
            async for packet in response.content.iter_any():
                if not (events := parser.feed(packet)):
                    continue
                if call.end_marker is None or call.end_marker not in events:
                    yield events
                    continue
                await _read_to_end(response.content)
                yield events[: events.index(call.end_marker)]
                return
            if events := parser.flush():
                yield [event for event in events if event != call.end_marker]


def time_limits(total: float, silence: float) -> aiohttp.ClientTimeout:
    """Seconds for everything, and between two packets."""
    return aiohttp.ClientTimeout(
        total=total,
        connect=CONNECT_SECONDS,
        sock_read=silence,
        ceil_threshold=float("inf"),  # do not round up to whole seconds
    )


@contextmanager
def typed_failures(*, is_our_haste: bool) -> Iterator[None]:
    """Turns what can happen to a connection into ModelFailure."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise ModelFailure("unreachable", "no connection in time") from error
    except TimeoutError as error:
        raise ModelFailure("timeout", "no byte or no end in time", is_outage=not is_our_haste) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ModelFailure("unreachable", "the connection failed or was cut") from error
    except EventTooLarge as error:
        raise ModelFailure("unreachable", "an event beyond the size limit") from error


async def _read_to_end(content: aiohttp.StreamReader) -> None:
    """Lets the connection be used again; a server that keeps it open without a word is not waited for."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(END_SECONDS):
            while await content.readany():
                pass


async def read_whole(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body. Raises EventTooLarge as soon as it is longer than it may be, or says that it will be."""
    body = bytearray()
    if (response.content_length or 0) > max_bytes:
        raise EventTooLarge("an answer beyond the size limit")
    async for packet in response.content.iter_any():
        body += packet
        if len(body) > max_bytes:
            raise EventTooLarge("an answer beyond the size limit")
    return bytes(body)


async def read_error(response: aiohttp.ClientResponse) -> bytes:
    """As much of an error's body as helps to classify it; a body that fails does not hide the status."""
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(2):
            async for packet in response.content.iter_any():
                body += packet
                if len(body) > MAX_ERROR_BYTES:
                    break
    return bytes(body)


def failure_of_status(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> ModelFailure:
    """The typed failure for an error answer, or for an error object inside a stream.

    The vendor's words serve to classify and never leave this function: they may quote the prompt or the key.
    """
    error = _error_object(body)
    reason = f"HTTP {status}"
    retry_after = _retry_delay(error)
    if retry_after is None and headers is not None:
        retry_after = _retry_after_header(headers)
    if _is_refusal_of_content(error):
        return ModelFailure("blocked", f"{reason}, content refused")
    if status == 429:
        # Both are 429: too much in a minute or a day, and a vendor that is itself out of capacity.
        is_load = _LOAD.search(body) is not None and _QUOTA.search(body) is None
        return ModelFailure("overloaded" if is_load else "quota", reason, retry_after=retry_after)
    if status == 402:
        return ModelFailure("quota", f"{reason}, no credit left", retry_after=retry_after)
    if status in (404, 410):
        return ModelFailure("model_gone", reason)
    if status == 408:
        return ModelFailure("timeout", reason, retry_after=retry_after)
    if status >= 500 and _NO_PICTURES.search(body):
        return ModelFailure("rejected", f"{reason}, pictures refused")
    if status >= 500 or status in (409, 425):
        return ModelFailure("overloaded", reason, retry_after=retry_after)
    # Gemini answers a wrong key with 400: https://ai.google.dev/gemini-api/docs/troubleshooting
    is_key_refused = status in (401, 403) or b"API_KEY_INVALID" in body
    return ModelFailure("rejected", f"{reason}, key refused" if is_key_refused else reason, is_outage=is_key_refused)


def failure_in_stream(error: Any, event: bytes) -> ModelFailure:
    """The typed failure for an error object inside a stream that began with 200. `error` is what stands under
    `error`: an object whose code is a status or a word, or just a text."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str):
        code = int(code) if code.isdecimal() else _STATUS_OF_WORD.get(code)
    return failure_of_status(code if isinstance(code, int) and 400 <= code <= 599 else 500, event)


def _error_object(body: bytes) -> dict[str, Any]:
    """The object under `error`, also inside Google's list of one; {} when there is none."""
    try:
        decoded = decode(body, object)
    except msgspec.DecodeError:
        return {}
    if isinstance(decoded, list) and decoded:
        decoded = decoded[0]
    error = decoded.get("error", decoded) if isinstance(decoded, dict) else {}
    return error if isinstance(error, dict) else {}


def _is_refusal_of_content(error: dict[str, Any]) -> bool:
    """Azure and OpenAI say it with a code, OpenRouter with the moderation's reasons."""
    if error.get("code") in ("content_filter", "content_policy_violation", "moderation_blocked"):
        return True
    metadata = error.get("metadata")
    return isinstance(metadata, dict) and "flagged_input" in metadata


def _retry_delay(error: dict[str, Any]) -> float | None:
    """google.rpc.RetryInfo: `{"@type": "…RetryInfo", "retryDelay": "13.5s"}` among the details."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(delay := detail.get("retryDelay"), str):
            return _seconds(delay)
    return None


def _retry_after_header(headers: Mapping[str, str]) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3); OpenAI's milliseconds are more exact and come first."""
    if (milliseconds := _seconds(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After", "")
    if (seconds := _seconds(value)) is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _seconds(text: str) -> float | None:
    match = _SECONDS.fullmatch(text.strip())
    return float(match[1]) if match else None


def alternating(messages: tuple[ModelMessage, ...]) -> list[tuple[str, list[Part]]]:
    """The conversation as (role, parts) with the roles taking turns, beginning with the user, no text empty."""
    turns: list[tuple[str, list[Part]]] = []
    for message in messages:
        parts: list[Part] = [*message.recordings, *message.pictures, *([message.text] if message.text else [])]
        if not parts:
            continue
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(parts)
        else:
            turns.append((message.role, parts))
    if turns and turns[0][0] == "assistant":
        turns.insert(0, ("user", [OPENING]))
    return turns


def common_headers(request: ModelRequest) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",  # compression would hold events back
        "User-Agent": "yral-chat",
    }
    if request.correlation_id:
        headers["X-Correlation-ID"] = request.correlation_id
    return headers
