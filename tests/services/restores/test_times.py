"""Messages of the same time: a clock was set back, or another service went on with a copy."""

import pytest

from tests.services.conftest import StillClock
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.world import World, seqs
from yral_chat.core.clock import MILLISECOND, SECOND
from yral_chat.services.turns.records import NewMessage

# Microseconds from the first message that comes back, of four that are a millisecond apart, to the first one here.
IN_SHORT = (-400, 0)
LATER = [
    later if later in IN_SHORT else pytest.param(later, marks=pytest.mark.long)
    for later in (-1500, -1000, -999, -400, 0, 1, 400, 999, 1000, 1600, 3001)
]


@pytest.mark.parametrize("later", LATER)
async def test_another_service_has_gone_on_with_a_copy(
    world: World, take_copy: MakeCopy, still: StillClock, later: int
) -> None:
    conversation = await world.say("ann", "one")
    forked = take_copy()
    still.micros += SECOND
    begun = still.micros
    await world.say("ann", "two", "three")
    of_the_other = take_copy()
    await world.go_back(forked)
    still.micros = begun + later
    await world.say("ann", "instead", "and on")
    here = await world.see("ann", conversation)
    assert (await world.restore(of_the_other, conversation=conversation))["messages"] == 4
    await world.check()
    both = [text for _, text in seqs(world, conversation)]
    there = ["two", "Yes: two", "three", "Yes: three"]
    assert sorted(both) == sorted([*here, *there])
    assert [text for text in both if text in here] == here
    assert [text for text in both if text in there] == there
    before = world.rows()
    assert (await world.restore(of_the_other, conversation=conversation))["messages"] == 0
    assert world.rows() == before
    await world.say("ann", "at last")
    assert (await world.see("ann", conversation))[-2:] == ["at last", "Yes: at last"]
    await world.check()


@pytest.mark.parametrize("later", LATER)
async def test_two_people_began_anew_while_the_clock_was_set_back(
    world: World, take_copy: MakeCopy, still: StillClock, later: int
) -> None:
    begun = still.micros
    old = await world.write("ann", "ben", "o1", "o2")
    await world.write("ben", "ann", "o3", "o4")
    copy = take_copy()
    for person in ("ann", "ben"):
        await world.delete(person, old)
    still.micros = begun + later
    new = await world.write("ben", "ann", "n1", "n2")
    assert (await world.restore(copy, user="ann"))["messages"] == 4
    seen = await world.see("ann", new)
    assert [text for text in seen if text[0] == "o"] == ["o1", "o2", "o3", "o4"]
    assert [text for text in seen if text[0] == "n"] == ["n1", "n2"]
    assert {"n1", "n2"} <= set(await world.see("ben", new))
    await world.check()
    before = world.rows()
    await world.restore(copy, user="ann")
    assert world.rows() == before


@pytest.mark.long
async def test_a_long_row_finds_its_place_among_another(world: World, take_copy: MakeCopy, still: StillClock) -> None:
    """Every message of the one is less than a millisecond away from one of the other, over several pages."""
    conversation = await world.open("ann")
    forked = take_copy()
    begun = still.micros = still.micros + SECOND
    for number in range(130):
        await world.send("ann", conversation, NewMessage(f"far {number}"), f"Yes, far {number}")
    of_the_other = take_copy()
    await world.go_back(forked)
    still.micros = begun + MILLISECOND // 2
    for number in range(20):
        await world.send("ann", conversation, NewMessage(f"near {number}"), f"Yes, near {number}")
    assert (await world.restore(of_the_other, user="ann"))["messages"] == 260
    both = [text for _, text in seqs(world, conversation)]
    for place, count in (("far", 130), ("near", 20)):
        told = [text for text in both if f"{place} " in text]
        assert told == [text for number in range(count) for text in (f"{place} {number}", f"Yes, {place} {number}")]
    await world.check()
