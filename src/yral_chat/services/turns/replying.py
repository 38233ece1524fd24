"""The work of a reply: waits for its place, makes words of a recording, asks the model."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from yral_chat.clients.language_model import LanguageModel, ModelCall, ModelRequest
from yral_chat.core.config import Settings
from yral_chat.core.errors import ConversationNotFound, InfluencerNotFound
from yral_chat.core.logging import correlation_id
from yral_chat.core.objects import RUNNING, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.messages import Said
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.notifications import queue_push
from yral_chat.services.prompts import compose, images_to_show
from yral_chat.services.turns import ending
from yral_chat.services.turns.hearing import Hearing
from yral_chat.services.turns.records import Ending
from yral_chat.services.turns.results import TurnResult, deleted, handed_back, stored_result
from yral_chat.services.turns.running import Ended, RunningTurn, RunningTurns, TakenOver, generate
from yral_chat.services.turns.seeing import Seeing

# How long a turn waits before it looks again for one that must come first and is not known here yet.
PLACE_SECONDS = 0.02


class ReplyWork:
    """See `TurnWork`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        hub: Hub,
        influencers: InfluencerService,
        model: LanguageModel,
        running_turns: RunningTurns,
        seeing: Seeing,
        hearing: Hearing,
    ) -> None:
        self._settings = settings
        self._database = database
        self._hub = hub
        self._influencers = influencers
        self._model = model
        self._running_turns = running_turns
        self._seeing = seeing
        self._hearing = hearing

    async def do(self, running: RunningTurn, begin: Callable[[], None]) -> Ending:
        before = await self._wait_for_place(running)
        begin()
        deadline = time.monotonic() + self._settings.turn_max_seconds
        said = before.said
        if before.recording is not None and said.is_unheard:
            said = await self._hearing.listen(running, said, before.recording, deadline)
        request = await self._prepare(running, before.history, said, deadline)
        window = self._settings.stream_coalesce_ms / 1000
        return await generate(running, self._model, request, self._hub, window_seconds=window)

    async def _wait_for_place(self, running: RunningTurn) -> "_Before":
        """Waits until this turn is the next of its conversation; returns what was said before it.

        Turns run one after another in the order of their numbers. The database knows that order best: on PostgreSQL
        two commits may be told here the other way round.
        """
        while True:
            if (earlier := self._running_turns.find_before(running)) is not None:
                await earlier.finished.wait()
                continue
            before = await self._database.read(self._look_back, running.turn)
            if before.is_next and self._running_turns.find_before(running) is None:
                running.has_begun = True
                return before
            await asyncio.sleep(PLACE_SECONDS)

    def _look_back(self, uow: UnitOfWork, turn: StoredTurn) -> "_Before":
        first = uow.turns.find_next_reply(turn.conversation_id)
        found = uow.messages.find_said(turn.user_message_id)
        if found is None:
            raise ConversationNotFound
        said, recording, seq = found
        history = uow.messages.list_for_prompt(
            turn.conversation_id, before_seq=seq, limit=self._settings.history_messages
        )
        return _Before(history, said, recording, is_next=first is None or first.seq >= turn.seq)

    async def _prepare(self, running: RunningTurn, history: list[Said], said: Said, deadline: float) -> ModelRequest:
        influencer = await self._influencers.find(running.influencer_id)
        if influencer is None:
            raise InfluencerNotFound
        shown = images_to_show([*history, said], self._settings.image_history_window)
        return compose(
            influencer,
            history,
            said,
            pictures=await self._seeing.look(shown, deadline),
            deadline=deadline,
            temperature=self._settings.model_temperature,
            max_output_tokens=self._settings.model_max_output_tokens,
            correlation_id=correlation_id.get(),
            attempt=running.turn.attempt,
        )

    def end(self, uow: UnitOfWork, turn: StoredTurn, outcome: Ending, calls: list[ModelCall]) -> Ended | None:
        ended = ending.end(uow, turn, outcome, calls, self._influencers.absolute)
        if ended is not None and ended.event == "new_message" and ended.message is not None:
            queue_push(uow, self._settings, turn.user_id, ended.message)
        return ended

    def find_result(self, uow: UnitOfWork, turn: StoredTurn, user_message: Message | None) -> TurnResult:
        reply = uow.messages.find(turn.conversation_id, turn.id)
        if reply is None:
            return deleted(user_message)
        return handed_back(user_message) if reply.message["status"] in RUNNING else stored_result(user_message, reply)

    def take_over(self, uow: UnitOfWork, turn: StoredTurn, owner: str, lease_until: int) -> TakenOver | None:
        return ending.take_over(uow, turn, owner, lease_until)


class _Before(NamedTuple):
    """What was said before a reply, what it answers, and whether no earlier reply is open."""

    history: list[Said]
    said: Said
    recording: str | None  # reference, when `said` is a voice message
    is_next: bool
