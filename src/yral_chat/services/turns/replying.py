"""The work of a reply: waits for its place, makes words of a recording, asks the model."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from yral_chat.clients.language_model import LanguageModel, ModelCall, ModelRequest
from yral_chat.clients.profiles import ProfileClient
from yral_chat.core.config import Settings
from yral_chat.core.errors import ContentBlocked, ConversationNotFound, InfluencerNotFound
from yral_chat.core.logging import correlation_id
from yral_chat.core.objects import RUNNING, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.db.repositories.memories import StoredMemory
from yral_chat.db.repositories.messages import Said
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.moderation import ModerationService, OutputFilter, Verdict, help_text
from yral_chat.services.notifications import mark_crisis, queue_push
from yral_chat.services.prompts import compose, images_to_show, names_user, resolve_names
from yral_chat.services.turns import ending
from yral_chat.services.turns.budgets import TurnBudgets
from yral_chat.services.turns.hearing import Hearing
from yral_chat.services.turns.records import Ending
from yral_chat.services.turns.results import TurnResult, deleted, handed_back, stored_result
from yral_chat.services.turns.running import Ended, Guard, Pieces, RunningTurn, RunningTurns, TakenOver, generate
from yral_chat.services.turns.seeing import Seeing

EXTRACT_JOB = "memories.extract"
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
        moderation: ModerationService,
        profiles: ProfileClient,
        budgets: TurnBudgets,
    ) -> None:
        self._budgets = budgets
        self._settings = settings
        self._profiles = profiles
        self._database = database
        self._hub = hub
        self._influencers = influencers
        self._model = model
        self._running_turns = running_turns
        self._seeing = seeing
        self._hearing = hearing
        self._moderation = moderation

    async def do(self, running: RunningTurn, begin: Callable[[], None]) -> Ending:
        before = await self._wait_for_place(running)
        begin()
        deadline = time.monotonic() + self._settings.turn_max_seconds
        said = before.said
        verdict = self._moderation.check_message(said.content)
        if before.recording is not None and said.is_unheard and verdict.tier not in ("crisis", "block"):
            said = await self._hearing.listen(running, said, before.recording, deadline)
            verdict = self._moderation.check_message(said.content)
        if verdict.tier == "crisis":
            return await self._help(running, verdict)
        if verdict.tier == "block":
            return Ending("", "BLOCKED_CONTENT", ContentBlocked(), outcome="blocked")
        # Read once: what the filter keeps back is what the model is told, whatever its owner edits meanwhile.
        influencer = await self._influencers.find(running.influencer_id)
        if influencer is None:
            raise InfluencerNotFound
        user_name = await self._name_for(influencer, running.turn.user_id)
        request = await self._prepare(before, said, influencer, user_name, deadline=deadline, turn=running.turn)
        request = self._budgets.fitted(request, before.held, running.calls)
        instructions = resolve_names(influencer.system_instructions, influencer.display_name, user_name)
        return await self._generate(running, request, instructions, verdict, said.content)

    async def _generate(
        self, running: RunningTurn, request: ModelRequest, instructions: str, verdict: Verdict, text: str
    ) -> Ending:
        output = await self._moderation.output_filter(instructions, request.persona.greeting)
        judgement = self._moderation.judge(verdict, text)
        window = self._settings.stream_coalesce_ms / 1000
        guard = Guard(output, judgement)
        try:
            return await generate(running, self._model, request, self._hub, guard, window_seconds=window)
        finally:
            if output.is_leak:
                self._moderation.leaked()
            if judgement is not None:
                self._moderation.judged(verdict, judgement)

    async def _help(self, running: RunningTurn, verdict: Verdict) -> Ending:
        """Help for a person in danger, with or without a model."""
        locale = await self._database.read(lambda uow: uow.settings.find_locale(running.turn.user_id))
        text = help_text(locale, verdict.language)
        pieces = Pieces(running, self._hub, OutputFilter.open(), window_seconds=0.0)
        pieces.add(text)
        return Ending(text, provider="safety", tokens=0, crisis=verdict)

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
        is_next = first is None or first.seq >= turn.seq
        memories, summary = self._recall(uow, turn, len(history)) if is_next else ([], "")
        held = self._budgets.held(uow, turn) if is_next else None
        return _Before(history, said, recording, memories, summary, held, is_next=is_next)

    def _recall(self, uow: UnitOfWork, turn: StoredTurn, history_count: int) -> tuple[list[StoredMemory], str]:
        """What is remembered and, when older messages are out of sight, their summary; nothing where it is off."""
        if not self._settings.memories_enabled:
            return [], ""
        memories = uow.memories.list_all(turn.conversation_id)
        is_long = history_count >= self._settings.history_messages
        summary = uow.memories.find_summary(turn.conversation_id).text if is_long else ""
        if (memories or summary) and not uow.settings.find(turn.user_id).memories_enabled:
            return [], ""
        return memories, summary

    async def _prepare(
        self,
        before: "_Before",
        said: Said,
        influencer: StoredInfluencer,
        user_name: str,
        *,
        deadline: float,
        turn: StoredTurn,
    ) -> ModelRequest:
        shown = images_to_show([*before.history, said], self._settings.image_history_window)
        return compose(
            influencer,
            before.history,
            said,
            pictures=await self._seeing.look(shown, deadline),
            deadline=deadline,
            temperature=self._settings.model_temperature,
            max_output_tokens=self._settings.model_max_output_tokens,
            correlation_id=correlation_id.get(),
            attempt=turn.attempt,
            memories=before.memories,
            summary=before.summary,
            user_name=user_name,
        )

    async def _name_for(self, influencer: StoredInfluencer, user_id: str) -> str:
        """The user's name where the instructions have a place for it and somebody knows it; else ""."""
        if not self._profiles.is_enabled or not names_user(influencer.system_instructions):
            return ""
        return (await self._profiles.get(user_id)).username or ""

    def end(self, uow: UnitOfWork, turn: StoredTurn, outcome: Ending, calls: list[ModelCall]) -> Ended | None:
        ended = ending.end(uow, turn, outcome, calls, self._influencers.absolute)
        if ended is not None and ended.event == "new_message" and ended.message is not None:
            queue_push(uow, self._settings, turn.user_id, ended.message)
        if ended is not None and outcome.crisis is not None:
            mark_crisis(
                uow,
                self._settings,
                turn.conversation_id,
                rule=outcome.crisis.rule,
                rules_version=outcome.crisis.version,
                message_id=turn.user_message_id,
            )
        elif ended is not None and outcome.error_code is None:
            self._queue_extraction(uow, turn, ended.influencer_id)
        return ended

    def _queue_extraction(self, uow: UnitOfWork, turn: StoredTurn, influencer_id: str) -> None:
        """Once per turn: with the first text that is delivered, whatever attempt that is."""
        if self._settings.memories_enabled and not turn.is_replacement:
            uow.jobs.add(EXTRACT_JOB, extraction_of(turn, influencer_id), priority=-1)

    def find_result(self, uow: UnitOfWork, turn: StoredTurn, user_message: Message | None) -> TurnResult:
        reply = uow.messages.find(turn.conversation_id, turn.id)
        if reply is None:
            return deleted(user_message)
        return handed_back(user_message) if reply.message["status"] in RUNNING else stored_result(user_message, reply)

    def take_over(self, uow: UnitOfWork, turn: StoredTurn, owner: str, lease_until: int) -> TakenOver | None:
        return ending.take_over(uow, turn, owner, lease_until)


def extraction_of(turn: StoredTurn, influencer_id: str) -> dict[str, str]:
    """The payload of EXTRACT_JOB, with what a record of usage needs."""
    return {
        "turn_id": turn.id,
        "message_id": turn.user_message_id,
        "conversation_id": turn.conversation_id,
        "user_id": turn.user_id,
        "influencer_id": influencer_id,
    }


class _Before(NamedTuple):
    """What was said before a reply, what it answers, and whether no earlier reply is open."""

    history: list[Said]
    said: Said
    recording: str | None  # reference, when `said` is a voice message
    memories: list[StoredMemory]
    summary: str
    held: int | None  # tokens that the turn may use
    is_next: bool
