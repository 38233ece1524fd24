"""TurnService: what requests ask of turns. They only attach: to wait for the end, to follow the stream, to stop it
(design section 5). The work itself is TurnEngine's.
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from yral_chat.core.config import Settings
from yral_chat.core.errors import (
    AppError,
    ConversationNotFound,
    MessageNotFound,
    NotStreamable,
    TurnTimeout,
)
from yral_chat.core.objects import RUNNING, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.messages import StoredMessage
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub, ReplyStream
from yral_chat.services.turns import accepting
from yral_chat.services.turns.budgets import TurnBudgets
from yral_chat.services.turns.engine import TurnEngine
from yral_chat.services.turns.records import Accepted, Attached, Limits, NewMessage
from yral_chat.services.turns.results import TurnResult, idle_frame, replay_of

# A request that finds a pending reply with nobody at work looks again this often.
ATTACH_TRIES = 40
ATTACH_SECONDS = 0.05


class TurnService:
    """See the module. Raises the AppErrors that contract sections 8 and 9 name."""

    def __init__(
        self, settings: Settings, database: Database, hub: Hub, engine: TurnEngine, budgets: TurnBudgets
    ) -> None:
        self._budgets = budgets
        self._settings = settings
        self._database = database
        self._hub = hub
        self._engine = engine
        self._limits = Limits.of(settings, lease=engine.lease)

    @property
    def is_draining(self) -> bool:
        return self._engine.is_draining

    async def send(self, user_id: str, conversation_id: str, message: NewMessage) -> Attached:
        """Accepts `message`, or finds the turn that it repeats. Raises NotStreamable where no persona answers."""
        engine = self._engine
        handed_over = engine.list_handed_over()

        def accept(uow: UnitOfWork) -> Accepted:
            accepted = accepting.accept(uow, user_id, conversation_id, message, self._limits, engine.owner, handed_over)
            self._launch_after(uow, accepted)
            return accepted

        return await self._attach(await engine.accept(accept), is_reader=False)

    async def regenerate(self, user_id: str, conversation_id: str, message_id: str) -> Attached:
        """Begins a new attempt of the newest reply."""
        engine = self._engine

        def accept(uow: UnitOfWork) -> Accepted:
            accepted = accepting.accept_regeneration(
                uow, user_id, conversation_id, message_id, self._limits, engine.owner
            )
            self._launch_after(uow, accepted)
            return accepted

        return await self._attach(await engine.accept(accept), is_reader=False)

    def _launch_after(self, uow: UnitOfWork, accepted: Accepted) -> None:
        if (turn := accepted.turn) is not None:
            self._budgets.hold(uow, turn, accepted.influencer_id)
            self._engine.launch_after(uow, turn, accepted.user_message, accepted.influencer_id)

    async def resume(self, reader_id: str, conversation_id: str, message_id: str) -> Attached:
        """Attaches a reader (user or the bot's owner) to a reply, running or ended."""
        user_message, reply = await self._database.read(_find_reply, reader_id, conversation_id, message_id)
        found = Accepted(user_message, reply, None, reply.message["sender_id"] or "")
        attached = await self._attach(found, is_reader=True)
        return msgspec.structs.replace(attached, is_senders=reader_id == user_message["sender_id"])

    async def wait(self, attached: Attached, seconds: float) -> TurnResult:
        """Waits for the end of the turn. Raises the refusal that its end means for a sender."""
        stream = attached.stream
        if stream is None:
            return TurnResult(user_message=attached.user_message, assistant_message=None)
        if not stream.is_ended and not await stream.wait_end(seconds):
            raise await self._not_ready(attached, stream)
        result: TurnResult = stream.result
        if result.is_running:
            raise await self._not_ready(attached, stream)
        if result.error is not None:
            raise result.error
        return result

    def follow(self, attached: Attached, last_event_id: str | None = None) -> AsyncIterator[bytes]:
        """The reply as SSE frames, from the reader's place to its end (contract section 9.2)."""
        assert attached.stream is not None  # noqa: S101 - only conversations with replies are streamed
        return attached.stream.follow(
            last_event_id,
            heartbeat_seconds=self._settings.stream_heartbeat_seconds,
            idle_seconds=self._settings.stream_idle_limit_seconds,
            idle_frame=idle_frame,
        )

    async def cancel(self, user_id: str, conversation_id: str, message_id: str) -> Message:
        """Stops a turn; returns the message as it is then. One that has ended stays as it is."""
        stored = await self._database.read(_find_for_cancel, user_id, conversation_id, message_id)
        await self._engine.cancel(message_id, stored)
        return (await self._database.read(_get_stored, conversation_id, message_id)).message

    def hand_over(self, attached: Attached) -> None:
        """Notes that the sender has received the answer of this turn, if that is what was sent."""
        stream = attached.stream
        if stream is None:
            self._engine.hand_over(attached.user_message["id"])  # the stored message is all the answer there is
        elif attached.is_senders and stream.is_ended and not stream.result.is_running:
            self._engine.hand_over(stream.reply_id)

    async def _attach(self, accepted: Accepted, *, is_reader: bool) -> Attached:
        """The stream of the reply: of the running attempt, or a replay of the stored end.

        A reader follows whatever is being written; a sender who repeats a message that was answered gets that answer,
        also while a new one is being written.
        """
        user_message, reply = accepted.user_message, accepted.reply
        if reply is None:
            return Attached(user_message, None, None, is_replay=True)
        conversation_id, reply_id = reply.message["conversation_id"], reply.message["id"]
        is_live = is_reader or accepted.turn is not None or reply.message["status"] in RUNNING
        for _ in range(ATTACH_TRIES):
            stream = self._hub.find_reply(reply_id) if is_live else None
            if stream is None and reply.message["status"] not in RUNNING:
                stream = replay_of(user_message, reply)
            if stream is not None:
                return Attached(user_message, reply, stream, is_replay=accepted.is_replay)
            # It ended between the two looks, or waits for its take-over.
            await asyncio.sleep(ATTACH_SECONDS)
            reply = await self._database.read(_get_stored, conversation_id, reply_id)
        raise TurnTimeout(details={"user_message": user_message, "assistant_message": reply.message})

    async def _not_ready(self, attached: Attached, stream: ReplyStream) -> AppError:
        """The refusal for a sender whose time is up while the turn goes on."""
        conversation_id = attached.user_message["conversation_id"]
        reply = await self._database.read(_get_stored, conversation_id, stream.reply_id)
        return TurnTimeout(details={"user_message": attached.user_message, "assistant_message": reply.message})


def _find_reply(
    uow: UnitOfWork, reader_id: str, conversation_id: str, message_id: str
) -> tuple[Message, StoredMessage]:
    accepting.open_for_reader(uow, conversation_id, reader_id)
    reply = uow.messages.find(conversation_id, message_id)
    if reply is None:
        raise MessageNotFound
    if reply.message["origin"] != "model" or reply.message["reply_to"] is None:
        raise NotStreamable
    user_message = uow.messages.find(conversation_id, reply.message["reply_to"])
    assert user_message is not None  # noqa: S101 - a reply's question is never deleted alone
    return user_message.message, reply


def _find_for_cancel(uow: UnitOfWork, user_id: str, conversation_id: str, message_id: str) -> StoredTurn | None:
    """The turn that is to be stopped; None when the message is final."""
    accepting.open_for_user(uow, conversation_id, user_id)
    found = uow.messages.find(conversation_id, message_id)
    if found is None or found.message["role"] != "assistant":
        raise MessageNotFound
    return uow.turns.find(message_id)


def _get_stored(uow: UnitOfWork, conversation_id: str, message_id: str) -> StoredMessage:
    """Raises ConversationNotFound: messages go with their conversation only."""
    found = uow.messages.find(conversation_id, message_id)
    if found is None:
        raise ConversationNotFound
    return found
