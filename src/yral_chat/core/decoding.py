"""JSON that comes from outside, or has lain somewhere for a while."""

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode(data: bytes | str, kind: type[T]) -> T:
    """Raises msgspec.DecodeError for whatever is wrong with it.

    msgspec itself raises UnicodeDecodeError, a ValueError, where a string is not UTF-8: one flipped bit is enough.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error
