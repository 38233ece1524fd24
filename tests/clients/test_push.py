"""Webhooks against a receiver that checks signatures, fails and hangs."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes.webhook import HANG, WebhookReceiver
from yral_chat.clients.push import Webhook, WebhookFailed, WebhookPaused
from yral_chat.clients.resilience import CircuitBreaker

SECRET = "a-secret-of-the-receiver"


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver(SECRET) as running:
        yield running


@pytest.fixture
async def webhook(receiver: WebhookReceiver) -> AsyncIterator[Webhook]:
    made = Webhook(receiver.url, SECRET, CircuitBreaker(failures=2, open_seconds=600), seconds=1)
    yield made
    await made.close()


async def test_what_is_sent_is_signed_and_has_its_key(webhook: Webhook, receiver: WebhookReceiver) -> None:
    await webhook.send({"title": "Grüße 👋"}, "job-1")
    (delivery,) = receiver.received
    assert (delivery.payload, delivery.key, delivery.is_signed) == ({"title": "Grüße 👋"}, "job-1", True)


async def test_a_wrong_secret_makes_a_wrong_signature(receiver: WebhookReceiver) -> None:
    webhook = Webhook(receiver.url, "another-secret", CircuitBreaker())
    await webhook.send({}, "job-1")
    await webhook.close()
    assert not receiver.received[0].is_signed


@pytest.mark.parametrize("status", [302, 400, 429, 500, HANG])
async def test_what_is_not_taken_is_a_failure(webhook: Webhook, receiver: WebhookReceiver, status: int) -> None:
    receiver.statuses = [status]
    with pytest.raises(WebhookFailed) as failed:
        await webhook.send({}, "job-1")
    assert "127.0.0.1" not in str(failed.value)
    assert len(receiver.received) == 1, "a redirect was followed"
    await webhook.send({}, "job-1")
    assert len(receiver.taken) == 1


async def test_nobody_there_is_a_failure_and_then_a_pause(receiver: WebhookReceiver) -> None:
    webhook = Webhook("http://127.0.0.1:9/", SECRET, CircuitBreaker(failures=2, open_seconds=600))
    for _ in range(2):
        with pytest.raises(WebhookFailed):
            await webhook.send({}, "job-1")
    with pytest.raises(WebhookPaused) as paused:
        await webhook.send({}, "job-1")
    await webhook.close()
    assert 0 < paused.value.seconds <= 600
    assert receiver.received == []


async def test_without_an_address_nothing_is_sent() -> None:
    webhook = Webhook(None, SECRET, CircuitBreaker())
    await webhook.send({}, "job-1")
    assert not webhook.is_enabled


async def test_a_receiver_that_fails_is_left_alone_until_one_probe_has_found_it_again(
    receiver: WebhookReceiver,
) -> None:
    now = 1000.0
    breaker = CircuitBreaker("push", failures=3, open_seconds=30, clock=lambda: now, draw=lambda: 0.5)
    webhook = Webhook(receiver.url, SECRET, breaker, seconds=2)
    receiver.statuses = [500] * 5
    for _ in range(3):
        with pytest.raises(WebhookFailed):
            await webhook.send({}, "job")
    waits = []
    for _ in range(2):
        with pytest.raises(WebhookPaused) as paused:
            await webhook.send({}, "job")
        waits.append(paused.value.seconds)
        now += breaker.retry_after
        together = await asyncio.gather(*(webhook.send({}, "job") for _ in range(4)), return_exceptions=True)
        assert sorted(type(error).__name__ for error in together) == ["WebhookFailed"] + ["WebhookPaused"] * 3
    assert waits == [30, 60]
    assert len(receiver.received) == 3 + 2
    assert (breaker.opened_reason, breaker.retry_after) == ("overloaded", 120)
    now += 120
    await webhook.send({}, "job")
    assert breaker.state == "closed"
    await webhook.close()
