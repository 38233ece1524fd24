"""Everything of one person comes back, and nothing of anybody else is touched."""

import orjson
import pytest
from sqlalchemy import delete, select

from tests.rows import execute, fetch
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.world import Rows, World
from yral_chat.core.errors import NotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.influencer_versions import StoredVersion
from yral_chat.db.tables import conversations, influencer_versions, influencers, media_objects, participants
from yral_chat.realtime.hub import Listener

# What grows for everybody at once: totals, and what operators look up.
SHARED = ("counters", "counter_deltas", "audit_events")


def of_others(world: World, *people: str) -> Rows:
    """Every row in which none of these people stands."""
    return {
        name: {row for row in rows if not any(person in row for person in people)}
        for name, rows in world.rows(*SHARED).items()
    }


async def listen(world: World, user: str) -> Listener:
    """An open socket."""
    listener = world.hub.connect(user, wants_deltas=False)
    newest = await world.database.read(lambda uow: uow.events.last_seq(user))
    world.hub.begin(listener, newest)
    return listener


async def test_all_conversations_of_a_person_come_back_and_no_row_of_others_changes(
    world: World, take_copy: MakeCopy
) -> None:
    first, second = await world.say("ann", "one"), await world.say("ann", "two", bot="own")
    pair = await world.write("friend", "ann", "hello ann")
    kept = await world.say("ann", "three", bot="bot")
    await world.settle()
    copy = take_copy()
    await world.say("neighbour", "since then")
    for conversation in (first, second, pair):
        await world.delete("ann", conversation)
    await world.settle()
    before = of_others(world, "ann", first, second, pair)
    assert sum(map(len, before.values())) > 20

    result = await world.restore(copy, user="ann")
    assert (result["conversations"], result["messages"]) == (2, 8)
    assert set(await world.inbox("ann")) == {first, second, pair}
    assert first == kept
    await world.check()
    after = of_others(world, "ann", first, second, pair)
    # Both personas are counted anew, which is what a fold does.
    assert {name for name in before if before[name] != after[name]} <= {"influencers"}


async def test_what_people_have_counts_as_before(world: World, take_copy: MakeCopy) -> None:
    await world.say("ann", "one")
    await world.settle()
    copy = take_copy()
    counted = {row.id: (row.conversation_count, row.message_count) for row in fetch(world, select(influencers))}
    for conversation in await world.inbox("ann"):
        await world.delete("ann", conversation)
    await world.restore(copy, user="ann")
    await world.settle()
    assert {row.id: (row.conversation_count, row.message_count) for row in fetch(world, select(influencers))} == counted


async def test_nobody_is_found_whom_the_copy_does_not_know(world: World, take_copy: MakeCopy) -> None:
    copy = take_copy()
    conversation = await world.say("ann", "one")
    with pytest.raises(NotFound, match="nothing of this person"):
        await world.restore(copy, user="ann")
    with pytest.raises(NotFound, match="no such conversation"):
        await world.restore(copy, conversation=conversation)
    (theirs,) = (id_ for id_, unread in (await world.inbox("neighbour")).items() if unread == 3)
    with pytest.raises(NotFound, match="not that person's"):
        await world.restore(copy, conversation=theirs, user="ann")


# personas


async def test_a_deleted_persona_stays_deleted_and_its_conversations_come_back(
    world: World, take_copy: MakeCopy
) -> None:
    conversation = await world.say("ann", "one")
    copy = take_copy()
    await world.delete("ann", conversation)
    await world.database.write(lambda uow: uow.influencers.update("bot", status="discontinued", status_rank=2))
    await world.restore(copy, user="ann")
    assert await world.see("ann", conversation) == ["Hello!", "one", "Yes: one"]
    (row,) = fetch(world, select(influencers).where(influencers.c.id == "bot"))
    assert row.status == "discontinued"


async def test_a_persona_that_is_gone_leaves_its_conversation_an_id(world: World, take_copy: MakeCopy) -> None:
    """As after a restore of the whole to a time before it was made."""
    conversation = await world.say("ann", "one", bot="own")
    copy = take_copy()
    await world.delete("ann", conversation)
    execute(world, delete(influencers).where(influencers.c.id == "own"))
    await world.restore(copy, user="ann")
    assert await world.see("ann", conversation) == ["Hello!", "one", "Yes: one"]
    (row,) = fetch(world, select(influencers).where(influencers.c.id == "own"))
    assert (row.display_name, row.status, row.owner_id, row.system_instructions) == (
        "Deleted Bot", "discontinued", None, "",
    )  # fmt: skip
    await world.check()


async def test_a_persona_of_ones_own_that_is_gone_comes_back_with_its_texts_and_pictures(
    world: World, take_copy: MakeCopy
) -> None:
    await world.upload("owner", "public/avatar.png")
    await world.upload("owner", "owner/unused.png")

    def unit(uow: UnitOfWork) -> None:
        uow.influencer_versions.keep("own", StoredVersion(1, "Be kind.", 5))
        uow.media.set_used("public/avatar.png")

    await world.database.write(unit)
    conversation = await world.say("owner", "one", bot="own")
    await world.settle()
    copy, before = take_copy(), fetch(world, select(influencers).where(influencers.c.id == "own"))
    execute(world, delete(media_objects))
    execute(world, delete(conversations).where(conversations.c.id == conversation))
    execute(world, delete(participants).where(participants.c.principal_id == "own"))
    execute(world, delete(influencer_versions))
    execute(world, delete(influencers).where(influencers.c.id == "own"))
    result = await world.restore(copy, user="owner")
    assert (result["influencers"], result["conversations"], result["messages"]) == (1, 1, 3)
    await world.settle()
    assert fetch(world, select(influencers).where(influencers.c.id == "own")) == before
    assert [row.n for row in fetch(world, select(influencer_versions))] == [1]
    assert [row.key for row in fetch(world, select(media_objects))] == ["public/avatar.png"]


# those who listen


async def test_open_sockets_are_told_to_ask_anew_and_others_hear_nothing(world: World, take_copy: MakeCopy) -> None:
    pair = await world.write("ann", "ben", "one")
    copy = take_copy()
    await world.delete("ann", pair)
    ann, ben = await listen(world, "ann"), await listen(world, "ben")
    await world.restore(copy, user="ann")
    frame = orjson.loads(await ann.take() or "")
    newest = await world.database.read(lambda uow: uow.events.last_seq("ann"))
    assert frame == {"event": "resync", "seq": newest, "data": {"reason": "messages were restored from a backup"}}
    for listener in (ann, ben):
        listener.close(1012, "the test is over")
        assert await listener.take() is None
    await world.restore(copy, user="ann")
    assert await world.database.read(lambda uow: uow.events.last_seq("ann")) == newest
