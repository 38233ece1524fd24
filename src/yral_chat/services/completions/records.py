"""What a caller asks for, and what an answer is made of."""

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

import msgspec

from yral_chat.clients.language_model import Usage

FinishReason = Literal["stop", "length", "content_filter"]
LineRole = Literal["system", "developer", "user", "assistant"]


class Line(msgspec.Struct, frozen=True):
    """One message of the caller's, trimmed."""

    role: LineRole
    text: str


class Wish(msgspec.Struct, frozen=True):
    """What a caller asks for. `model` is an influencer's id or name; the last line is the user's and not empty."""

    model: str
    lines: tuple[Line, ...]
    temperature: float | None = None
    max_tokens: int | None = None


class Finish(msgspec.Struct, frozen=True):
    """How an answer ended, and the tokens that the vendor bills for it."""

    reason: FinishReason
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of(cls, usage: Usage, *, is_truncated: bool) -> "Finish":
        """OpenAI counts the tokens of thinking among those of the completion."""
        return cls("length" if is_truncated else "stop", usage.prompt, usage.output + usage.thinking)


class Answer(Protocol):
    """An answer that is being given. `created` in seconds since the epoch; `metadata` names what was stored."""

    id: str
    created: int
    model: str
    metadata: dict[str, str] | None
    is_replay: bool

    async def whole(self, seconds: float) -> tuple[str, Finish]:
        """The whole text. Raises the refusal that a failure means, also when it takes longer than `seconds`."""
        ...

    def pieces(self) -> AsyncGenerator[str | Finish]:
        """The text as it comes, then one `Finish`; "" says that it goes on. Raises as `whole`."""
        ...

    def received(self) -> None:
        """The caller has the answer."""
        ...
