"""Recordings become words, as a part of the turn that answers them (contract section 8.6)."""

import asyncio
import time

from yral_chat.clients.language_model import ModelFailure
from yral_chat.clients.transcription import Transcriber
from yral_chat.core.errors import AppError, ConversationNotFound
from yral_chat.core.logging import correlation_id
from yral_chat.core.objects import VOICE_MESSAGE, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.conversations import last_message_columns
from yral_chat.db.repositories.messages import Said
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub
from yral_chat.services.media import MediaService
from yral_chat.services.turns.running import RunningTurn


class Hearing:
    """Without a transcriber recordings stay as they are, and the model is told that it cannot hear them."""

    def __init__(self, database: Database, hub: Hub, media: MediaService, transcriber: Transcriber | None) -> None:
        self._database = database
        self._hub = hub
        self._media = media
        self._transcriber = transcriber

    async def listen(self, running: RunningTurn, said: Said, recording: str, deadline: float) -> Said:
        """`said` with the words of its recording. Raises ModelFailure when those cannot be had."""
        if self._transcriber is None:
            return said
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                audio, mime_type = await self._media.recording(recording)
        except (AppError, TimeoutError) as error:
            raise ModelFailure("unreachable", "the recording cannot be read", is_outage=False) from error
        text = await self._transcriber.transcribe(
            audio, mime_type, deadline=deadline, correlation_id=correlation_id.get(), calls=running.calls
        )
        user_message = await self._database.write(self._write_down, running.turn, said, text.strip())
        running.stream.user_message = user_message
        return said._replace(content=user_message["content"], is_unheard=False)

    def _write_down(self, uow: UnitOfWork, turn: StoredTurn, said: Said, text: str) -> Message:
        """Stores the words and tells of them. Raises ConversationNotFound when it was deleted meanwhile."""
        conversation = uow.conversations.find_locked(turn.conversation_id)
        if conversation is None:
            raise ConversationNotFound
        typed = "" if said.content == VOICE_MESSAGE else f"{said.content}\n"
        uow.messages.update(turn.user_message_id, transcription=text, content=f"{typed}[Transcribed: {text}]")
        stored = uow.messages.find(turn.conversation_id, turn.user_message_id)
        assert stored is not None  # noqa: S101 - messages go with their conversation only
        if conversation.last_id == turn.user_message_id:
            uow.conversations.update(conversation.id, **last_message_columns(stored.message, stored.created_at))
        data = {"conversation_id": conversation.id, "message": stored.message}
        seq = uow.events.add(turn.user_id, conversation.id, "message_updated", data)
        uow.after_commit(lambda: self._hub.publish(turn.user_id, "message_updated", data, seq=seq))
        return stored.message
