"""The circuit breaker against a model of it, and backoff."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from yral_chat.clients.resilience import Admission, Backoff, CircuitBreaker, seconds_left


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
    slow[0].fail("late")
    slow[1].fail("late")
    assert (breaker.opened_reason, breaker.retry_after) == ("timeout", 30)
    slow[2].succeed()
    states: list[str] = [breaker.state]
    clock.now += 30
    probe = breaker.admit()
    assert probe is not None
    slow[3].fail("late")
    states.append(breaker.state)
    probe.succeed()
    assert [*states, breaker.state] == ["open", "half_open", "closed"]


class BreakerMachine(RuleBasedStateMachine):
    """Random calls, in any order and overlapping, against a plain description of the three states."""

    @initialize(failures=st.integers(1, 4), open_seconds=st.sampled_from([1.0, 30.0, 300.0]))
    def begin(self, failures: int, open_seconds: float) -> None:
        self.limit = failures
        self.first = open_seconds
        self.breaker, self.clock = breaker_with_clock(failures=failures, open_seconds=open_seconds)
        self.running: list[tuple[Admission, int]] = []  # with the epoch they were admitted in
        self.probe: Admission | None = None
        self.epoch = 0
        self.streak = 0
        self.wait = open_seconds
        self.until: float | None = None

    def expected_state(self) -> str:
        if self.until is None:
            return "closed"
        return "open" if self.clock.now < self.until else "half_open"

    @rule()
    def admit(self) -> None:
        state = self.expected_state()
        is_expected = state == "closed" or (state == "half_open" and self.probe is None)
        admission = self.breaker.admit()
        assert (admission is not None) == is_expected
        if admission is not None:
            self.running.append((admission, self.epoch))
            if state == "half_open":
                self.probe = admission

    @rule(seconds=st.sampled_from([0.5, 1, 10, 30, 60, 700]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(data=st.data(), verdict=st.sampled_from(["succeed", "fail", "release"]))
    def finish(self, data: st.DataObject, verdict: str) -> None:
        if not self.running:
            return
        admission, epoch = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        getattr(admission, verdict)(*(["down"] if verdict == "fail" else []))
        is_probe = admission is self.probe
        if is_probe:
            self.probe = None
        if epoch != self.epoch or verdict == "release":
            return
        if verdict == "succeed":
            self.streak = 0
            if self.until is not None:
                self.until, self.wait, self.epoch = None, self.first, self.epoch + 1
            return
        self.streak += 1
        if is_probe or self.streak >= self.limit:
            self.wait = min(600.0, self.wait * 2) if is_probe else self.first
            self.until, self.streak, self.epoch = self.clock.now + self.wait, 0, self.epoch + 1

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state == self.expected_state()
        assert (self.breaker.opened_reason is None) == (self.until is None)
        assert self.breaker.retry_after == pytest.approx(max(0.0, (self.until or 0) - self.clock.now))


TestBreakerAgainstTheModel = BreakerMachine.TestCase
TestBreakerAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(attempt=st.integers(0, 50), draw=st.floats(0, 1, exclude_max=True))
def test_backoff_grows_and_keeps_its_bounds(attempt: int, draw: float) -> None:
    backoff = Backoff(first_seconds=0.25, factor=2, max_seconds=4)
    step = min(4.0, 0.25 * 2**attempt)
    assert step / 2 <= backoff.delay(attempt, lambda: draw) <= step


def test_seconds_left_is_never_negative() -> None:
    assert seconds_left(10, lambda: 7) == 3
    assert seconds_left(10, lambda: 12) == 0
