"""People live, lose things, are erased, go back in time; and whatever is put back then, the rules of it hold.

After every commit of a restore nothing is wrong in the database (world.Watched). For an afternoon:
RESTORE_HISTORIES=80 make test-long ARGS=tests/services/restores/test_histories.py
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Row, and_, select

from tests.rows import At, fetch
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.test_contents import memory
from tests.services.restores.test_erased import Erase, erase
from tests.services.restores.world import World
from yral_chat.core import clock
from yral_chat.core.errors import NotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.tables import conversations, messages, participants
from yral_chat.services.restores import PutBack
from yral_chat.services.restores.erased import AccountErased

__all__ = ["erase"]

HISTORIES = int(os.environ.get("RESTORE_HISTORIES", "1"))
PEOPLE, BOTS = ("ann", "ben", "cas"), ("bot", "own")


class Copy(NamedTuple):
    url: str
    erasures: int  # that had happened by then


def sights(place: Any) -> dict[str, set[str]]:
    """Ids of all messages that each person sees."""
    shown = and_(messages.c.seq > participants.c.cleared_seq, messages.c.is_listed, ~participants.c.is_hidden)
    query = (
        select(participants.c.principal_id, messages.c.id)
        .join(messages, messages.c.conversation_id == participants.c.conversation_id)
        .where(shown, ~participants.c.is_persona)
    )
    found: dict[str, set[str]] = {person: set() for person in PEOPLE}
    for person, message in fetch(place, query):
        found.setdefault(person, set()).add(message)
    return found


def texts(place: Any) -> dict[str, Row[Any]]:
    columns = (messages.c.id, messages.c.sender_id, messages.c.content, messages.c.status, messages.c.conversation_id)
    return {row.id: row for row in fetch(place, select(*columns))}


def conversations_of(place: Any) -> Iterator[tuple[str, list[str]]]:
    columns = (conversations.c.id, conversations.c.user_id, conversations.c.other_user_id)
    for row in fetch(place, select(*columns)):
        yield row.id, [person for person in row[1:] if person in PEOPLE]


class JumpingClock:
    """Is set back a little, again and again."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._behind = 0

    def __call__(self) -> int:
        return time.time_ns() - self._behind

    async def jump(self) -> None:
        self._behind += self._rng.randrange(200_000_000)


@pytest.fixture
def jumping(request: pytest.FixtureRequest) -> Iterator[JumpingClock]:
    made = JumpingClock(request.param)
    clock.use(made)
    yield made
    clock.use(time.time_ns)


