"""What the product asks of a language model, and what it may answer.

A model call is one stream: `Delta`s, then exactly one `Completion`; or a `ModelFailure` is raised.
There is no third way out: a stream that just ends, an empty answer or an unreadable one is a failure
with its own outcome, never an empty string.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import msgspec

from yral_chat.core import clock, tracing

Outcome = Literal[
    "completed",  # finished by itself, with text
    "truncated",  # stopped at the output limit; with text it is an answer, without text it is a failure
    "blocked",  # refused by the vendor's safety layer, prompt or answer
    "empty",  # finished without any text
    "timeout",  # no byte or no end in time
    "overloaded",  # 5xx, or 429 that speaks of load
    "quota",  # 429: the key's quota is used up
    "model_gone",  # 404, or 410: the vendor retired or never had the model
    "rejected",  # 400, 401, 403: our request or key is wrong; repeating it cannot help
    "unreachable",  # no connection, cut or unreadable stream
    "cancelled",  # we closed the call
]

# What a call is for.
Operation = Literal["chat", "transcription", "image_generation"]

# A failure with one of these may succeed when the same model is asked again.
TRANSIENT_OUTCOMES: frozenset[Outcome] = frozenset({"empty", "timeout", "overloaded", "quota", "unreachable"})

# A failure with one of these would have met every other request too: it counts against the circuit.
OUTAGE_OUTCOMES: frozenset[Outcome] = frozenset({"timeout", "overloaded", "unreachable", "model_gone"})

# Stands for a picture where a model takes none.
PICTURE_IN_WORDS = "[image]"
# What a model is given of a voice message that nobody wrote down (contract section 8.6).
RECORDING_IN_WORDS = "[Voice message, not transcribed]"


class Usage(msgspec.Struct, frozen=True):
    """Tokens and pictures as the vendor bills them; 0 where the vendor does not say.

    `prompt` includes `cached`; `output` excludes `thinking`.
    """

    prompt: int = 0
    cached: int = 0
    output: int = 0
    thinking: int = 0
    pictures: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.output + self.thinking


class Picture(msgspec.Struct, frozen=True):
    """An encoded image, as small as it may be: it travels with every request of which it is a part."""

    mime_type: str  # image/jpeg, image/png, image/webp
    data: bytes


class Recording(msgspec.Struct, frozen=True):
    """Speech as it was uploaded. Only Gemini and the transcription endpoints take it."""

    mime_type: str
    data: bytes


class ModelMessage(msgspec.Struct, frozen=True):
    """What one side said. Recordings and pictures stand before the text; either may be all there is."""

    role: Literal["user", "assistant"]
    text: str
    pictures: tuple[Picture, ...] = ()
    recordings: tuple[Recording, ...] = ()

    def without_pictures(self) -> "ModelMessage":
        if not self.pictures:
            return self
        lines = [PICTURE_IN_WORDS] * len(self.pictures) + ([self.text] if self.text else [])
        return msgspec.structs.replace(self, text="\n".join(lines), pictures=())


class Persona(msgspec.Struct, frozen=True):
    """The public side of a persona: what a model without a vendor needs to answer in its manner."""

    id: str
    display_name: str
    category: str = ""
    greeting: str = ""
    suggested_messages: tuple[str, ...] = ()
    traits: dict[str, str] = {}
    is_nsfw: bool = False


class ModelRequest(msgspec.Struct, frozen=True):
    """`system` is the byte-stable prefix; `messages` alternate freely and end with a user message.

    `deadline` is a `time.monotonic()` value in seconds: no attempt, wait or read goes past it.
    `schema` asks for JSON of this JSON Schema instead of prose. Every object in it says `additionalProperties: false`
    and requires all its properties, as OpenAI's strict mode wants it. It is a wish: a model that refuses it is asked
    without, so that the prompt describes the answer too, and whoever reads the answer checks it.
    """

    system: str
    messages: tuple[ModelMessage, ...]
    persona: Persona
    deadline: float
    temperature: float = 0.7
    max_output_tokens: int = 2048
    correlation_id: str = ""
    attempt: int = 1  # of this reply: a model without chance in it answers otherwise the next time
    schema: dict[str, Any] | None = None

    @property
    def has_pictures(self) -> bool:
        return any(message.pictures for message in self.messages)

    def without_pictures(self) -> "ModelRequest":
        """The same request for a model that takes none: a short text stands for each picture. `system` stays."""
        messages = tuple(message.without_pictures() for message in self.messages)
        return msgspec.structs.replace(self, messages=messages)


class Delta(msgspec.Struct, frozen=True):
    """A non-empty piece of the answer, in order; whole code points."""

    text: str


class Completion(msgspec.Struct, frozen=True):
    """The end of an answer that has text. `outcome` is `completed` or `truncated`."""

    outcome: Outcome
    finish_reason: str
    usage: Usage
    provider: str
    model: str


class ModelFailure(Exception):
    """The call gave no usable answer. `reason` is for logs and the operator, never for the person who chats.

    `is_outage` says whether the failure speaks of the vendor or of the key rather than of this one request; it
    follows from the outcome unless the client knows better (a refused key is `rejected` and an outage).
    """

    def __init__(
        self, outcome: Outcome, reason: str, *, retry_after: float | None = None, is_outage: bool | None = None
    ) -> None:
        super().__init__(f"{outcome}: {reason}")
        self.outcome: Outcome = outcome
        self.reason = reason
        self.retry_after = retry_after  # seconds the vendor asked us to wait
        self.is_outage = outcome in OUTAGE_OUTCOMES if is_outage is None else is_outage


class NoUsableModel(ModelFailure):
    """Nobody was asked: nothing is configured, or every circuit is open. `retry_after` is the earliest next probe."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__("unreachable", reason, retry_after=retry_after)


