"""When a vendor is asked again, and what a failure says about its circuit: one copy for models of every kind."""

import random

from yral_chat.clients.language_model import TRANSIENT_OUTCOMES, ModelFailure, Outcome
from yral_chat.clients.resilience import Admission, Backoff, Random, Reason

# The same model is asked again at most so often, and only before the first token.
MAX_RETRIES = 2
# Somebody is waiting: a vendor that wants more than this is left for the next model.
PATIENCE_SECONDS = 3.0
_REASONS: dict[Outcome, Reason] = {
    "timeout": "timeout",
    "overloaded": "overloaded",
    "unreachable": "unreachable",
    "rejected": "rejected",
    "model_gone": "gone",
}


def wait_before_retry(
    failure: ModelFailure, attempt: int, backoff: Backoff, draw: Random = random.random
) -> float | None:
    """Seconds until the same model is asked again after failed attempt `attempt` (from 0); None when it is not."""
    if failure.outcome not in TRANSIENT_OUTCOMES or attempt >= MAX_RETRIES:
        return None
    wait = backoff.delay(attempt, draw)
    if failure.retry_after is None:
        return wait
    return max(wait, failure.retry_after) if failure.retry_after <= PATIENCE_SECONDS else None


def settle(admission: Admission, failure: ModelFailure) -> None:
    """What a failed call says about the circuit. An empty answer or a used-up quota says nothing."""
    if failure.is_outage:
        admission.fail(_REASONS.get(failure.outcome, "unusable"))
    elif failure.outcome in ("blocked", "truncated"):
        admission.succeed()  # not what we wanted, but an answer
