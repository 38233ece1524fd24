"""Speech to text: Gemini, or an OpenAI-compatible transcription endpoint."""

from typing import Protocol

from yral_chat.clients.language_model import ModelCall
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.core.config import Settings


class Transcriber(Protocol):
    """Writes down what is said in a recording."""

    provider: str

    async def transcribe(
        self, audio: bytes, mime_type: str, *, deadline: float, correlation_id: str, calls: list[ModelCall]
    ) -> str:
        """The words, in the language spoken, at most MAX_TRANSCRIPT_CHARACTERS; "" when nobody speaks.

        `deadline` is a `time.monotonic()` value. Every vendor call is appended to `calls` and closed whatever happens.
        Raises ModelFailure.
        """
        ...

    def circuits(self) -> dict[str, CircuitBreaker]:
        """model → circuit, in the order in which they are asked: the best one stands for the provider."""
        ...

    async def close(self) -> None: ...


def build_transcriber(settings: Settings) -> Transcriber | None:
    """OPENAI_TRANSCRIPTION_MODEL when it is set, else Gemini when there is a key for it, else None."""
    raise NotImplementedError
