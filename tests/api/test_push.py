"""People without an open socket are told of what they did not receive (contract section 8.1)."""

from sqlalchemy import select

from tests.api import people
from tests.api.sockets import describe, inbox_of
from tests.client import Api, Document
from tests.fakes.webhook import WebhookReceiver
from tests.rows import fetch
from tests.service import FakeModel, Service
from tests.waiting import there, until
from yral_chat.db.tables import jobs

SECRET = "a-secret-of-the-receiver"


async def test_who_did_not_receive_a_message_is_told_of_it_and_nobody_else(
    own_service: Service, document: Document, model: FakeModel
) -> None:
    async with WebhookReceiver(SECRET) as receiver:
        own_service.settings |= {"PUSH_URL": receiver.url, "PUSH_SECRET": SECRET, "SEND_TIMEOUT_SECONDS": "0.2"}
        own_service.start()
        api, other = Api(own_service.url, document), Api(own_service.url, document)
        try:
            await _live(own_service, api, other, model, receiver)
        finally:
            await api.close()
            await other.close()


async def _live(service: Service, api: Api, other: Api, model: FakeModel, receiver: WebhookReceiver) -> None:
    conversation = await api.open()
    await api.stream(conversation["id"], "received by stream")
    chat = await people.open_with(other, api)
    frames = await describe(service.url)
    async with inbox_of(api, frames) as inbox:
        await people.wrote(other, chat["id"], "seen on the socket")
        await inbox.take_until("new_message")
        # Pushes of this one and the one before are decided while the socket is open.
        await until(there(lambda: _queue_is_empty(service)), what="both are decided")
    model.tell(default={"echo": True, "first_byte_delay": 1.0})
    assert (await api.send(conversation["id"], "not waited for")).status_code == 504
    written = await people.wrote(other, chat["id"], "to nobody's eyes")
    await until(there(lambda: len(receiver.taken) == 2), what="two pushes")
    told = {delivery.payload["message_id"]: delivery for delivery in receiver.taken}
    human = told.pop(written["id"])
    assert human.payload == {
        "type": "new_message", "title": "New message", "body": "to nobody's eyes", "conversation_id": chat["id"],
        "message_id": written["id"], "influencer_id": None, "internalUrl": "/chat", "user_id": api.user_id,
    }  # fmt: skip
    (reply,) = told.values()
    assert reply.payload["body"].startswith("You said")
    assert reply.payload["title"] == conversation["influencer"]["display_name"]
    assert reply.payload["influencer_id"] == conversation["influencer_id"]
    assert all(delivery.is_signed for delivery in receiver.received)
    health = (await api.http.get("/health")).json()["services"]["push"]
    assert (health["status"], health["circuit"]) == ("up", "closed")
    metrics = (await api.http.get("/metrics")).text
    assert 'job_queue_depth{name="push.send"}' in metrics
    assert 'circuit_breaker_state{service="push"} 0.0' in metrics


def _queue_is_empty(service: Service) -> bool:
    return fetch(service, select(jobs.c.id).where(jobs.c.name == "push.send")) == []
