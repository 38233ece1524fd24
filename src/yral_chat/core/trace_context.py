"""W3C Trace Context: the trace that a request belongs to (https://www.w3.org/TR/trace-context/).

Without a client that sends one, and without the extra `otel`, there is no trace: `X-Correlation-ID` joins what belongs
together, and nothing is made up that nobody collects.
"""

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final, NamedTuple, Self

# Section 3.2.2. `ff` is no version; later ones may have more behind a dash, and are read as if they were 00.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_PARENT: Final = "0" * 16
# Sampled, and (level 2) random; what is unknown is not passed on.
_KNOWN_FLAGS: Final = 0b11
# Section 3.3.1.3.
_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_MEMBERS: Final = 32
# Section 3.3.1.5: so much is passed on at least, and entries above the second number go first.
_MAX_STATE: Final = 512
_LONG_MEMBER: Final = 128

Headers = Iterable[tuple[bytes, bytes]]


class TraceContext(NamedTuple):
    """A place in a trace: the trace's id, the id of the span that is current there, flags, and `tracestate`."""

    trace_id: str
    span_id: str
    flags: int
    state: str = ""

    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def with_new_parent(self) -> Self:
        """For a call to the outside that no span stands for."""
        return self._replace(span_id=secrets.token_hex(8))


# Where this request, turn or job is in its trace; None where there is none.
trace: ContextVar[TraceContext | None] = ContextVar("trace", default=None)


def parse_traceparent(value: str, state: str = "") -> TraceContext | None:
    """None for everything that is not exactly as specified: it is ignored, and `tracestate` with it."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None or (found[1] == "00" and found[5]) or found[2] == _NO_TRACE or found[3] == _NO_PARENT:
        return None
    return TraceContext(found[2], found[3], int(found[4], 16) & _KNOWN_FLAGS, state)


def trace_of(headers: Headers) -> TraceContext | None:
    """What a request says. A second `traceparent` makes it none; several `tracestate` are one list."""
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) != 1:
        return None
    # What is not ASCII becomes a character that neither pattern takes.
    state = _state_of(b",".join(states).decode("ascii", "replace")) if states else ""
    return parse_traceparent(parents[0].decode("ascii", "replace"), state)


def _state_of(text: str) -> str:
    """The list as it is passed on; "" when any of it is malformed."""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > _MAX_MEMBERS or len(keys) < len(members) or not all(map(_MEMBER.fullmatch, members)):
        return ""
    if len(",".join(members)) > _MAX_STATE:
        members = [member for member in members if len(member) <= _LONG_MEMBER]
    while len(",".join(members)) > _MAX_STATE:
        members.pop()
    return ",".join(members)
