"""Messages come back in their order, whatever has their numbers now."""

from typing import Any

import pytest
from sqlalchemy import delete, select

from tests.rows import execute, fetch
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.world import World, seqs
from yral_chat.core.clock import now
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.memories import StoredMemory
from yral_chat.db.tables import messages
from yral_chat.services.restores import Wanted, placing
from yral_chat.services.turns.records import NewMessage


async def test_after_a_restore_of_the_whole_what_was_written_since_comes_last(
    world: World, take_copy: MakeCopy
) -> None:
    """The database went back to an earlier time and on from there; then somebody misses what was in between."""
    conversation = await world.say("ann", "one")
    earlier = take_copy()
    await world.say("ann", "two", "three")
    later = take_copy()
    await world.go_back(earlier)
    await world.say("ann", "instead")
    assert (await world.restore(later, conversation=conversation))["messages"] == 4
    assert [text for _, text in seqs(world, conversation)] == [
        "Hello!", "one", "Yes: one", "two", "Yes: two", "three", "Yes: three", "instead", "Yes: instead",
    ]  # fmt: skip
    await world.say("ann", "and on")
    await world.check()
    before = world.rows()
    await world.restore(later, conversation=conversation)
    assert world.rows() == before


async def test_after_a_restore_of_the_whole_an_older_conversation_comes_first(
    world: World, take_copy: MakeCopy
) -> None:
    """What was begun anew is missed; and the one before it, which was deleted then, is back."""
    old = await world.say("ann", "one", "two")
    earlier = take_copy()
    await world.delete("ann", old)
    missed = await world.say("ann", "three")
    later = take_copy()
    await world.go_back(earlier)
    await world.say("ann", "four")
    assert (await world.restore(later, conversation=missed))["messages"] == 3
    assert [text for _, text in seqs(world, old)] == [
        *("Hello!", "one", "Yes: one", "two", "Yes: two"), *("Hello!", "three", "Yes: three"), *("four", "Yes: four"),
    ]  # fmt: skip
    await world.check()
    before = world.rows()
    await world.restore(later, user="ann")
    assert world.rows() == before


async def test_each_missing_message_stands_beside_its_neighbours(world: World, take_copy: MakeCopy) -> None:
    """Also when all have other numbers by now."""
    old = await world.say("ann", "one")
    first = take_copy()
    await world.delete("ann", old)
    new = await world.say("ann", "two", "three", "four")
    second = take_copy()
    await world.restore(first, conversation=old)
    execute(world, delete(messages).where(messages.c.content.in_(["three", "Yes: three"])))
    assert (await world.restore(second, conversation=new))["messages"] == 2
    assert [text for _, text in seqs(world, new)] == [
        *("Hello!", "one", "Yes: one"),
        *("Hello!", "two", "Yes: two", "three", "Yes: three", "four", "Yes: four"),
    ]
    await world.check()


async def test_many_move_in_pieces_and_people_go_on_writing(
    world: World, take_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "CHUNK", 3)
    old = await world.say("ann", *"abcde")
    copy = take_copy()
    await world.delete("ann", old)
    new = await world.say("ann", *"fghij")

    def remember(uow: UnitOfWork) -> None:
        for seq in (1, 6, 11):
            uow.memories.save(new, StoredMemory(f"at_{seq}", "x", None, seq, 90, 0, 0))

    await world.database.write(remember)
    at = {text: seq for seq, text in seqs(world, new)}
    low, through = 1, 11
    high, by = await world.database.write(placing.begin_to_move, new, low, through)
    while high >= low:
        await world.say("ann", f"while it moves {high}")
        assert [text for _, text in seqs(world, new)][:11] == [
            "Hello!", *(word for text in "fghij" for word in (text, f"Yes: {text}")),
        ]  # fmt: skip
        assert (await world.see("ann", new))[-2] == f"while it moves {high}"
        high = await world.database.write(placing.move_some, new, low, high, by)
    moved = {text: seq for seq, text in seqs(world, new)}
    assert {text: moved[text] - seq for text, seq in at.items()} == dict.fromkeys(at, by)
    found = await world.database.read(lambda uow: uow.memories.list_all(new))
    assert {one.key: one.source_seq for one in found} == {f"at_{seq}": seq + by for seq in (1, 6, 11)}
    await world.check()
    assert (await world.restore(copy, conversation=old))["messages"] == 11
    await world.check()


