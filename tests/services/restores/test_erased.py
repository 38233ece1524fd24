"""Erased accounts do not come back."""

from collections.abc import Awaitable, Callable

import pytest

from tests.services.restores.conftest import MakeCopy
from tests.services.restores.test_people import talk
from tests.services.restores.world import World, seqs
from yral_chat.core.clock import now, to_text
from yral_chat.core.ids import new_id
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.jobs import ERASE_JOB
from yral_chat.services.accounts import erasing
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.restores import Wanted
from yral_chat.services.restores.erased import AccountErased

Erase = Callable[[str], Awaitable[Erasure]]


@pytest.fixture
def erase(world: World) -> Erase:
    """As AccountService does it, in one go."""

    async def run(user_id: str) -> Erasure:
        erasure = Erasure(new_id(), user_id, to_text(now()))
        ErasureLog(world.folder / "erasures.jsonl").append(erasure)

        def unit(uow: UnitOfWork) -> None:
            for conversation, _ in uow.accounts.list_ai_conversations(user_id, "", 200):
                erasing.thin_conversation(uow, conversation)
            for conversation in uow.accounts.list_human_conversations(user_id):
                erasing.thin_human_chat(uow, conversation, user_id, erasing.nobody_of(erasure))
            erasing.drop_files(uow, user_id)
            erasing.erase_influencers(uow, user_id)
            erasing.finish(uow, erasure, erasing.total([]))

        await world.database.write(unit)
        return erasure

    return run


async def test_nothing_of_an_erased_account_comes_back(world: World, take_copy: MakeCopy, erase: Erase) -> None:
    conversation = await world.say("ann", "my words")
    copy = take_copy()
    await erase("ann")
    before = world.rows()
    for wanted in ({"conversation": conversation}, {"user": "ann"}):
        with pytest.raises(AccountErased, match="erased after the copy was made"):
            await world.restore(copy, **wanted)
    assert world.rows() == before


async def test_what_was_begun_after_the_erasure_does(world: World, take_copy: MakeCopy, erase: Erase) -> None:
    await world.say("ann", "my words")
    await erase("ann")
    conversation = await world.say("ann", "a new life")
    copy = take_copy()
    await world.delete("ann", conversation)
    assert (await world.restore(copy, user="ann"))["conversations"] == 1
    assert await world.see("ann", conversation) == ["Hello!", "a new life", "Yes: a new life"]


async def test_what_was_begun_after_the_erasure_does_so_by_a_clock_that_was_set_back(
    world: World, take_copy: MakeCopy, erase: Erase, moved: list[int]
) -> None:
    await erase("ann")
    conversation = await world.say("ann", "a new life")
    copy = take_copy()
    await world.delete("ann", conversation)
    moved.append(-3600)
    assert (await world.restore(copy, user="ann"))["conversations"] == 1


async def test_of_two_people_the_other_gets_back_what_is_theirs(
    world: World, take_copy: MakeCopy, erase: Erase
) -> None:
    pair, copy = await talk(world), take_copy()
    erasure = await erase("ben")
    await world.delete("ann", pair)
    with pytest.raises(AccountErased):
        await world.restore(copy, conversation=pair, user="ben")
    result = await world.restore(copy, conversation=pair)
    assert (result["conversations"], result["messages"]) == (1, 2)
    assert await world.see("ann", pair) == ["a1", "a2"]
    assert {text for _, text in seqs(world, pair)} == {"a1", "a2"}
    assert any(erasing.nobody_of(erasure) in row for row in world.rows()["conversations"])
    await world.settle()
    before = world.rows()
    assert (await world.restore(copy, user="ann"))["messages"] == 0
    assert world.rows() == before


async def test_whoever_came_back_under_the_old_id_is_somebody_else(
    world: World, take_copy: MakeCopy, erase: Erase
) -> None:
    pair, copy = await talk(world), take_copy()
    await erase("ben")
    await world.delete("ann", pair)
    new = await world.write("ben", "ann", "who are you?")
    await world.restore(copy, user="ann")
    assert await world.see("ann", pair) == ["a1", "a2"]
    assert await world.see("ann", new) == await world.see("ben", new) == ["who are you?"]
    assert await world.inbox("ben") == {new: 0}


async def test_an_erasure_that_begins_meanwhile_ends_it(world: World, take_copy: MakeCopy) -> None:
    """The request has stored its job, and the restore is in the middle."""
    conversation = await world.say("ann", *[str(number) for number in range(150)])
    copy = take_copy()
    await world.delete("ann", conversation)
    steps = world.restores.put_back(copy, Wanted(conversation))
    assert [await anext(steps) for _ in range(2)] == [{"done": 0}, {"done": 199}]
    erasure = {"id": "erasure", "user_id": "ann", "at": to_text(now())}
    await world.database.write(lambda uow: uow.jobs.add(ERASE_JOB, erasure))
    with pytest.raises(AccountErased):
        await anext(steps)
    assert len(world.rows()["messages"]) < 301


async def test_an_erasure_that_is_over_meanwhile_ends_it(
    world: World, take_copy: MakeCopy, erase: Erase, moved: list[int]
) -> None:
    """Whatever the clock says."""
    conversation = await world.say("ann", *[str(number) for number in range(150)])
    copy = take_copy()
    await world.delete("ann", conversation)
    steps = world.restores.put_back(copy, Wanted(conversation))
    assert [await anext(steps) for _ in range(2)] == [{"done": 0}, {"done": 199}]
    moved.append(-3600)
    await erase("ann")
    before = world.rows()["messages"]
    with pytest.raises(AccountErased):
        await anext(steps)
    assert world.rows()["messages"] == before
