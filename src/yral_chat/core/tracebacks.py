"""Exceptions for the log: where, what kind, and the text only of those whose texts are ours.

The text of a foreign exception may hold anything, also what somebody wrote: `KeyError('my secret')`,
`invalid literal for int(): 'my secret'`.
"""

import traceback
from collections.abc import Iterator
from typing import Final

_BECAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def headline(error: BaseException, *, with_text: bool = False) -> str:
    """Kind and text, or the kind alone."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = str(error) if with_text else safe_text(error)
    return f"{name}: {text}" if text else name


def safe_text(error: BaseException) -> str:
    """Fixed words of ours, or what the system says without the name of the file; "" for all others."""
    if type(error).__module__.startswith("yral_chat."):
        return str(error)
    return (error.strerror or "") if isinstance(error, OSError) and error.errno is not None else ""


def render(error: BaseException, *, with_texts: bool = False) -> str:
    """The traceback as Python prints it, causes first, without values and (unless `with_texts`) without foreign
    texts."""
    return "".join(_lines(error, with_texts, set()))


def _lines(error: BaseException, with_texts: bool, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines(before, with_texts, seen)
        yield _BECAUSE if error.__cause__ is not None else _DURING
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{headline(error, with_text=with_texts)}\n"
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            if id(inner) not in seen:
                yield from _lines(inner, with_texts, seen)
