"""Conversations of two people: each has a side of their own, and only the wanted one's comes back."""

from sqlalchemy import delete

from tests.rows import execute
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.world import World, seqs
from yral_chat.db.tables import messages

ALL = ["a1", "b1", "a2", "b2"]


async def talk(world: World) -> str:
    """Of four messages, of which the last is unread."""
    pair = await world.write("ann", "ben", "a1")
    await world.write("ben", "ann", "b1")
    await world.write("ann", "ben", "a2")
    await world.read("ann", pair)
    await world.read("ben", pair)
    await world.write("ben", "ann", "b2")
    return pair


async def test_what_one_has_deleted_is_seen_again_and_the_other_notices_nothing(
    world: World, take_copy: MakeCopy
) -> None:
    pair, copy = await talk(world), take_copy()
    await world.delete("ann", pair)
    assert await world.inbox("ann") == {}
    before = await world.see("ben", pair)
    result = await world.restore(copy, user="ann")
    assert (result["conversations"], result["messages"]) == (0, 0)
    assert await world.see("ann", pair) == ALL
    assert await world.inbox("ann") == {pair: 1}
    assert await world.see("ben", pair) == before
    await world.check()
    await world.read("ann", pair)
    await world.check()


async def test_a_side_that_showed_itself_again_has_both_what_was_deleted_and_what_came_since(
    world: World, take_copy: MakeCopy
) -> None:
    pair, copy = await talk(world), take_copy()
    await world.delete("ann", pair)
    await world.write("ben", "ann", "b3")
    assert await world.see("ann", pair) == ["b3"]
    await world.restore(copy, conversation=pair, user="ann")
    assert await world.see("ann", pair) == [*ALL, "b3"]
    assert await world.inbox("ann") == {pair: 2}
    await world.check()


async def test_deleted_by_both_it_comes_back_for_the_wanted_one_only(world: World, take_copy: MakeCopy) -> None:
    pair, copy = await talk(world), take_copy()
    for person in ("ann", "ben"):
        await world.delete(person, pair)
    result = await world.restore(copy, user="ann")
    assert (result["conversations"], result["messages"]) == (1, 4)
    assert await world.see("ann", pair) == ALL
    assert await world.inbox("ann") == {pair: 1}
    assert await world.inbox("ben") == {}
    await world.check()
    await world.write("ann", "ben", "a3")
    assert await world.see("ben", pair) == ["a3"]
    await world.check()


async def test_deleted_by_both_the_conversation_comes_back_for_both(world: World, take_copy: MakeCopy) -> None:
    pair, copy = await talk(world), take_copy()
    for person in ("ann", "ben"):
        await world.delete(person, pair)
    await world.restore(copy, conversation=pair)
    assert await world.see("ann", pair) == await world.see("ben", pair) == ALL
    assert (await world.inbox("ann"), await world.inbox("ben")) == ({pair: 1}, {pair: 0})
    await world.check()


async def test_it_goes_before_the_one_that_the_two_have_begun_since(world: World, take_copy: MakeCopy) -> None:
    old, copy = await talk(world), take_copy()
    for person in ("ann", "ben"):
        await world.delete(person, old)
    new = await world.write("ben", "ann", "n1")
    await world.write("ann", "ben", "n2")
    await world.read("ben", new)
    result = await world.restore(copy, user="ann")
    assert (result["conversations"], result["messages"]) == (0, 4)
    assert await world.see("ann", new) == [*ALL, "n1", "n2"]
    assert await world.see("ben", new) == ["n1", "n2"]
    await world.check()
    await world.read("ann", new)
    await world.read("ben", new)
    await world.check()
    before = world.rows()
    await world.restore(copy, user="ann")
    assert world.rows() == before


async def test_lost_messages_come_back_for_both_but_not_to_whom_deleted_them(world: World, take_copy: MakeCopy) -> None:
    pair = await world.write("ann", "ben", "early")
    await world.delete("ben", pair)
    await world.write("ann", "ben", "a1", "a2")
    copy = take_copy()
    execute(world, delete(messages).where(messages.c.content.in_(["early", "a1"])))
    await world.restore(copy, conversation=pair)
    assert [text for _, text in seqs(world, pair)] == ["early", "a1", "a2"]
    assert await world.see("ann", pair) == ["early", "a1", "a2"]
    assert await world.see("ben", pair) == ["a1", "a2"]


async def test_what_nobody_of_the_wanted_saw_is_left_alone(world: World, take_copy: MakeCopy) -> None:
    pair = await talk(world)
    await world.delete("ann", pair)
    copy = take_copy()
    await world.delete("ben", pair)
    before = world.rows()
    assert (await world.restore(copy, user="ann"))["conversations"] == 0
    assert world.rows() == before
