"""The circuits of a process: made from the settings, and what happens to them told to operators."""

import time

import aiohttp

from yral_chat.clients.resilience import CircuitBreaker, Clock, Reason, Transition
from yral_chat.core.config import Settings
from yral_chat.core.logging import log
from yral_chat.core.metrics import Metrics

# As the contract has it for `circuit_breaker_state`.
_LEVELS = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


def build_breaker(settings: Settings, name: str, clock: Clock = time.monotonic) -> CircuitBreaker:
    """A closed circuit of its own; `name` is the service as operators see it."""
    return CircuitBreaker(
        name, failures=settings.breaker_failures, open_seconds=settings.breaker_open_seconds, clock=clock
    )


class BadStatus(ValueError):
    """An answer that is no success. Its text is fixed words and the status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def reason_of(error: Exception) -> Reason:
    """What a failed HTTP exchange says of the other side."""
    if isinstance(error, BadStatus | aiohttp.ClientResponseError):
        return "overloaded" if error.status >= 500 or error.status == 429 else "rejected"
    if isinstance(error, aiohttp.ConnectionTimeoutError):  # which is a TimeoutError, too
        return "unreachable"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "unreachable" if isinstance(error, aiohttp.ClientConnectionError | OSError) else "unusable"


def watch_circuit(breaker: CircuitBreaker, metrics: Metrics) -> None:
    """From now on its state is a series, and each change of it a log line and a count."""

    def tell(transition: Transition) -> None:
        metrics.circuit_changed(transition.service, transition.to)
        fields = {
            "service": transition.service,
            "reason": transition.reason,
            "open_seconds": round(transition.open_seconds, 1),
        }
        if transition.to == "open":
            log.warning("circuit.opened", **fields)
        elif transition.to == "half_open":
            log.info("circuit.half_opened", **fields)
        else:
            log.info("circuit.closed", **fields)

    metrics.watch_circuit(breaker.name, lambda: _LEVELS[breaker.state])
    breaker.listen(tell)
