"""Jobs that tell: repeated until they are taken, with one key, and never for what was received or is gone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.db.conftest import add_influencer
from tests.fakes.webhook import WebhookReceiver
from yral_chat.clients.profiles import ProfileClient
from yral_chat.clients.push import Webhook
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.core.cache import LRUCache
from yral_chat.core.clock import SECOND
from yral_chat.core.config import Settings
from yral_chat.core.objects import Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.realtime.hub import Hub
from yral_chat.services import chat, job_runner, notifications, people
from yral_chat.services.job_runner import JobRunner, Kind
from yral_chat.services.notifications import (
    MAX_PUSH_AGE_SECONDS,
    OPERATOR_JOB,
    PUSH_JOB,
    NotificationService,
)
from yral_chat.services.turns import NewMessage

SECRET = "a-secret-of-the-receiver"


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver(SECRET) as running:
        yield running


@pytest.fixture
def settings(receiver: WebhookReceiver) -> Settings:
    return Settings(environment="test", push_url=receiver.url, operator_webhook_url=receiver.url)


@pytest.fixture
def hub() -> Hub:
    return Hub(max_sockets_per_user=10)


@pytest.fixture
def received() -> set[str]:
    """Replies that their senders got."""
    return set()


@pytest.fixture
async def runner(
    database: Database, receiver: WebhookReceiver, hub: Hub, received: set[str]
) -> AsyncIterator[JobRunner]:
    push, operator = (Webhook(receiver.url, SECRET, CircuitBreaker(failures=100)) for _ in range(2))
    cache = LRUCache(max_items=10, max_bytes=10_000, ttl_seconds=1)
    service = NotificationService(
        database, hub, ProfileClient(None, cache), lambda: frozenset(received), push=push, operator=operator
    )
    runner = JobRunner(database)
    runner._kinds = {
        PUSH_JOB: Kind(service.send_push, group=1, at_once=8, max_age_seconds=MAX_PUSH_AGE_SECONDS),
        OPERATOR_JOB: Kind(service.notify_operator, group=1, at_once=2),
    }
    yield runner
    await service.close()


def make_due(uow: UnitOfWork) -> None:
    """As if the wait of every grace and retry were over."""
    uow.jobs._executor.connection.exec_driver_sql("UPDATE jobs SET run_at = 0")


def count(uow: UnitOfWork) -> tuple[int, int]:
    """(waiting, dead) jobs."""
    return sum(depth.count for depth in uow.jobs.list_depths()), uow.jobs.count_dead()


def make_older(uow: UnitOfWork) -> None:
    """As if everything had been queued a day earlier."""
    uow.jobs._executor.connection.exec_driver_sql(
        f"UPDATE jobs SET created_at = created_at - {round((MAX_PUSH_AGE_SECONDS + 1) * SECOND)}"
    )


async def run(database: Database, runner: JobRunner) -> int:
    await database.write(make_due)
    return await runner.run_due()


def greeting(uow: UnitOfWork, user_id: str = "user") -> Message:
    """A message that was delivered to this user."""
    if uow.influencers.find("bot") is None:
        add_influencer(uow, "bot", initial_greeting="Hello " + "x" * 200)
    return chat._open(uow, user_id, "bot")["recent_messages"][0]


async def queue(database: Database, settings: Settings, user_id: str = "user") -> Message:
    def unit(uow: UnitOfWork) -> Message:
        message = greeting(uow, user_id)
        notifications.queue_push(uow, settings, user_id, message)
        return message

    return await database.write(unit)


@pytest.mark.usefixtures("still")
async def test_a_push_tells_what_the_contract_says(
    database: Database, runner: JobRunner, receiver: WebhookReceiver, settings: Settings
) -> None:
    message = await queue(database, settings)
    assert await runner.run_due() == 0, "whoever waits for the answer gets a moment"
    await run(database, runner)
    (delivery,) = receiver.taken
    assert delivery.is_signed
    body = delivery.payload.pop("body")
    assert len(body) == 100
    assert body.startswith("Hello x")
    assert delivery.payload == {
        "type": "new_message",
        "title": "Bot",
        "conversation_id": message["conversation_id"],
        "message_id": message["id"],
        "influencer_id": "bot",
        "internalUrl": "/chat",
        "user_id": "user",
    }
    assert await database.read(count) == (0, 0)


async def test_nothing_is_told_of_what_was_received_read_or_deleted(
    database: Database, runner: JobRunner, receiver: WebhookReceiver, settings: Settings, hub: Hub, received: set[str]
) -> None:
    messages = {name: await queue(database, settings, name) for name in ("now", "noted", "read", "gone", "socket")}
    received.add(messages["now"]["id"])
    hub.connect("socket", wants_deltas=False)

    def change(uow: UnitOfWork) -> None:
        uow.messages.mark_handed_over([messages["noted"]["id"]])
        chat._mark_read(uow, "read", messages["read"]["conversation_id"])
        chat._delete(uow, "gone", messages["gone"]["conversation_id"])

    await database.write(change)
    assert await run(database, runner) == 5
    assert receiver.received == []
    assert await database.read(count) == (0, 0)


async def test_what_one_side_of_two_people_has_deleted_is_not_told_once_the_other_writes_again(
    database: Database, runner: JobRunner, receiver: WebhookReceiver, settings: Settings
) -> None:
    def unit(uow: UnitOfWork) -> list[Message]:
        chat_id = people.open_pair(uow, "writer", "reader")
        written = []
        for content in ("deleted", "new"):
            conversation, sides = people._open(uow, chat_id, "writer")
            written.append(people._store(uow, conversation, "writer", NewMessage(content)))
            if sides["reader"].is_hidden:
                people.show(uow, chat_id, "reader")
            notifications.queue_push(uow, settings, "reader", written[-1])
            if content == "deleted":
                chat._delete(uow, "reader", chat_id)
        return written

    _, new = await database.write(unit)
    assert await run(database, runner) == 2
    assert [delivery.payload["message_id"] for delivery in receiver.taken] == [new["id"]]


async def test_a_notice_is_repeated_with_its_key_until_it_is_taken(
    database: Database, runner: JobRunner, receiver: WebhookReceiver, settings: Settings
) -> None:
    receiver.statuses = [500, 302, 429]
    await database.write(notifications.queue_operator_notice, settings, "influencer.banned", "bot", "spam")
    for _ in range(4):
        assert await run(database, runner) == 1
    assert [delivery.answered for delivery in receiver.received] == [500, 302, 429, 204]
    assert len({delivery.key for delivery in receiver.received}) == 1
    payload: dict[str, Any] = receiver.taken[0].payload
    assert payload.pop("at").endswith("Z")
    assert payload == {"type": "influencer.banned", "subject": "bot", "reason": "spam"}
    assert await database.read(count) == (0, 0)


async def test_what_is_never_taken_becomes_a_dead_letter_that_can_be_sent_again(
    database: Database, runner: JobRunner, receiver: WebhookReceiver, settings: Settings
) -> None:
    receiver.statuses = [500] * job_runner.MAX_ATTEMPTS
    await database.write(notifications.queue_operator_notice, settings, "crisis.marked", "conversation")
    for _ in range(job_runner.MAX_ATTEMPTS):
        assert await run(database, runner) == 1
    assert await run(database, runner) == 0
    assert await database.read(count) == (0, 1)
    (dead,) = await database.read(lambda uow: uow.jobs.list_queued(is_dead=True, most=10))
    assert (dead.name, dead.attempts, dead.last_error) == (OPERATOR_JOB, 8, "WebhookFailed: status 500")
    assert await database.write(lambda uow: uow.jobs.revive(dead.id)) == 1
    assert await run(database, runner) == 1
    assert len(receiver.taken) == 1


async def test_while_the_receiver_is_given_a_rest_no_try_is_counted(
    database: Database, receiver: WebhookReceiver, settings: Settings, hub: Hub
) -> None:
    breaker = CircuitBreaker(failures=1, open_seconds=600)
    webhook = Webhook(receiver.url, SECRET, breaker)
    cache = LRUCache(max_items=10, max_bytes=10_000, ttl_seconds=1)
    service = NotificationService(database, hub, ProfileClient(None, cache), frozenset, push=webhook, operator=webhook)
    runner = JobRunner(database)
    runner._kinds = {OPERATOR_JOB: Kind(service.notify_operator, group=1)}
    receiver.statuses = [500]
    await database.write(notifications.queue_operator_notice, settings, "crisis.marked", "conversation")
    for _ in range(20):
        assert await run(database, runner) == 1
    await service.close()
    (waiting,) = await database.read(lambda uow: uow.jobs.list_queued(is_dead=False, most=10))
    assert (waiting.attempts, waiting.is_dead, waiting.last_error) == (1, False, "the circuit is open")
    assert len(receiver.received) == 1


async def test_a_push_that_could_not_be_sent_for_a_day_is_given_up(
    database: Database, runner: JobRunner, receiver: WebhookReceiver, settings: Settings
) -> None:
    await queue(database, settings)
    await database.write(notifications.queue_operator_notice, settings, "crisis.marked", "conversation")
    receiver.statuses = [500, 500]
    assert await run(database, runner) == 2
    await database.write(make_older)
    assert await run(database, runner) == 2
    assert [delivery.payload["type"] for delivery in receiver.taken] == ["crisis.marked"], "which is never too old"
    (dead,) = await database.read(lambda uow: uow.jobs.list_queued(is_dead=True, most=10))
    assert (dead.name, dead.last_error) == (PUSH_JOB, "too old")
    assert await database.write(lambda uow: uow.jobs.revive(dead.id)) == 1
    assert await run(database, runner) == 1
    assert len(receiver.taken) == 2, "whoever asks for it gets it"


async def test_without_addresses_nothing_is_queued(database: Database) -> None:
    nowhere = Settings(environment="test")

    def unit(uow: UnitOfWork) -> None:
        notifications.queue_push(uow, nowhere, "user", greeting(uow))
        notifications.queue_operator_notice(uow, nowhere, "crisis.marked", "conversation")

    await database.write(unit)
    assert await database.read(count) == (0, 0)
