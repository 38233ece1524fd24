"""What a conversation lacks of the one in the copy, page by page, and under which numbers it will stand there."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from itertools import takewhile
from typing import NamedTuple

from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.places import Place
from yral_chat.db.repositories.restores import Head
from yral_chat.db.snapshots import Snapshot
from yral_chat.services.restores import placing
from yral_chat.services.restores.placing import START
from yral_chat.services.restores.records import Then

# Messages in one unit of work: it holds SQLite's only writer for some milliseconds.
PAGE = 200


class Page(NamedTuple):
    """`size` messages of the copy behind the number `after`: whether some are there, and which are not.

    The missing ones have the places that they will get, up to the first that has none (placing.Placed). `changes`:
    from which numbers of the copy on messages stand how much higher here.
    """

    after: int
    size: int
    is_known: bool
    missing: list[Head]
    changes: list[tuple[int, int]]
    crowded_at: int | None = None


class Overview(NamedTuple):
    """`is_home`: some of the messages are there. `crowded_at`: the time of the first that has no place, or None.

    `last`: the highest place that a missing one will get. `distances`: all changes of the pages.
    """

    is_home: bool = False
    crowded_at: int | None = None
    last: Place = START
    distances: tuple[tuple[int, int], ...] = ()

    @property
    def reach(self) -> int:
        """The highest number that a missing one will get; 0 without any."""
        return self.last.seq

    def number_of(self, seq: int) -> int:
        """The number here that is `seq` in the copy."""
        return seq + next((by for start, by in reversed(self.distances) if start <= seq), 0)


class Comparison:
    """Of one conversation of the copy with `target_id`. Nobody's messages count who is gone."""

    def __init__(self, database: Database, copy: Snapshot, then: Then, target_id: str) -> None:
        self._database = database
        self._copy = copy
        self._then = then
        self._target_id = target_id

    async def pages(self) -> AsyncGenerator[Page, None]:
        """All of them, as it is when each is read."""
        after, distance, last = 0, 0, START
        while heads := await self._read(after):
            page = await self._database.read(self._compare, heads, after, distance, last)
            after = heads[-1].seq
            distance = page.changes[-1][1] if page.changes else distance
            last = placing.place_of(page.missing[-1]) if page.missing else last
            yield page

    async def look(self) -> Overview:
        """Goes through all of it, or up to the first that has no place."""
        is_home, last, distances = False, START, []
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                is_home |= page.is_known
                last = placing.place_of(page.missing[-1]) if page.missing else last
                distances += page.changes
                if page.crowded_at is not None:
                    return Overview(is_home, page.crowded_at)
        return Overview(is_home, None, last, tuple(distances))

    def _compare(self, uow: UnitOfWork, all_heads: list[Head], after: int, distance: int, last: Place) -> Page:
        heads = [head for head in all_heads if head.sender_id not in self._then.gone]
        known = uow.restores.list_known([head.id for head in heads])
        missing: list[Head] = []
        numbers: list[tuple[int, int]] = []  # in the copy, and here
        crowded_at, start = None, 0
        while start < len(heads) and crowded_at is None:
            first = heads[start]
            if first.id in known:
                run = [first]
                conversation_id, seq = known[first.id]
                numbers += [(first.seq, seq)] if conversation_id == self._target_id else []
            else:
                run = list(takewhile(lambda head: head.id not in known, heads[start:]))
                by = numbers[-1][1] - numbers[-1][0] if numbers else distance
                placed, crowded_at = placing.place(uow, self._target_id, run, by, last)
                numbers += [(then.seq, here.seq) for then, here in zip(run, placed, strict=False)]
                missing += placed
                last = placing.place_of(placed[-1]) if placed else last
            start += len(run)
        return Page(after, len(all_heads), bool(known), missing, list(_changes(numbers, distance)), crowded_at)

    async def _read(self, after: int) -> list[Head]:
        heads = await self._copy.read(lambda uow: uow.restores.list_heads(self._then.id, after, PAGE))
        if self._then.influencer_id is not None and len(heads) == PAGE and heads[-1].role == "user":
            heads.pop()  # a question comes back with its answer, which is the next
        return heads


def _changes(numbers: Iterable[tuple[int, int]], distance: int) -> Iterator[tuple[int, int]]:
    for then, here in numbers:
        if here - then != distance:
            distance = here - then
            yield then, distance
