"""What models do not take, pictures and schemas: learned from their answers, because no vendor's list of models says it
reliably."""

import msgspec

from yral_chat.clients.language_model import ModelFailure, ModelRequest
from yral_chat.clients.resilience import Clock

# A model that refused pictures is shown none for so long; then it may have been replaced by one that takes them.
BLIND_SECONDS = 600.0


class Sight:
    """What one model's answers have told. A model that has taken pictures before and refuses some met a bad one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._has_seen = False
        self._blind_until: float | None = None

    @property
    def is_blind(self) -> bool:
        return self._blind_until is not None and self._clock() < self._blind_until

    def took_pictures(self) -> None:
        self._has_seen = True
        self._blind_until = None

    def did_without(self) -> None:
        """It refused pictures, and answered the same request without them."""
        if not self._has_seen:
            self._blind_until = self._clock() + BLIND_SECONDS


class Showing:
    """One request on its way to one model: `request` is what to send; what is refused of it is left out the next
    time."""

    def __init__(self, request: ModelRequest, sight: Sight) -> None:
        self._sight = sight
        self._shows = request.has_pictures and not sight.is_blind
        self._was_refused = False
        self.request = request if self._shows else request.without_pictures()

    def answered(self) -> None:
        if self._shows:
            self._sight.took_pictures()
        elif self._was_refused:
            self._sight.did_without()

    def gives_way_to(self, failure: ModelFailure) -> bool:
        """Whether it is worth asking at once again: pictures or a schema were sent, and may be what was refused.

        Also 404: OpenRouter answers so when no endpoint of a model takes them. A refused key has other reasons.
        """
        is_refusal = failure.outcome == "model_gone" or (failure.outcome == "rejected" and not failure.is_outage)
        if not is_refusal:
            return False
        if self._shows:
            self._shows = False
            self._was_refused = True
            self.request = self.request.without_pictures()
            return True
        if self.request.schema is not None:
            self.request = msgspec.structs.replace(self.request, schema=None)
            return True
        return False
