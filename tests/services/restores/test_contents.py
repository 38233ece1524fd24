"""What comes back with the messages: memories, files, pictures; and what was being written."""

import pytest
from sqlalchemy import select, update

from tests.rows import execute, fetch
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.world import LIMITS, World
from yral_chat.core.clock import now
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.memories import EVERYTHING, StoredMemory, Summary
from yral_chat.db.repositories.pictures import PictureRequest
from yral_chat.db.tables import audit_events, jobs, media_objects, media_uses, messages, user_settings
from yral_chat.services.media.service import REMOVE_JOB
from yral_chat.services.turns import accepting
from yral_chat.services.turns.records import NewMessage


def memory(key: str, value: str, seq: int = 2, confidence: int = 90) -> StoredMemory:
    return StoredMemory(key, value, None, seq, confidence, now(), now())


async def remember(world: World, conversation: str, *memories: StoredMemory) -> None:
    def unit(uow: UnitOfWork) -> None:
        for one in memories:
            uow.memories.save(conversation, one)

    await world.database.write(unit)


async def known(world: World, conversation: str) -> dict[str, str]:
    found = await world.database.read(lambda uow: uow.memories.list_all(conversation))
    return {one.key: one.value for one in found}


async def test_memories_come_back_but_for_those_that_were_deleted_or_changed(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", "one", "two")
    await remember(world, conversation, memory("city", "Pune"), memory("job", "baker"), memory("pet", "a cat"))
    await world.database.write(lambda uow: uow.memories.save_summary(conversation, Summary("They met.", 2), now()))
    copy = take_copy()

    def unit(uow: UnitOfWork) -> None:
        uow.memories.delete_all(conversation)
        uow.memories.forget(conversation, "pet", 3)  # which the person did; the rest is the accident
        uow.memories.save(conversation, memory("job", "smith", 4))

    await world.database.write(unit)
    assert (await world.restore(copy, conversation=conversation))["memories"] == 1
    assert await known(world, conversation) == {"city": "Pune", "job": "smith"}

    await world.delete("ann", conversation)
    assert (await world.restore(copy, conversation=conversation))["memories"] == 3
    assert await known(world, conversation) == {"city": "Pune", "job": "baker", "pet": "a cat"}
    summary = await world.database.read(lambda uow: uow.memories.find_summary(conversation))
    assert summary == Summary("They met.", 2)


async def test_a_deletion_of_memories_comes_back_too(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", "one")
    await remember(world, conversation, memory("city", "Pune"))
    earlier = take_copy()

    def unit(uow: UnitOfWork) -> None:
        uow.memories.delete_all(conversation)
        uow.memories.forget(conversation, EVERYTHING, 3)

    await world.database.write(unit)
    later = take_copy()
    await world.delete("ann", conversation)
    await world.restore(later, conversation=conversation)
    assert (await world.restore(earlier, conversation=conversation))["memories"] == 0
    assert await known(world, conversation) == {}


async def test_memories_of_the_newer_conversation_keep_their_places(world: World, take_copy: MakeCopy) -> None:
    old = await world.say("ann", "one", "two")
    await remember(world, old, memory("city", "Pune", 4), memory("pet", "a cat", 4))
    copy = take_copy()
    await world.delete("ann", old)
    new = await world.say("ann", "again")
    await remember(world, new, memory("city", "Goa", 2))
    await world.database.write(lambda uow: uow.memories.forget(new, "pet", 2))
    await world.restore(copy, conversation=old)
    assert await known(world, new) == {"city": "Goa"}
    (moved,) = await world.database.read(lambda uow: uow.memories.list_all(new))
    (said,) = fetch(world, select(messages.c.seq).where(messages.c.content == "again"))
    assert moved.source_seq == said[0]


async def test_whoever_has_switched_memories_off_gets_none_back(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", "one")
    await remember(world, conversation, memory("city", "Pune"))
    copy = take_copy()
    await world.delete("ann", conversation)
    await world.database.write(lambda uow: uow.settings.change("ann", now(), memories_enabled=False))
    assert (await world.restore(copy, user="ann"))["memories"] == 0
    assert await known(world, conversation) == {}


async def test_no_more_memories_than_a_conversation_may_have(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", "one")
    await remember(world, conversation, *(memory(f"old_{number}", "x", 2, number % 90) for number in range(60)))
    copy = take_copy()
    await world.delete("ann", conversation)
    new = await world.say("ann", "two")
    await remember(world, new, *(memory(f"new_{number}", "x", 2, 1) for number in range(70)))
    assert (await world.restore(copy, conversation=conversation))["memories"] == 30
    found = await known(world, new)
    assert sum(key.startswith("new") for key in found) == 70
    assert "old_59" in found


@pytest.mark.parametrize("partial", ["", "Half of"])
async def test_a_reply_that_was_being_written_has_failed(world: World, take_copy: MakeCopy, partial: str) -> None:
    conversation = await world.say("ann", "one")
    await world.say("ann", "two", reply=None)
    (reply,) = fetch(world, select(messages.c.id).where(messages.c.status == "pending"))
    if partial:
        await world.database.write(lambda uow: uow.messages.save_partial({reply[0]: partial}))
    copy = take_copy()
    await world.delete("ann", conversation)
    assert (await world.restore(copy, conversation=conversation))["messages"] == 5
    found = await world.database.read(lambda uow: uow.messages.find(conversation, reply[0]))
    assert found is not None
    assert (found.message["status"], found.message["content"]) == ("failed", partial)
    assert found.message["error"] is not None
    assert found.message["error"]["retryable"]
    assert await world.see("ann", conversation) == ["Hello!", "one", "Yes: one", "two", *([partial] if partial else [])]
    assert world.rows()["turns"] == set()
    await world.check()
    # And may be asked for again.

    accepted = await world.database.write(
        lambda uow: accepting.accept_regeneration(uow, "ann", conversation, reply[0], LIMITS, "process")
    )
    assert accepted.turn is not None
    assert accepted.turn.attempt == 2


async def test_files_are_used_again_and_kept_from_a_removal_that_waits(world: World, take_copy: MakeCopy) -> None:
    kept, lost = await world.upload("ann", "ann/kept.png"), await world.upload("ann", "ann/lost.png")
    conversation = await world.open("ann")
    await world.send("ann", conversation, NewMessage("look", "multimodal", images=(kept,)))
    copy = take_copy()
    later = await world.send("ann", conversation, NewMessage("and", "multimodal", images=(lost,)))
    await world.delete("ann", conversation)
    await world.restore(copy, conversation=conversation)
    removed = [row.payload for row in fetch(world, select(jobs.c.payload).where(jobs.c.name == REMOVE_JOB))]
    assert [payload.count(lost) for payload in removed] == [1]
    assert not any(kept in payload for payload in removed)
    (row,) = fetch(world, select(media_objects))
    assert (row.key, row.owner_id, bool(row.is_used), bool(row.is_stored)) == (kept, "ann", True, True)
    (use,) = fetch(world, select(media_uses))
    assert (use.key, use.conversation_id) == (kept, conversation)
    assert use.message_id != later
    assert world.woken
    await world.check()


async def test_pictures_that_were_asked_for_are_known_again(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.open("ann")
    await world.send("ann", conversation, NewMessage("a boat"))
    (reply,) = fetch(world, select(messages.c.id).where(messages.c.content == "Yes"))
    execute(world, update(messages).where(messages.c.id == reply.id).values(origin="image"))

    made_one = PictureRequest(reply.id, conversation, "ann", "made", "a boat", "done", None, 1, now(), now())
    begun_one = PictureRequest("begun", conversation, "ann", "begun", "a boat", "running", None, 1, now(), None)

    def unit(uow: UnitOfWork) -> None:
        for one in (made_one, begun_one):
            uow.pictures.add(one)

    await world.database.write(unit)
    copy = take_copy()
    await world.delete("ann", conversation)
    await world.restore(copy, conversation=conversation)
    made = await world.database.read(lambda uow: uow.pictures.find_by_key(conversation, "made"))
    begun = await world.database.read(lambda uow: uow.pictures.find_by_key(conversation, "begun"))
    assert made is not None
    assert begun is not None
    assert (made.status, begun.status, begun.error_code) == ("done", "failed", "TRANSIENT")


async def test_a_key_that_was_used_again_belongs_to_the_later_message(world: World, take_copy: MakeCopy) -> None:
    old = await world.open("ann")
    await world.send("ann", old, NewMessage("first", client_message_id="key"))
    copy = take_copy()
    await world.delete("ann", old)
    new = await world.open("ann")
    later = await world.send("ann", new, NewMessage("second", client_message_id="key"))
    await world.restore(copy, conversation=old)
    found = await world.database.read(lambda uow: uow.messages.find_by_key(new, "ann", "key"))
    assert found is not None
    assert found.message["id"] == later
    assert "first" in await world.see("ann", new)


async def test_settings_come_back_where_there_are_none(world: World, take_copy: MakeCopy) -> None:
    await world.say("ann", "one")
    await world.database.write(lambda uow: uow.settings.change("ann", now(), locale="hi-IN"))
    copy = take_copy()
    execute(world, user_settings.delete())
    await world.restore(copy, user="ann")
    assert (await world.database.read(lambda uow: uow.settings.find("ann"))).locale == "hi-IN"
    execute(world, update(user_settings).values(locale="de-DE"))
    await world.restore(copy, user="ann")
    assert (await world.database.read(lambda uow: uow.settings.find("ann"))).locale == "de-DE"


async def test_it_is_kept_for_the_operator(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", "one")
    copy = take_copy()
    await world.delete("ann", conversation)
    await world.restore(copy, conversation=conversation)
    (row,) = fetch(world, select(audit_events).where(audit_events.c.action == "conversation.restored"))
    assert (row.subject, row.details) == (conversation, '{"messages":3,"memories":0}')


async def test_usage_is_left_alone(world: World, take_copy: MakeCopy) -> None:
    conversation = await world.say("ann", "one")
    await world.settle()
    copy = take_copy()
    await world.delete("ann", conversation)
    before = {name: world.rows()[name] for name in ("usage_events", "usage_days", "open_usage")}
    await world.restore(copy, user="ann")
    assert {name: world.rows()[name] for name in before} == before
