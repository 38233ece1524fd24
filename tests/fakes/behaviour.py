"""How a fake vendor is told to behave, and what it remembers."""

from typing import Any, Literal

import msgspec

PROMPT_TOKENS = 11
CACHED_TOKENS = 3
NATURAL = "natural"

Wire = Literal["gemini", "openai", "replicate"]


Kind = Literal["chat", "structured", "transcription", "picture"]
Prediction = Literal["succeeded", "failed", "nsfw", "canceled", "aborted", "stuck"]
# natural: as the vendor's model does. lying: no picture behind the type of one. huge: says that it is too long.
# endless: does not say so.
Output = Literal["natural", "url", "data", "missing", "lying", "huge", "endless", "cut", "redirect", "gone"]


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
    is_held: bool = False  # each event waits until control releases it

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

    # Media. `picture_status`: the answer to whoever shows pictures, of a model that takes none.
    picture_status: int | None = None
    # The same for whoever asks for JSON of a schema, of a server that knows no schemas.
    schema_status: int | None = None
    transcript: str = "Hello, this is a voice message."  # the answer to a recording, on every wire

    # A picture: how a prediction ends and after how many looks; what stands where the picture should be.
    prediction: Prediction = "succeeded"
    polls: int = 1
    failing_polls: int = 0  # looks that are answered with 503 first
    output: Output = "natural"
    output_url: str | None = None


class Media(msgspec.Struct, frozen=True):
    mime_type: str
    size: int
    sha256: str  # in hexadecimal


class Received(msgspec.Struct):
    """One request as it came in."""

    wire: Wire
    model: str
    target: str  # path and query, undecoded
    peer: str  # the client's end of the connection
    headers: dict[str, str]  # names in lower case
    body: Any  # of a form its fields; strings of more than 64 KiB are cut
    media: list[Media] = []  # what came inside the body, in its order