class ModelCall(msgspec.Struct):
    """One call to one vendor, for the usage record: opened before the request leaves, always closed.

    Times in seconds. `outcome` is None while the call runs. `model` is the one that was asked until the vendor
    names the one that answers: that is the one it bills. `is_estimated`: the vendor began to answer and did not get to
    say what it bills (an OpenAI stream says that last).
    """

    provider: str
    model: str
    started_at: int  # microseconds since the epoch
    outcome: Outcome | None = None
    usage: Usage = Usage()
    is_estimated: bool = False
    first_token_seconds: float | None = None
    duration_seconds: float | None = None


class CallRecord:
    """Opens a `ModelCall` and its span, and closes both on the way out, whatever that way is.

    >>> with CallRecord(calls, "gemini", "gemini-2.5-flash") as record:
    ...     record.token()
    ...     record.close("completed")
    """

    __slots__ = ("_started", "call", "span")

    def __init__(self, calls: list[ModelCall], provider: str, model: str, operation: Operation = "chat") -> None:
        self.call = ModelCall(provider=provider, model=model, started_at=clock.now())
        self._started = time.monotonic()
        # Not the current place, because a stream shares that with whoever reads it: requests are told of it.
        self.span = tracing.start(f"{operation} {model}", "client", attributes=_asked(provider, model, operation))
        calls.append(self.call)

    def token(self) -> None:
        """The first text is here; later ones change nothing."""
        if self.call.first_token_seconds is None:
            self.call.first_token_seconds = time.monotonic() - self._started

    def close(self, outcome: Outcome) -> None:
        """The first outcome stands: a consumer that leaves after the end does not make the call a cancelled one."""
        if self.call.outcome is None:
            self.call.outcome = outcome
            self.call.duration_seconds = time.monotonic() - self._started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ModelFailure):
            self.close(error.outcome)
        elif error is None or isinstance(error, (GeneratorExit, asyncio.CancelledError)):
            self.close("cancelled")
        else:
            # A mistake of ours rises to the handler of last resort; the record must not stay open for ever.
            self.close("unreachable")
        if self.span.context is not None:
            self.span.set(_answered(self.call))
            if self.call.outcome not in ("completed", "truncated", "cancelled"):
                self.span.fail(str(self.call.outcome))
            self.span.end()


def _asked(provider: str, model: str, operation: Operation) -> dict[str, tracing.Value]:
    """https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ without any content."""
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "gcp.gemini" if provider == "gemini" else provider,
        "gen_ai.request.model": model,
    }


def _answered(call: ModelCall) -> dict[str, tracing.Value]:
    return {
        "gen_ai.response.model": call.model,
        "gen_ai.usage.input_tokens": call.usage.prompt,
        "gen_ai.usage.cache_read.input_tokens": call.usage.cached,
        "gen_ai.usage.output_tokens": call.usage.output,
        "gen_ai.usage.reasoning.output_tokens": call.usage.thinking,
        "gen_ai.response.time_to_first_chunk": call.first_token_seconds,
        "yral.outcome": call.outcome,
    }


@asynccontextmanager
async def closing_stream(
    stream: AsyncIterator[Delta | Completion],
) -> AsyncIterator[AsyncIterator[Delta | Completion]]:
    """Ends the vendor call at once when the block is left early, instead of whenever the garbage is collected."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


class LanguageModel(Protocol):
    """A model, or a chain of them."""

    def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        """Yields deltas, then one `Completion`; raises `ModelFailure`.

        Every vendor call is appended to `calls` when it opens and closed whatever happens, also when the
        consumer closes the iterator in mid-stream (outcome `cancelled`).
        """
        ...

    async def close(self) -> None: ...
