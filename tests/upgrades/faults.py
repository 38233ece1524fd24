"""Upgrades in which something breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from sqlalchemy import event
from sqlalchemy.engine import Engine

# What `migrate` says first.
BEGINS = ("BEGIN IMMEDIATE", "SELECT 1")


class Planted(Exception):
    """No fault that anybody could foresee."""


@contextmanager
def failing_after(number: int) -> Iterator[None]:
    """The statement of this number is run, counted from the beginning of the transaction, and then something breaks."""
    numbers: Iterator[int] = iter(())

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal numbers
        if statement in BEGINS:
            numbers = count(1)
        elif next(numbers, 0) == number:
            raise Planted

    event.listen(Engine, "after_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", fail)
