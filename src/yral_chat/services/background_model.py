"""A language model for work behind the turns, counted like a turn's calls."""

from yral_chat.clients.language_model import LanguageModel, ModelCall, ModelFailure, ModelRequest
from yral_chat.core.metrics import Metrics
from yral_chat.services.structured_answers import ask_text
from yral_chat.services.turns.engine import count_tokens

# A failure that is this request's own: another try would end the same way.
_FINAL = frozenset({"blocked", "rejected", "empty", "truncated"})


class BackgroundModel:
    """`is_offline`: there is no vendor, and whatever a model would do here is done without one."""

    def __init__(self, model: LanguageModel, metrics: Metrics, *, is_offline: bool) -> None:
        self._model = model
        self._metrics = metrics
        self.is_offline = is_offline

    async def answer(self, request: ModelRequest, calls: list[ModelCall]) -> str:
        """The whole answer, trimmed. Raises ModelFailure; `calls` holds what it has cost, either way."""
        try:
            return await ask_text(self._model, request, calls)
        finally:
            count_tokens(self._metrics, calls)


def is_final(failure: ModelFailure) -> bool:
    """Whether trying again later is of no use."""
    return failure.outcome in _FINAL and not failure.is_outage
