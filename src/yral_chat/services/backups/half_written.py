"""Some servers show an object while it is being written: cut off, or empty."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

# By then a small object is whole.
AGAIN_SECONDS: Final = 1.0


async def read_settled(read: Callable[[], Awaitable[T]], damage: type[Exception]) -> T:
    """What `read` gives; where it raises `damage`, it is asked once more before that is believed."""
    try:
        return await read()
    except damage:
        await asyncio.sleep(AGAIN_SECONDS)
        return await read()
