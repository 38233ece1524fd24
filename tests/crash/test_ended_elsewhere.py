"""What an earlier process has begun, or somebody else has ended, is told as it is."""

import asyncio
import uuid

import pytest
from sqlalchemy import delete, select, update

from tests.client import messages, text_of
from tests.crash.conftest import MakeUser
from tests.crash.outside import asked
from tests.rows import execute, fetch
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.core.clock import SECOND, now
from yral_chat.db.tables import jobs, turns, usage_events
from yral_chat.db.tables import messages as message_rows

# Twice what the runner waits between two looks.
SOON_SECONDS = 10.0


@pytest.mark.long
async def test_a_turn_that_somebody_else_ended_is_no_deleted_conversation(
    own_service: Service, new_user: MakeUser, model: FakeModel
) -> None:
    """As when the answer to a COMMIT was lost, or a turn is stopped before this process knows of it."""
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    model.tell(script=[{"pieces": ["Once", " upon"], "is_held": True}], release=1)
    sending = asyncio.create_task(api.send(conversation["id"], "Hello", client_message_id="key"))
    await asked(model, 1)
    (turn,) = fetch(own_service, select(turns))
    end = {"status": "cancelled", "error_code": "CANCELLED", "completed_at": now()}
    execute(own_service, delete(turns).where(turns.c.id == turn.id))
    execute(own_service, update(message_rows).where(message_rows.c.id == turn.id).values(end))
    model.tell(release=10)
    path = f"{messages(conversation['id'])}/{turn.id}/stream"
    async with api.streaming("GET", path) as (_, events):
        seen = [event async for event in events]
    response = await sending
    assert (response.status_code, response.json()["error"]) == (409, "turn_cancelled"), response.text
    assert response.json()["details"]["assistant_message"]["status"] == "cancelled"
    assert (seen[-1].event, seen[-1].data["code"], seen[-1].data["turn_running"]) == ("error", "CANCELLED", False)
    again = await api.stream(conversation["id"], "Hello", client_message_id="key")
    assert text_of(again) == "You said: Hello"


async def test_what_a_killed_process_was_recording_is_recorded_soon_after_the_start(
    own_service: Service, new_user: MakeUser
) -> None:
    own_service.start()
    api = new_user(own_service)
    conversation = await api.open()
    # The runner gathers jobs for a moment; a kill within it leaves them.
    reply: dict[str, object] = {}
    while not fetch(own_service, select(jobs)):
        if own_service.process.process.poll() is not None:
            own_service.start()
        _, reply = await api.said(conversation["id"], str(uuid.uuid4()))
        own_service.kill()
    # As they lie there when the process dies in the middle of them: begun, and leased for a minute.
    execute(own_service, update(jobs).values(attempts=1, run_at=now() + 60 * SECOND))
    assert not fetch(own_service, select(usage_events).where(usage_events.c.turn_id == reply["id"]))
    own_service.start()

    async def is_recorded() -> bool:
        return bool(fetch(own_service, select(usage_events).where(usage_events.c.turn_id == reply["id"])))

    await until(is_recorded, what="the record of the turn", seconds=SOON_SECONDS)
    assert not fetch(own_service, select(jobs))
