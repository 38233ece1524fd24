"""The work of a picture: a prompt, the image model, and a message that exists only when the picture does."""

import time
from collections.abc import Callable
from typing import Any

from loguru import logger

from yral_chat.clients.images import ImageModel
from yral_chat.clients.language_model import LanguageModel, ModelCall, ModelFailure, NoUsableModel, Picture
from yral_chat.core.clock import MILLISECOND, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError, ConversationNotFound
from yral_chat.core.logging import correlation_id
from yral_chat.core.objects import Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation, last_message_columns
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.db.repositories.messages import Said, StoredMessage
from yral_chat.db.repositories.pictures import PictureRequest
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.media import MediaService
from yral_chat.services.moderation import ModerationService
from yral_chat.services.notifications import queue_push
from yral_chat.services.turns import ending
from yral_chat.services.turns.records import Ending
from yral_chat.services.turns.results import TurnResult, deleted, failed_picture, handed_back
from yral_chat.services.turns.running import Ended, RunningTurn, TakenOver
from yral_chat.services.turns.scenes import SCENE_MESSAGES, describe_scene, plain_scene
from yral_chat.services.usage import RECORD_JOB


class PictureWork:
    """See `TurnWork`. Pictures of a conversation wait for nothing: they run beside its replies."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        influencers: InfluencerService,
        model: LanguageModel,
        image_model: ImageModel | None,
        media: MediaService,
        moderation: ModerationService,
    ) -> None:
        self._moderation = moderation
        self._settings = settings
        self._database = database
        self._influencers = influencers
        self._model = model
        self._image_model = image_model
        self._media = media

    async def do(self, running: RunningTurn, begin: Callable[[], None]) -> Ending:
        if self._image_model is None:  # it was configured when the picture was asked for
            raise NoUsableModel("no image model is configured")
        begin()
        turn, deadline = running.turn, time.monotonic() + self._settings.turn_max_seconds
        request, history = await self._database.read(_look_up, turn)
        influencer = await self._influencers.find(running.influencer_id)
        if influencer is None:
            raise ConversationNotFound
        prompt = request.prompt or await self._describe(influencer, history, running.calls, deadline)
        if not self._moderation.check_picture(prompt):
            raise ModelFailure("blocked", "the prompt is refused by the rules", is_outage=False)
        made = await self._image_model.make(
            prompt,
            await self._reference(influencer.avatar_url),
            deadline=deadline,
            correlation_id=correlation_id.get(),
            calls=running.calls,
        )
        try:
            key = await self._media.keep_picture(turn.user_id, made.data)
        except AppError as error:
            raise ModelFailure("unreachable", f"the picture cannot be kept: {error.code}", is_outage=False) from error
        return Ending("", provider=made.provider, model=made.model, tokens=0, image=key)

    async def _describe(
        self, influencer: StoredInfluencer, history: list[Said], calls: list[ModelCall], deadline: float
    ) -> str:
        if not self._settings.has_model_provider:  # the offline persona would only chat
            return plain_scene(influencer, history)
        return await describe_scene(
            self._model, influencer, history, calls, deadline=deadline, correlation_id=correlation_id.get()
        )

    async def _reference(self, avatar_url: str) -> Picture | None:
        """The persona's picture, when it is one of ours: so that made pictures show the same face."""
        try:
            found = await self._media.own_avatar(avatar_url)
        except AppError as error:  # without its likeness is better than not at all
            logger.warning("picture.without_reference", error=type(error).__name__)
            return None
        return None if found is None else Picture(*found)

    def end(self, uow: UnitOfWork, turn: StoredTurn, outcome: Ending, calls: list[ModelCall]) -> Ended | None:
        conversation = uow.conversations.find_locked(turn.conversation_id)
        if conversation is None or not uow.turns.finish(turn.id, turn.attempt):
            return None
        influencer_id = conversation.influencer_id or ""
        is_made = outcome.image is not None
        uow.jobs.add(RECORD_JOB, ending.record_of(turn, calls, influencer_id, listed=int(is_made), turns=1))
        uow.pictures.end(turn.id, "done" if is_made else "failed", outcome.error_code, now())
        if outcome.image is None:
            return Ended(None, influencer_id)
        stored = _add_message(uow, conversation, turn, outcome)
        queue_push(uow, self._settings, turn.user_id, stored.message)
        return ending.tell(uow, conversation, stored.message, "new_message", self._influencers.absolute)

    def find_result(self, uow: UnitOfWork, turn: StoredTurn, user_message: Message | None) -> TurnResult:
        return stored_picture(uow, uow.pictures.find(turn.id)) or handed_back(user_message)

    def take_over(self, uow: UnitOfWork, turn: StoredTurn, owner: str, lease_until: int) -> TakenOver | None:
        conversation = uow.conversations.find_locked(turn.conversation_id)
        if conversation is None or not uow.turns.take_over(turn, owner, lease_until):
            return None
        influencer_id = conversation.influencer_id or ""
        uow.pictures.begin(turn.id, turn.attempt + 1)
        return TakenOver(ending.give_over(uow, turn, owner, influencer_id), None, influencer_id)


def stored_picture(uow: UnitOfWork, request: PictureRequest | None) -> TurnResult | None:
    """How a request for a picture ended; None while it runs."""
    if request is None:
        return deleted(None)
    if request.status == "running":
        return None
    if request.error_code is not None:
        return failed_picture(request.error_code)
    stored = uow.messages.find(request.conversation_id, request.id)
    if stored is None:
        return deleted(None)
    return TurnResult(None, stored.message, stored.provider or "unknown", stored.model)


def _look_up(uow: UnitOfWork, turn: StoredTurn) -> tuple[PictureRequest, list[Said]]:
    request = uow.pictures.find(turn.id)
    if request is None:
        raise ConversationNotFound
    history = uow.messages.list_for_prompt(turn.conversation_id, before_seq=2**62, limit=SCENE_MESSAGES)
    return request, history


def _add_message(uow: UnitOfWork, conversation: StoredConversation, turn: StoredTurn, outcome: Ending) -> StoredMessage:
    """The picture as the newest message of its conversation, unread."""
    assert outcome.image is not None  # noqa: S101 - checked by `end`
    time = max(now(), conversation.last_message_time + MILLISECOND)
    row: dict[str, Any] = {
        "id": turn.id,
        "conversation_id": conversation.id,
        "seq": conversation.last_seq + 1,
        "role": "assistant",
        "origin": "image",
        "message_type": "image",
        "content": "",
        "status": "delivered",
        "is_listed": True,
        "sender_id": conversation.influencer_id,
        "client_message_id": None,
        "body_hash": None,
        "reply_to": None,
        "attempt": turn.attempt,
        "last_attempt": turn.attempt,
        "is_handed_over": False,
        "created_at": time,
        "completed_at": time,
        "images": f'["{outcome.image}"]',
    }
    uow.messages.add(row)
    uow.messages.update(turn.id, token_count=0, provider=outcome.provider, model=outcome.model)
    uow.media.use([outcome.image], turn.id, conversation.id)
    stored = uow.messages.find(conversation.id, turn.id)
    assert stored is not None  # noqa: S101 - just added
    uow.conversations.update(
        conversation.id,
        last_seq=row["seq"],
        last_message_time=time,
        message_count=conversation.message_count + 1,
        updated_at=max(conversation.updated_at, time),
        **last_message_columns(stored.message, time),
    )
    uow.conversations.touch(conversation.id, max(conversation.updated_at, time), reader=conversation.user_id, unread=1)
    return stored
