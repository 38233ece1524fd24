"""When whoever waits for a piece of work will have given up: set with the request, and carried along with its context.

No deadline: the work is owed to somebody who was told so, or to the service itself, whoever still waits for it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Final, NamedTuple

# What an answer waits for may take SEND_TIMEOUT_SECONDS; to put it together may take so much longer. Existing clients
# give up at 30 s.
ANSWER_SECONDS: Final = 2.0


class Deadline(NamedTuple):
    at: float  # `time.monotonic()`
    seconds: float  # that there were for it
    has_stored: bool = False  # from here on it is owed: the refusal "nothing was stored" would be wrong


Mark = Token[Deadline | None]

_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def begin(seconds: float) -> Mark:
    """From now on the present context has so many seconds; `end` takes what this returns."""
    return _deadline.set(Deadline(time.monotonic() + seconds, seconds))


def end(mark: Mark) -> None:
    _deadline.reset(mark)


def current() -> float | None:
    """The present deadline as a `time.monotonic()` value in seconds; None for what is owed."""
    deadline = _deadline.get()
    return None if deadline is None or deadline.has_stored else deadline.at


def to_wait(seconds: float) -> float:
    """How long a request may wait for what its answer is made of: `seconds` at most, and not longer than is left."""
    deadline = _deadline.get()
    return seconds if deadline is None else max(0.0, min(seconds, deadline.at - ANSWER_SECONDS - time.monotonic()))


def extend(seconds: float) -> None:
    """For an answer that is known to take longer: so many seconds to wait from now on, if there is a deadline."""
    if (deadline := _deadline.get()) is not None:
        _deadline.set(Deadline(time.monotonic() + seconds + ANSWER_SECONDS, seconds, deadline.has_stored))


def wait_for_client(seconds: float) -> None:
    """So long the request was waited for, which is nobody's time but its client's."""
    if (deadline := _deadline.get()) is not None:
        _deadline.set(deadline._replace(at=deadline.at + seconds))


def restart() -> None:
    """For a request whose body has only now arrived: its time begins anew."""
    if (deadline := _deadline.get()) is not None:
        begin(deadline.seconds)


def stored() -> None:
    """Something of the present request is in the database now: what else it takes to answer is owed."""
    if (deadline := _deadline.get()) is not None and not deadline.has_stored:
        _deadline.set(deadline._replace(has_stored=True))


def lift() -> None:
    """For an answer that takes as long as its reader: the rest of the request has no deadline."""
    _deadline.set(None)


@contextmanager
def owed() -> Iterator[None]:
    """What is done in this block has to be done, also when the caller has gone."""
    mark = _deadline.set(None)
    try:
        yield
    finally:
        _deadline.reset(mark)
