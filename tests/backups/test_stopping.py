"""A service and its Litestream that are told to end at the same time, as `systemctl stop` and `docker stop` may do."""

import asyncio
import signal

from tests.backups.conftest import MakeMachine
from tests.backups.targets import Person, litestream_of, replicated
from tests.service import FakeModel
from tests.waiting import there, until
from yral_chat.clients.backup_store import Target


async def test_what_is_written_after_the_end_of_litestream_is_sent(
    new_machine: MakeMachine, folder_target: Target, model: FakeModel
) -> None:
    """A reply that is being written gets its end; by then Litestream has sent what it knew, and gone."""
    machine = new_machine(folder_target, **model.settings)
    machine.start()
    person = Person(machine)
    await replicated(machine)
    model.tell(default={"pieces": ["These are ", "the last words."], "is_held": True})
    speaking = asyncio.create_task(asyncio.to_thread(person.say, machine, "Any last words?"))
    await until(there(lambda: model.state()["open_streams"] == 1), what="the reply to begin")
    litestream = await litestream_of(machine)
    machine.service.process.process.send_signal(signal.SIGTERM)
    litestream.terminate()
    await asyncio.to_thread(litestream.wait, 10)
    model.tell(release=100)
    await speaking
    assert await asyncio.to_thread(machine.service.process.process.wait, 60) == 0
    machine.lose()
    second = new_machine(folder_target)
    await asyncio.to_thread(second.start)
    with second.client(person.user_id) as client:
        messages = client.get(f"/api/v1/chat/conversations/{person.conversation}/messages").json()["messages"]
    assert "These are the last words." in [message["content"] for message in messages]
