"""One conversation with a persona comes back."""

from sqlalchemy import delete, update

from tests.rows import execute
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.world import World, seqs
from yral_chat.db.tables import messages


async def test_a_deleted_conversation_comes_back_as_it_was(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("somebody", "one", "two")
    await world.settle()
    before, copy = world.rows(), take_copy()
    await world.delete("somebody", conversation)
    await world.settle()
    assert await world.inbox("somebody") == {}

    result = await world.restore(copy, conversation=conversation)
    assert result == {"conversations": 1, "messages": 5, "memories": 0, "influencers": 0, "left_out": []}
    await world.check()
    after = world.rows()
    for name in ("conversations", "participants", "messages", "memories", "media_uses", "usage_events", "influencers"):
        assert after[name] == before[name], name
    assert await world.inbox("somebody") == {conversation: 3}


async def test_what_is_there_stays_and_what_is_missing_comes_back(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("somebody", "one", "two", "three")
    copy = take_copy()
    execute(world, update(messages).where(messages.c.content == "Yes: three").values(content="Better: three"))
    await world.say("somebody", "since then")
    gone = messages.c.content.in_(["one", "Yes: one", "two"])
    execute(world, delete(messages).where(messages.c.conversation_id == conversation, gone))

    result = await world.restore(copy, conversation=conversation)
    assert (result["conversations"], result["messages"]) == (0, 3)
    assert [text for _, text in seqs(world, conversation)] == [
        "Hello!", "one", "Yes: one", "two", "Yes: two", "three", "Better: three", "since then", "Yes: since then",
    ]  # fmt: skip


async def test_a_second_time_nothing_changes_at_all(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("somebody", "one", "two")
    copy = take_copy()
    await world.delete("somebody", conversation)
    await world.restore(copy, conversation=conversation)
    before = world.rows()
    result = await world.restore(copy, conversation=conversation)
    assert result == {"conversations": 0, "messages": 0, "memories": 0, "influencers": 0, "left_out": []}
    assert world.rows() == before


async def test_it_goes_before_the_one_that_was_begun_since(world: World, take_copy: MakeCopy) -> None:
    old = await world.say("somebody", "one", "two")
    copy = take_copy()
    await world.delete("somebody", old)
    new = await world.say("somebody", "again")
    assert new != old
    result = await world.restore(copy, conversation=old)
    assert (result["conversations"], result["messages"]) == (0, 5)
    found = list(seqs(world, new))
    assert found[:5] == [(1, "Hello!"), (2, "one"), (3, "Yes: one"), (4, "two"), (5, "Yes: two")]
    assert [text for _, text in found[5:]] == ["Hello!", "again", "Yes: again"]
    await world.check()
    assert await world.inbox("somebody") == {new: 5}
    before = world.rows()
    await world.restore(copy, conversation=old)
    assert world.rows() == before