async def test_a_move_that_was_cut_off_begins_anew(
    world: World, take_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "CHUNK", 2)
    old = await world.say("ann", "a", "b")
    copy = take_copy()
    await world.delete("ann", old)
    new = await world.say("ann", "c", "d")
    high, by = await world.database.write(placing.begin_to_move, new, 1, 5)
    await world.database.write(placing.move_some, new, 1, high, by)
    await world.say("ann", "e")
    assert (await world.restore(copy, conversation=old))["messages"] == 5
    assert [text for _, text in seqs(world, new)] == [
        *("Hello!", "a", "Yes: a", "b", "Yes: b"), *("Hello!", "c", "Yes: c", "d", "Yes: d", "e", "Yes: e"),
    ]  # fmt: skip
    await world.check()


async def test_a_reply_that_is_written_while_numbers_change_finds_its_place(world: World, take_copy: MakeCopy) -> None:
    old = await world.say("ann", "a", "b")
    copy = take_copy()
    await world.delete("ann", old)
    new = await world.say("ann", "c")
    await world.say("ann", "d", reply=None)
    (turn,) = await world.database.read(lambda uow: uow.turns.list_orphans(now() + 10**12))
    await world.restore(copy, conversation=old)

    def end(uow: UnitOfWork) -> None:
        from yral_chat.services.turns import ending
        from yral_chat.services.turns.records import Ending

        ending.end(uow, turn, Ending("Yes: d", provider="p", model="m", tokens=1), [], str)

    await world.database.write(end)
    assert (await world.see("ann", new))[-3:] == ["Yes: c", "d", "Yes: d"]
    await world.check()


async def test_a_conversation_that_is_deleted_meanwhile_is_not_made_again(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", *(str(number) for number in range(110)))
    copy = take_copy()
    await world.delete("ann", conversation)
    steps = world.restores.put_back(copy, Wanted(user_id="ann"))
    assert [await anext(steps) for _ in range(3)] == [{"done": 0}, {"done": 0}, {"done": 199}]
    await world.delete("ann", conversation)
    (last,) = [step async for step in steps]
    assert last["result"]["left_out"] == [
        {"conversation_id": conversation, "reason": "Conversation not found"},
    ]  # fmt: skip
    assert await world.inbox("ann") == {}
    await world.check()


async def test_a_run_that_was_cut_off_is_repeated_and_doubles_nothing(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", *(str(number) for number in range(250)))
    copy = take_copy()
    await world.delete("ann", conversation)
    steps = world.restores.put_back(copy, Wanted(conversation))
    assert [await anext(steps) for _ in range(2)] == [{"done": 0}, {"done": 199}]
    await steps.aclose()
    await world.check()
    assert len(fetch(world, select(messages.c.id).where(messages.c.conversation_id == conversation))) == 199
    await world.send("ann", conversation, NewMessage("in between"))
    assert (await world.restore(copy, conversation=conversation))["messages"] == 302
    found = [text for _, text in seqs(world, conversation)]
    assert found[-2:] == ["in between", "Yes"]
    assert len(found) == 503
    await world.check()


async def test_what_is_written_in_the_very_moment_moves_up_too(
    world: World, take_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the number that was free a moment ago."""
    conversation = await world.say("ann", "one")
    earlier = take_copy()
    await world.say("ann", "two")
    later = take_copy()
    await world.go_back(earlier)
    write = world.watched.write

    async def writing(fn: Any, *args: Any, **kwargs: Any) -> Any:
        if fn is placing.keep_free and "instead" not in await world.see("ann", conversation):
            await world.say("ann", "instead")
        return await write(fn, *args, **kwargs)

    monkeypatch.setattr(world.watched, "write", writing)
    assert (await world.restore(later, conversation=conversation))["messages"] == 2
    assert [text for _, text in seqs(world, conversation)] == [
        *("Hello!", "one", "Yes: one"), *("two", "Yes: two"), *("instead", "Yes: instead"),
    ]  # fmt: skip
    await world.check()
