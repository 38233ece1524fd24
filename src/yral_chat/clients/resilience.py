"""Circuit breaker, backoff and deadlines: one copy for every client."""

import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

import msgspec

CircuitState = Literal["closed", "open", "half_open"]
# Why a call failed, in words that operators may see anywhere: nothing that the other side said is among them.
Reason = Literal["timeout", "unreachable", "overloaded", "rejected", "gone", "unusable"]

# No circuit stays open for longer without a probe.
MAX_OPEN_SECONDS = 600.0

Clock = Callable[[], float]
Random = Callable[[], float]  # uniform in [0, 1)


def seconds_left(deadline: float, clock: Clock = time.monotonic) -> float:
    """Seconds until `deadline`, never negative."""
    return max(0.0, deadline - clock())


class Backoff(msgspec.Struct, frozen=True):
    """Exponential, with "equal jitter": at least half of the step, so that a retry is never immediate.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    first_seconds: float = 0.25
    factor: float = 2.0
    max_seconds: float = 4.0

    def delay(self, attempt: int, draw: Random = random.random) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 0)."""
        step = min(self.max_seconds, self.first_seconds * self.factor**attempt)
        return step * (0.5 + draw() / 2)


class Transition(msgspec.Struct, frozen=True):
    """A circuit has changed. `reason` is why it opened, None when it closed; `open_seconds` is for how long it stays
    open, or was to stay, and 0 when it closed."""

    service: str
    to: CircuitState
    reason: Reason | None = None
    open_seconds: float = 0.0


Listener = Callable[[Transition], None]


class CircuitBreaker:
    """Stops calls to something that is down, and finds out with one call at a time when it is back.

    Closed: every call is admitted; `failures` failures in a row open it. Open: nobody is admitted for
    `open_seconds`. Then half-open: exactly one admitted call is out at any time; its success closes the circuit,
    its failure opens it again for twice as long (jittered, at most `max_open_seconds`), and a call that ends
    without a verdict makes room for the next one. Calls that were admitted before the circuit last changed
    its state say nothing about it any more and are not counted. A clock that jumps back begins the wait anew.

    `name` is the service that it guards, as operators see it.
    """

    def __init__(
        self,
        name: str = "",
        *,
        failures: int = 5,
        open_seconds: float = 30.0,
        max_open_seconds: float = MAX_OPEN_SECONDS,
        clock: Clock = time.monotonic,
        draw: Random = random.random,
    ) -> None:
        self.name = name
        self._failures_to_open = failures
        self._first_open_seconds = min(open_seconds, max_open_seconds)
        self._max_open_seconds = max_open_seconds
        self._clock = clock
        self._draw = draw
        self._listeners: list[Listener] = []
        self._generation = 0
        self._failures = 0
        self._unjittered_seconds = self._first_open_seconds
        self._opened_at: float | None = None  # None while closed
        self._open_seconds = 0.0
        self._probe: Admission | None = None
        self._has_probed = False  # since it opened
        self._opened_reason: Reason | None = None
        self._down_since = 0.0

    def listen(self, listener: Listener) -> None:
        """Calls `listener` after each change of state. It becomes half-open with the first probe."""
        self._listeners.append(listener)

    @property
    def state(self) -> CircuitState:
        if self._opened_at is None:
            return "closed"
        return "open" if self.retry_after > 0 else "half_open"

    @property
    def opened_reason(self) -> Reason | None:
        """Why it opened last; None while closed."""
        return self._opened_reason

    @property
    def down_seconds(self) -> float | None:
        """How long ago it opened, failed probes included; None while closed."""
        return None if self._opened_at is None else max(0.0, self._clock() - self._down_since)

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be admitted; 0 when one is admitted now or as soon as the probe returns."""
        if self._opened_at is None:
            return 0.0
        now = self._clock()
        self._opened_at = min(self._opened_at, now)
        return max(0.0, self._opened_at + self._open_seconds - now)

    def admit(self) -> "Admission | None":
        """Permission for one call, or None. Use it in a `with`: leaving without a verdict gives it back."""
        state = self.state
        if state == "open" or (state == "half_open" and self._probe is not None):
            return None
        admission = Admission(self, self._generation)
        if state == "half_open":
            self._probe = admission
            if not self._has_probed:
                self._has_probed = True
                self._tell("half_open")
        return admission

    def _succeed(self, admission: "Admission") -> None:
        if admission.generation != self._generation:
            return
        self._failures = 0
        if self._opened_at is not None:
            self._generation += 1
            self._opened_at = None
            self._open_seconds = 0.0
            self._probe = None
            self._opened_reason = None
            self._tell("closed")

    def _fail(self, admission: "Admission", reason: Reason) -> None:
        if admission.generation != self._generation:
            return
        if admission is self._probe:
            self._unjittered_seconds = min(self._max_open_seconds, self._unjittered_seconds * 2)
            # A tenth either way, so that the processes of a fleet do not probe in step.
            jittered = min(self._max_open_seconds, self._unjittered_seconds * (0.9 + self._draw() / 5))
            self._open(jittered, reason)
            return
        self._failures += 1
        if self._failures >= self._failures_to_open:
            self._unjittered_seconds = self._first_open_seconds
            self._down_since = self._clock()
            self._open(self._unjittered_seconds, reason)

    def _release(self, admission: "Admission") -> None:
        if admission is self._probe:
            self._probe = None

    def _open(self, seconds: float, reason: Reason) -> None:
        self._generation += 1
        self._failures = 0
        self._probe = None
        self._has_probed = False
        self._opened_at = self._clock()
        self._open_seconds = seconds
        self._opened_reason = reason
        self._tell("open")

    def _tell(self, state: CircuitState) -> None:
        transition = Transition(self.name, state, self._opened_reason, self._open_seconds)
        for listener in self._listeners:
            listener(transition)


class Admission:
    """One call that a circuit let through. The first verdict counts; none at all gives the place back."""

    __slots__ = ("_breaker", "_is_settled", "generation")

    def __init__(self, breaker: CircuitBreaker, generation: int) -> None:
        self._breaker = breaker
        self._is_settled = False
        self.generation = generation

    def succeed(self) -> None:
        """The other side works."""
        if not self._is_settled:
            self._is_settled = True
            self._breaker._succeed(self)

    def fail(self, reason: Reason) -> None:
        """The other side is down; `reason` is shown to operators."""
        if not self._is_settled:
            self._is_settled = True
            self._breaker._fail(self, reason)

    def release(self) -> None:
        """Nothing was learned."""
        if not self._is_settled:
            self._is_settled = True
            self._breaker._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
