"""Tells people of new messages, and the operator of what cannot wait: by jobs, never on a request's way.

A job carries ids only; what is told is read when it is sent. So a message that was read, deleted or erased meanwhile
is not told of, and no text of anybody lies in the outbox.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from yral_chat.clients.profiles import ProfileClient
from yral_chat.clients.push import Webhook
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.objects import Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.realtime.hub import Hub

PUSH_JOB = "push.send"
OPERATOR_JOB = "operator.notify"
CRISIS = "crisis.marked"

# The answer to whoever waits for it needs a moment to arrive; only then is it known whether it did.
GRACE_SECONDS = 2.0
# News of a message that came so long ago are none: a push that could not be sent for a day is given up.
MAX_PUSH_AGE_SECONDS = 24 * 3600.0
MAX_BODY = 100  # characters, contract section 8.1
# What stands for a message without text, by its type.
_WORDLESS = {"image": "Sent a picture", "audio": "Sent a voice message"}


def queue_push(uow: UnitOfWork, settings: Settings, user_id: str, message: Message) -> None:
    """Queues that `user_id` is told of `message`, with the unit that delivers it. Nothing without PUSH_URL.

    Whoever queues wakes the job runner after the commit, as for every job.
    """
    if settings.push_url is None:
        return
    payload = {"user_id": user_id, "conversation_id": message["conversation_id"], "message_id": message["id"]}
    uow.jobs.add(PUSH_JOB, payload, run_at=now() + round(GRACE_SECONDS * SECOND))


def queue_operator_notice(
    uow: UnitOfWork, settings: Settings, type_: str, subject: str, reason: str | None = None
) -> None:
    """Queues that the operator is told; `type_` is the audit action (`influencer.banned`, `crisis.marked`, …).

    `subject` is an id, `reason` the operator's or a fixed text: never what somebody wrote. Nothing without
    OPERATOR_WEBHOOK_URL.
    """
    if settings.operator_webhook_url is None:
        return
    payload = {"type": type_, "subject": subject, "at": to_text(now())}
    uow.jobs.add(OPERATOR_JOB, payload if reason is None else {**payload, "reason": reason}, priority=10)


def mark_crisis(
    uow: UnitOfWork, settings: Settings, subject: str, *, rule: str, rules_version: int, **ids: str
) -> None:
    """Lets the operator know of a person in danger, without what was written. `subject` is the id of what it was
    written in, `ids` are further ones."""
    uow.audit.add(CRISIS, subject, now(), details={"rule": rule, "rules_version": rules_version, **ids})
    queue_operator_notice(uow, settings, CRISIS, subject)


class _News(msgspec.Struct, frozen=True):
    """What a push tells."""

    message: Message
    influencer_id: str | None
    title: str | None  # None: the name of the person who wrote


class NotificationService:
    """The jobs. Both raise WebhookFailed, and are then repeated by the runner."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        profiles: ProfileClient,
        list_handed_over: Callable[[], frozenset[str]],
        *,
        push: Webhook,
        operator: Webhook,
    ) -> None:
        self._database = database
        self._hub = hub
        self._profiles = profiles
        self._list_handed_over = list_handed_over
        self.push = push
        self.operator = operator

    async def send_push(self, jobs: list[Job]) -> None:
        """The job `push.send`."""
        for job in jobs:
            user_id = job.payload["user_id"]
            news = None if self._hub.is_listening(user_id) else await self._find_news(job)
            if news is not None:
                await self.push.send(await self._payload(user_id, news), job.id)
            await self._done(job)

    async def notify_operator(self, jobs: list[Job]) -> None:
        """The job `operator.notify`."""
        for job in jobs:
            await self.operator.send(job.payload, job.id)
            await self._done(job)

    async def close(self) -> None:
        await self.push.close()
        await self.operator.close()

    async def _done(self, job: Job) -> None:
        await self._database.write(lambda uow: uow.jobs.delete(job.id))

    async def _find_news(self, job: Job) -> _News | None:
        payload = job.payload
        is_received = payload["message_id"] in self._list_handed_over()
        return await self._database.read(
            _find_news, payload["user_id"], payload["conversation_id"], payload["message_id"], is_received=is_received
        )

    async def _payload(self, user_id: str, news: _News) -> dict[str, Any]:
        message, title = news.message, news.title
        if title is None:
            title = (await self._profiles.get(message["sender_id"] or "")).username or "New message"
        return {
            "type": "new_message",
            "title": title,
            "body": _body(message),
            "conversation_id": message["conversation_id"],
            "message_id": message["id"],
            "influencer_id": news.influencer_id,
            "internalUrl": "/chat",
            "user_id": user_id,
        }


def _find_news(
    uow: UnitOfWork, user_id: str, conversation_id: str, message_id: str, *, is_received: bool
) -> _News | None:
    """None when there is nothing to tell: it is gone, read, or was received as the answer to a request.

    `is_received`: it was, and its row may not say so yet.
    """
    stored = uow.messages.find(conversation_id, message_id)
    if stored is None or stored.message["status"] != "delivered":
        return None
    summary = uow.conversations.find_summary(conversation_id, user_id)
    side = uow.participants.find_side(conversation_id, user_id)
    if summary is None or side is None or stored.message["sequence"] <= side.cleared_seq:
        return None
    # A message of a person is no answer: who was handed it is its writer.
    is_received = is_received or stored.is_handed_over
    if is_received and stored.message["role"] == "assistant":
        return None
    influencer = summary["influencer"]
    if influencer is None:
        return _News(stored.message, None, None)
    return _News(stored.message, influencer["id"], influencer["display_name"])


def _body(message: Message) -> str:
    text = " ".join(message["content"].split()) or _WORDLESS.get(message["message_type"], "Sent a message")
    return text if len(text) <= MAX_BODY else f"{text[: MAX_BODY - 1]}…"
