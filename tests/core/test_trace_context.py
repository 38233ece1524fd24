"""Trace Context as specified: https://www.w3.org/TR/trace-context/"""

import pytest

from yral_chat.core import tracing
from yral_chat.core.logging import correlation_id
from yral_chat.core.trace_context import TraceContext, parse_traceparent, trace, trace_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


def headers(*states: str, parent: str = GOOD) -> list[tuple[bytes, bytes]]:
    return [(b"traceparent", parent.encode()), *((b"tracestate", state.encode("latin-1")) for state in states)]


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (GOOD, 1),
        (f"00-{TRACE}-{PARENT}-00", 0),
        (f"00-{TRACE}-{PARENT}-ff", 3),  # only flags that are known are passed on
        (f"01-{TRACE}-{PARENT}-01", 1),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like", 1),
    ],
)
def test_what_is_well_formed_is_taken(value: str, flags: int) -> None:
    assert parse_traceparent(value) == TraceContext(TRACE, PARENT, flags)


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-0x",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}x-01",
        f"cc-{TRACE}-{PARENT}-01.more",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{GOOD},{GOOD}",
    ],
)
def test_what_is_malformed_is_ignored(value: str) -> None:
    assert parse_traceparent(value) is None


def test_two_traceparents_are_none() -> None:
    assert trace_of([*headers(), *headers()]) is None
    assert trace_of([(b"traceparent", GOOD.encode("utf-16"))]) is None


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (["a=1", "b=2"], "a=1,b=2"),
        (["a=1, \t b=2,,"], "a=1,b=2"),
        (["fw529a3039@dt=FfAIlK"], "fw529a3039@dt=FfAIlK"),
        (["A=1"], ""),
        (["a"], ""),
        (["a=1,a=2"], ""),
        (["a=caf\xe9"], ""),
        (["a=x\x07"], ""),
        ([",".join(f"k{n}=1" for n in range(33))], ""),
        ([f"long={'x' * 200}," + ",".join(f"k{n}={'y' * 20}" for n in range(16))],
         ",".join(f"k{n}={'y' * 20}" for n in range(16))),
        ([",".join(f"k{n}={'y' * 120}" for n in range(8))], ",".join(f"k{n}={'y' * 120}" for n in range(4))),
    ],
)  # fmt: skip
def test_tracestate_is_passed_on_within_its_limits(given: list[str], passed_on: str) -> None:
    assert trace_of(headers(*given)) == TraceContext(TRACE, PARENT, 1, passed_on)


def test_a_call_to_the_outside_is_a_new_parent_in_the_same_trace() -> None:
    tokens = correlation_id.set("c-1"), trace.set(TraceContext(TRACE, PARENT, 1, "a=1"))
    first, second = tracing.outgoing_headers(), tracing.outgoing_headers()
    correlation_id.reset(tokens[0])
    trace.reset(tokens[1])
    assert (first["X-Correlation-ID"], first["tracestate"]) == ("c-1", "a=1")
    places = [parse_traceparent(made["traceparent"]) for made in (first, second)]
    assert {place.trace_id for place in places if place} == {TRACE}
    assert len({PARENT, *(place.span_id for place in places if place)}) == 3


def test_outside_of_a_trace_there_is_none() -> None:
    assert tracing.outgoing_headers() == {}


@pytest.mark.parametrize("cause", [tracing.Cause("c"), tracing.Cause("c", TraceContext(TRACE, PARENT, 1))])
def test_a_cause_survives_its_row(cause: tracing.Cause) -> None:
    assert tracing.Cause.of_json(cause.to_json()) == cause


@pytest.mark.parametrize("stored", [None, [], {}, "x", [1], ["a", "b", "c"]])
def test_a_row_without_a_cause_has_an_empty_one(stored: object) -> None:
    assert tracing.Cause.of_json(stored) == tracing.Cause()
