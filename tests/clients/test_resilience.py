"""The circuit breaker against a model of it, and backoff."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from yral_chat.clients.resilience import Admission, Backoff, CircuitBreaker, Reason, Transition, seconds_left


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker_with_clock(**options: float) -> tuple[CircuitBreaker, ManualClock]:
    clock = ManualClock()
    breaker = CircuitBreaker(
        failures=int(options.get("failures", 3)),
        open_seconds=options.get("open_seconds", 30),
        clock=clock,
        draw=lambda: options.get("draw", 0.5),  # in the middle: no jitter
    )
    return breaker, clock


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        admission = breaker.admit()
        assert admission is not None
        admission.fail("timeout")


def test_opens_after_failures_in_a_row_and_says_why() -> None:
    breaker, _ = breaker_with_clock(failures=3)
    fail(breaker, 2)
    assert (breaker.state, breaker.opened_reason) == ("closed", None)
    fail(breaker)
    assert (breaker.state, breaker.opened_reason) == ("open", "timeout")
    assert breaker.admit() is None
    assert breaker.retry_after == 30


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker, _ = breaker_with_clock(failures=3)
    fail(breaker, 2)
    admission = breaker.admit()
    assert admission is not None
    admission.succeed()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_half_open_lets_exactly_one_probe_through() -> None:
    breaker, clock = breaker_with_clock()
    fail(breaker, 3)
    clock.now += 30
    assert breaker.state == "half_open"
    probe = breaker.admit()
    assert probe is not None
    assert [breaker.admit() for _ in range(5)] == [None] * 5
    probe.succeed()
    assert (breaker.state, breaker.opened_reason) == ("closed", None)
    assert breaker.admit() is not None
    assert breaker.admit() is not None


def test_each_failed_probe_doubles_the_wait_up_to_ten_minutes() -> None:
    breaker, clock = breaker_with_clock(open_seconds=30)
    fail(breaker, 3)
    waits = []
    for _ in range(7):
        clock.now += breaker.retry_after
        fail(breaker)
        waits.append(breaker.retry_after)
    assert waits == pytest.approx([60, 120, 240, 480, 600, 600, 600])


def test_a_success_resets_the_wait() -> None:
    breaker, clock = breaker_with_clock(open_seconds=30)
    fail(breaker, 3)
    clock.now += 30
    fail(breaker)
    clock.now += 60
    probe = breaker.admit()
    assert probe is not None
    probe.succeed()
    fail(breaker, 3)
    assert breaker.retry_after == 30
    clock.now += 30
    fail(breaker)
    assert breaker.retry_after == 60


@pytest.mark.parametrize("draw", [0.0, 0.999999])
def test_the_wait_is_jittered_by_a_tenth_and_never_beyond_the_limit(draw: float) -> None:
    breaker, clock = breaker_with_clock(open_seconds=400, draw=draw)
    fail(breaker, 3)
    assert breaker.retry_after == 400  # the first is as configured
    clock.now += 400
    fail(breaker)
    assert 540 <= breaker.retry_after <= 600


def test_a_probe_that_ends_without_a_verdict_gives_its_place_back() -> None:
    breaker, clock = breaker_with_clock()
    fail(breaker, 3)
    clock.now += 30
    probe = breaker.admit()
    assert probe is not None
    with probe:
        assert breaker.admit() is None
    assert breaker.state == "half_open"
    assert breaker.admit() is not None


def test_results_from_before_the_change_are_not_counted() -> None:
    breaker, clock = breaker_with_clock(failures=2)
    slow = [admission for _ in range(4) if (admission := breaker.admit()) is not None]
    assert len(slow) == 4
    fail(breaker, 2)
    slow[0].fail("overloaded")
    slow[1].fail("overloaded")
    assert (breaker.opened_reason, breaker.retry_after) == ("timeout", 30)
    slow[2].succeed()
    states: list[str] = [breaker.state]
    clock.now += 30
    probe = breaker.admit()
    assert probe is not None
    slow[3].fail("overloaded")
    states.append(breaker.state)
    probe.succeed()
    assert [*states, breaker.state] == ["open", "half_open", "closed"]


def test_every_change_is_told_once_and_in_order() -> None:
    breaker, clock = breaker_with_clock(failures=2, open_seconds=30)
    told: list[Transition] = []
    breaker.listen(told.append)
    fail(breaker, 2)
    clock.now += 30
    with breaker.admit() or pytest.fail("half-open admits one"):
        pass  # without a verdict: still half-open, and not told again
    fail(breaker)
    clock.now += 60
    probe = breaker.admit()
    assert probe is not None
    probe.succeed()
    assert told == [
        Transition("", "open", "timeout", 30),
        Transition("", "half_open", "timeout", 30),
        Transition("", "open", "timeout", 60),
        Transition("", "half_open", "timeout", 60),
        Transition("", "closed"),
    ]


def test_the_time_of_an_outage_runs_through_failed_probes() -> None:
    breaker, clock = breaker_with_clock(failures=1, open_seconds=30)
    assert breaker.down_seconds is None
    fail(breaker)
    clock.now += 30
    fail(breaker)
    clock.now += 12
    assert breaker.down_seconds == 42


def test_a_clock_that_jumps_back_keeps_nothing_open_for_longer() -> None:
    breaker, clock = breaker_with_clock(failures=1, open_seconds=30)
    fail(breaker)
    clock.now -= 3600
    assert (breaker.state, breaker.retry_after) == ("open", 30)
    clock.now += 30
    assert breaker.state == "half_open"


class Described(RuleBasedStateMachine):
    """Any calls in any order, overlapping and late, while time passes and jumps: against a description of the three
    states that shares nothing with the breaker. Where the breaker counts generations, this writes down for each call
    whether a change of state has come after it."""

    @initialize(failures=st.integers(1, 4), open_seconds=st.sampled_from([1.0, 30.0, 300.0, 900.0]))
    def begin(self, failures: int, open_seconds: float) -> None:
        self.clock = ManualClock()
        self.drawn = 0.5
        self.breaker = CircuitBreaker(
            "vendor", failures=failures, open_seconds=open_seconds, clock=self.clock, draw=lambda: self.drawn
        )
        self.told: list[tuple[str, str | None, float]] = []
        self.breaker.listen(lambda change: self.told.append((change.to, change.reason, change.open_seconds)))
        self.limit, self.first = failures, min(600.0, open_seconds)
        self.expected: list[tuple[str, str | None, float]] = []
        self.out: list[tuple[Admission, str]] = []  # "call", "probe", or "late": something has changed since
        self.phase = "closed"
        self.in_a_row = 0
        self.doubled = self.wait = self.opened_at = self.down_at = 0.0
        self.why: str | None = None

    def change(self, phase: str) -> None:
        self.phase = phase
        self.expected.append((phase, self.why, self.wait))
        if phase != "half_open":
            self.out = [(call, "late") for call, _ in self.out]

    def has_probe(self) -> bool:
        return any(kind == "probe" for _, kind in self.out)

    @rule()
    def admit(self) -> None:
        is_admitted = self.phase == "closed" or (self.left() == 0 and not self.has_probe())
        admission = self.breaker.admit()
        assert (admission is not None) == is_admitted
        if admission is None:
            return
        if self.phase == "open":
            self.change("half_open")
        self.out.append((admission, "call" if self.phase == "closed" else "probe"))

    @rule(seconds=st.sampled_from([0.5, 1, 10, 29.5, 30, 60, 700, 3600]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(seconds=st.sampled_from([1, 3600]))
    def jump_back(self, seconds: float) -> None:
        """To before it opened, if far enough: then the whole wait is to come, and no more."""
        self.clock.now -= seconds
        self.opened_at = min(self.opened_at, self.clock.now)

    def left(self) -> float:
        """Until a probe may go."""
        return 0.0 if self.phase == "closed" else max(0.0, self.opened_at + self.wait - self.clock.now)

    @rule(
        data=st.data(),
        verdict=st.sampled_from(["succeed", "fail", "release"]),
        reason=st.sampled_from(["timeout", "overloaded", "unusable"]),
        drawn=st.floats(0, 1, exclude_max=True),
    )
    def finish(self, data: st.DataObject, verdict: str, reason: Reason, drawn: float) -> None:
        if not self.out:
            return
        self.drawn = drawn
        admission, kind = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        if verdict == "fail":
            admission.fail(reason)
        else:
            getattr(admission, verdict)()
        for late in ("fail", "succeed", "release"):  # whatever is said later of the same call is not heard
            getattr(admission, late)(*(["rejected"] if late == "fail" else []))
        if kind == "late" or verdict == "release":
            return
        if verdict == "succeed":
            self.in_a_row = 0
            if kind == "probe":
                self.why, self.wait = None, 0.0
                self.change("closed")
            return
        self.in_a_row += 1
        if kind == "probe":
            self.doubled = min(600.0, self.doubled * 2)
            self.open(reason, min(600.0, self.doubled * (0.9 + drawn * 0.2)))
        elif self.in_a_row >= self.limit:
            self.down_at = self.clock.now
            self.doubled = self.first
            self.open(reason, self.first)

    def open(self, reason: str, seconds: float) -> None:
        self.in_a_row = 0
        self.why = reason
        self.wait = seconds
        self.opened_at = self.clock.now
        self.change("open")

    @invariant()
    def agrees(self) -> None:
        seen = "closed" if self.phase == "closed" else "open" if self.left() > 0 else "half_open"
        assert self.breaker.retry_after == pytest.approx(self.left(), abs=1e-6)
        assert self.breaker.state == seen
        assert self.breaker.opened_reason == self.why
        assert [(to, why) for to, why, _ in self.told] == [(to, why) for to, why, _ in self.expected]
        assert [seconds for *_, seconds in self.told] == pytest.approx([seconds for *_, seconds in self.expected])
        is_down = self.phase != "closed"
        assert self.breaker.down_seconds == (max(0.0, self.clock.now - self.down_at) if is_down else None)


TestBreakerAsDescribed = Described.TestCase
TestBreakerAsDescribed.settings = settings(max_examples=80, stateful_step_count=40)


@given(attempt=st.integers(0, 50), draw=st.floats(0, 1, exclude_max=True))
def test_backoff_grows_and_keeps_its_bounds(attempt: int, draw: float) -> None:
    backoff = Backoff(first_seconds=0.25, factor=2, max_seconds=4)
    step = min(4.0, 0.25 * 2**attempt)
    assert step / 2 <= backoff.delay(attempt, lambda: draw) <= step


def test_seconds_left_is_never_negative() -> None:
    assert seconds_left(10, lambda: 7) == 3
    assert seconds_left(10, lambda: 12) == 0