class History:
    """One run of `steps` random things."""

    def __init__(
        self,
        world: World,
        take_copy: MakeCopy,
        erase_account: Erase,
        seed: int,
        *,
        jumping: "JumpingClock | None" = None,
        is_busy: bool = False,  # people go on writing while something is put back
    ) -> None:
        self.world = world
        self._clock = jumping
        self._is_busy = is_busy
        self.rng = random.Random(seed)
        self._take_copy = take_copy
        self._erase = erase_account
        self.copies: list[Copy] = []
        self.erased: list[str] = []
        self.forbidden: set[str] = set()  # messages of people who have had themselves erased since
        self.has_gone_back = False
        self.restored = 0
        self.said = 0

    async def live(self, steps: int) -> None:
        actions = [
            (self.say, 8), (self.write, 8), (self.read, 4), (self.delete, 5), (self.remember, 2), (self.copy, 4),
            (self.be_erased, 1), (self.go_back, 1), (self.restore, 5),
        ]  # fmt: skip
        actions += [(self._clock.jump, 4)] if self._clock is not None else []
        for _ in range(steps):
            (action,) = self.rng.choices([name for name, _ in actions], [weight for _, weight in actions])
            await action()
        await self.restore()

    def _text(self) -> str:
        self.said += 1
        return f"text {self.said}"

    async def say(self) -> None:
        reply = self.rng.choice(["Yes: {}", "Yes: {}", None])
        await self.world.say(self.rng.choice(PEOPLE), self._text(), bot=self.rng.choice(BOTS), reply=reply)

    async def write(self) -> None:
        one, other = self.rng.sample(PEOPLE, 2)
        await self.world.write(one, other, self._text())

    async def _any_inbox(self) -> tuple[str, str] | None:
        person = self.rng.choice(PEOPLE)
        found = sorted(await self.world.inbox(person))
        return (person, self.rng.choice(found)) if found else None

    async def read(self) -> None:
        if found := await self._any_inbox():
            await self.world.read(*found)

    async def delete(self) -> None:
        if found := await self._any_inbox():
            await self.world.delete(*found)

    async def remember(self) -> None:
        person = self.rng.choice(PEOPLE)

        def unit(uow: UnitOfWork) -> None:
            for conversation, _ in uow.accounts.list_ai_conversations(person, "", 10):
                stored = uow.conversations.find_locked(conversation)
                assert stored is not None
                if self.rng.random() < 0.3:
                    uow.memories.delete(conversation, "city")
                    uow.memories.forget(conversation, "city", stored.last_seq)
                else:
                    uow.memories.save(conversation, memory("city", self._text(), stored.last_seq))

        await self.world.database.write(unit)

    async def copy(self) -> None:
        self.copies.append(Copy(self._take_copy(), len(self.erased)))

    async def be_erased(self) -> None:
        person = self.rng.choice(PEOPLE)
        for place in (self.world, *(At(copy.url) for copy in self.copies)):
            bots = {id_ for id_, people in conversations_of(place) if people == [person]}
            self.forbidden |= {
                id_ for id_, row in texts(place).items() if row.sender_id == person or row.conversation_id in bots
            }
        await self._erase(person)
        self.erased.append(person)

    async def go_back(self) -> None:
        """The whole database, to a copy after the last erasure: a start would repeat the others."""
        good = [copy for copy in self.copies if copy.erasures == len(self.erased)]
        if good:
            self.has_gone_back = True
            await self.world.go_back(self.rng.choice(good).url)

    # what is to be shown

    async def restore(self) -> None:
        if not self.copies:
            return
        copy, user = self.rng.choice(self.copies), self.rng.choice(PEOPLE)
        place, wanted = At(copy.url), {"user": user}
        if (mine := [(id_, people) for id_, people in conversations_of(place) if people]) and self.rng.random() < 0.5:
            conversation, people = self.rng.choice(mine)
            wanted = {"conversation": conversation}
            if self.rng.random() < 0.5:
                wanted["user"] = self.rng.choice(people)
        before, seen, rows = texts(self.world), sights(self.world), self.world.rows()
        if self._is_busy:
            result, _ = await asyncio.gather(self._try(copy, wanted), self._write_on())
        else:
            result = await self._try(copy, wanted)
        if result is None:
            assert self._is_busy or self.world.rows() == rows
            return
        self.restored += 1
        after = texts(self.world)
        assert before.items() <= after.items()
        assert self.forbidden.isdisjoint(after)
        self._check_sights(copy, wanted, seen, after.keys() - before.keys() - texts(place).keys())
        again = self.world.rows()
        assert await self._try(copy, wanted) == {**result, "conversations": 0, "messages": 0, "memories": 0}
        assert self.world.rows() == again
        await self.world.settle()

    async def _write_on(self) -> None:
        for _ in range(6):
            await self.rng.choice([self.say, self.write])()

    async def _try(self, copy: Copy, wanted: dict[str, str]) -> PutBack | None:
        try:
            result = await self.world.restore(copy.url, **wanted)
        except AccountErased:
            assert len(self.erased) > copy.erasures
            return None
        except NotFound:
            assert "conversation" not in wanted
            return None
        assert result["left_out"] == []
        return result

    def _check_sights(self, copy: Copy, wanted: dict[str, str], before: dict[str, set[str]], written: set[str]) -> None:
        """Wanted people see what they saw then and what they saw before; the others what they saw before.

        `written` was meanwhile.
        """
        place, gone = At(copy.url), self.erased[copy.erasures :]
        then, now = sights(place), {person: ids - written for person, ids in sights(self.world).items()}
        of_this = None
        if "conversation" in wanted:
            of_this = {id_ for id_, row in texts(place).items() if row.conversation_id == wanted["conversation"]}
        for person in PEOPLE:
            assert before[person] <= now[person], "something that was seen is not seen any more"
            is_wanted = wanted.get("user") in (None, person) and person not in gone
            may = then[person] if of_this is None else then[person] & of_this
            if is_wanted:
                assert may - self.forbidden <= now[person], "something is still missing"
            elif self._clock is not None:
                continue  # of the same time there may be what this one has deleted and what they have not
            elif not self.has_gone_back:
                assert now[person] == before[person], "somebody else sees something else"
            else:  # what the database itself has lost comes back for everybody who saw it
                assert now[person] - before[person] <= may, "somebody else sees something else"


async def test_a_history(world: World, take_copy: MakeCopy, erase: Erase) -> None:
    history = History(world, take_copy, erase, seed=1)
    await history.live(60)
    assert history.restored
    await world.check()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(100, 100 + HISTORIES))
async def test_longer_histories(world: World, take_copy: MakeCopy, erase: Erase, seed: int) -> None:
    history = History(world, take_copy, erase, seed)
    await history.live(150)
    assert history.restored
    await world.check()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("jumping", range(200, 200 + HISTORIES), indirect=True)
async def test_histories_by_a_clock_that_is_set_back(
    world: World, take_copy: MakeCopy, erase: Erase, jumping: JumpingClock
) -> None:
    history = History(world, take_copy, erase, 1, jumping=jumping)
    await history.live(80)
    assert history.restored
    await world.check()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(300, 300 + HISTORIES))
async def test_histories_in_which_people_write_on(world: World, take_copy: MakeCopy, erase: Erase, seed: int) -> None:
    history = History(world, take_copy, erase, seed, is_busy=True)
    await history.live(40)
    assert history.restored
    await world.check()
