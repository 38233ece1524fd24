"""Who caused what runs here, what of that goes along with outbound calls, and spans where somebody collects them.

The tracer is the process's, as the log is. Without one (`use` was not called) spans are nothing and cost nothing, and
the trace of the client is passed on all the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple, Protocol, Self

from yral_chat.core.logging import correlation_id
from yral_chat.core.trace_context import TraceContext, parse_traceparent, trace

SpanKind = Literal["internal", "server", "client", "consumer"]
Value = str | int | float | bool | None


class Span(Protocol):
    """Something that takes time. `context` is None where nobody collects spans."""

    context: TraceContext | None

    def rename(self, name: str) -> None: ...

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Never what somebody wrote, a name, an address or a secret. None is left out."""
        ...

    def fail(self, kind: str) -> None:
        """It ended badly; `kind` is a word of ours or the name of an exception, never its text."""
        ...

    def end(self) -> None: ...


class Tracer(Protocol):
    """Begins spans and sends them somewhere."""

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Mapping[str, Value],
    ) -> Span: ...


class _NoSpan:
    context: TraceContext | None = None

    def rename(self, name: str) -> None:
        """Nothing to name."""

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Nothing to describe."""

    def fail(self, kind: str) -> None:
        """Nothing to mark."""

    def end(self) -> None:
        """Nothing to end."""


NO_SPAN: Final[Span] = _NoSpan()

_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """From here on spans of this process go to `tracer`."""
    global _tracer
    _tracer = tracer


def is_tracing() -> bool:
    return _tracer is not None


def start(
    name: str,
    kind: SpanKind = "internal",
    *,
    parent: TraceContext | None = None,
    links: Sequence[TraceContext] = (),
    attributes: Mapping[str, Value] | None = None,
) -> Span:
    """A span below `parent`, or below the current place; whoever starts it has to end it. It is not made current."""
    if _tracer is None:
        return NO_SPAN
    return _tracer.start(name, kind, parent or trace.get(), links, attributes or {})


@contextmanager
def span(
    name: str,
    kind: SpanKind = "internal",
    *,
    links: Sequence[TraceContext] = (),
    attributes: Mapping[str, Value] | None = None,
) -> Iterator[Span]:
    """A span that is the current place while the block runs, also for tasks that begin in it.

    Not for generators: between two of their items the block would be somebody else's.
    """
    begun = start(name, kind, links=links, attributes=attributes)
    token = trace.set(begun.context or trace.get())
    try:
        yield begun
    except BaseException as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        trace.reset(token)
        begun.end()


class Cause(NamedTuple):
    """What a background task is told of the request that caused it."""

    correlation_id: str = ""
    trace: TraceContext | None = None

    @classmethod
    def current(cls) -> Self:
        return cls(correlation_id.get(), trace.get())

    def enter(self) -> None:
        """For the beginning of a task of its own: from here on it acts for this cause."""
        correlation_id.set(self.correlation_id)
        trace.set(self.trace)

    def to_json(self) -> list[str]:
        """For a row: `tracestate` stays behind, which may be long."""
        return [self.correlation_id, *([self.trace.traceparent()] if self.trace is not None else [])]

    @classmethod
    def of_json(cls, value: object) -> Self:
        """What `to_json` made; an empty cause of anything else."""
        match value:
            case [str(first)]:
                return cls(first)
            case [str(first), str(second)]:
                return cls(first, parse_traceparent(second))
        return cls()


def trace_headers(span: Span = NO_SPAN) -> dict[str, str]:
    """`traceparent` and `tracestate` for a call to the outside, that `span` stands for; {} outside of a trace."""
    context = span.context
    if context is None:
        context = trace.get()
        if context is None:
            return {}
        if _tracer is None:  # the current span is the client's: ours has an id that only the other side will name
            context = context.with_new_parent()
    headers = {"traceparent": context.traceparent()}
    if context.state:
        headers["tracestate"] = context.state
    return headers


def outgoing_headers() -> dict[str, str]:
    """What every call to the outside carries: whose it is (`X-Correlation-ID`) and where in its trace."""
    headers = trace_headers()
    if current := correlation_id.get():
        headers["X-Correlation-ID"] = current
    return headers
