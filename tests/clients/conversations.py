"""Requests to models, and what came of them."""

import time

import msgspec

from yral_chat.clients.language_model import (
    Completion,
    Delta,
    LanguageModel,
    ModelCall,
    ModelFailure,
    ModelMessage,
    ModelRequest,
    Persona,
    closing_stream,
)

ASHA = Persona(id="asha", display_name="Asha", category="fitness")


def conversation(
    *texts: str,
    system: str = "You are Asha.",
    persona: Persona = ASHA,
    seconds: float = 120,
    first: str = "user",
    correlation_id: str = "",
) -> ModelRequest:
    """A request whose messages take turns, beginning with `first`; the deadline is `seconds` from now."""
    texts = texts or ("Hello!",)
    messages: list[ModelMessage] = []
    for at, text in enumerate(texts):
        is_user = (at % 2 == 0) == (first == "user")
        messages.append(ModelMessage("user" if is_user else "assistant", text))
    return ModelRequest(
        system=system,
        messages=tuple(messages),
        persona=persona,
        deadline=time.monotonic() + seconds,
        correlation_id=correlation_id,
    )


class Heard(msgspec.Struct):
    """Everything that one call to a model gave."""

    deltas: list[str] = []
    completion: Completion | None = None
    failure: ModelFailure | None = None
    calls: list[ModelCall] = []

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def outcome(self) -> str:
        if self.failure is not None:
            return self.failure.outcome
        assert self.completion is not None
        return self.completion.outcome


async def listen(model: LanguageModel, request: ModelRequest | None = None) -> Heard:
    """Listens to the end, and holds the stream to its promise: deltas with text, then one completion, or a failure."""
    heard = Heard()
    try:
        async with closing_stream(model.stream(request or conversation(), heard.calls)) as answer:
            async for item in answer:
                assert heard.completion is None, "something came after the completion"
                if isinstance(item, Delta):
                    assert item.text, "a delta without text"
                    heard.deltas.append(item.text)
                else:
                    heard.completion = item
    except ModelFailure as failure:
        heard.failure = failure
    assert (heard.completion is None) != (heard.failure is None), "neither a completion nor a failure, or both"
    for call in heard.calls:
        assert call.outcome is not None, "a call that was not closed"
        assert call.duration_seconds is not None
    return heard
