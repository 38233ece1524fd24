"""What stops a copy of media, and what is only told of."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal, TypeVar

import msgspec

from yral_chat.core.failures import CannotGoOn

A = TypeVar("A")
B = TypeVar("B")

# Files on their way: each holds one part of 5 MiB at most.
AT_ONCE: Final = 8


class MediaBackupFailed(CannotGoOn):
    """A sentence for the operator. What was copied until then stays, and the next run goes on."""


class Finding(msgspec.Struct, frozen=True):
    """One object that is not as it should be, and what becomes of it, in a clause."""

    kind: Literal["lost", "damaged", "missing", "foreign", "manifest"]
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}: {self.what}"


Report = Callable[[Finding], None]


async def in_parallel(work: Callable[[A], Awaitable[B]], items: Iterable[A]) -> list[B]:
    """`work` on each of a few hundred items, some at a time. The first failure ends the rest, and is raised."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: A) -> B:
        async with places:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
