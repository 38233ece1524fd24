"""What a turn may use: worked out and held back in the unit that accepts it, and kept to by what the model is asked."""

import time
from collections.abc import Sequence

import msgspec

from yral_chat.clients.language_model import ModelCall, ModelRequest
from yral_chat.clients.token_counts import AUDIO_TOKENS_A_SECOND, most_of_message, most_of_prompt, size_of
from yral_chat.clients.transcription import INSTRUCTION, MAX_OUTPUT_TOKENS, MAX_TRANSCRIPT_CHARACTERS
from yral_chat.core.clock import day_of
from yral_chat.core.config import Settings
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.db.repositories.usage import OpenUsage
from yral_chat.services.moderation.judging import most_of_judgement
from yral_chat.services.prompts import compose, images_to_show
from yral_chat.services.turns.scenes import MAX_PROMPT_CHARACTERS, SCENE_MESSAGES, scene_request
from yral_chat.services.usage import Bound, Quotas
from yral_chat.services.usage.recording import key_of

# UTF-8 takes at most so many bytes for a character.
CHARACTER_BYTES = 4


class TurnBudgets:
    """Where there are no quotas nothing is asked of the database."""

    def __init__(self, settings: Settings, quotas: Quotas, *, is_listening: bool, has_judge: bool) -> None:
        self._settings = settings
        self._quotas = quotas
        self._is_listening = is_listening
        self._has_judge = has_judge

    def hold(self, uow: UnitOfWork, turn: StoredTurn, influencer_id: str) -> None:
        """Holds back the most that this turn can use. Raises QuotaExceeded: the unit is to be undone."""
        if not self._quotas.is_on:
            return
        influencer = uow.influencers.find(influencer_id)
        assert influencer is not None  # noqa: S101 - influencers are never deleted
        bound = (
            self._of_picture(uow, turn, influencer) if turn.kind == "picture" else self._of_reply(uow, turn, influencer)
        )
        key = key_of(turn.id, turn.attempt)
        usage = OpenUsage(key, turn.user_id, influencer_id, day_of(turn.created_at))
        self._quotas.hold(uow, usage, bound)

    def held(self, uow: UnitOfWork, turn: StoredTurn) -> int | None:
        """The tokens that are held back for it; None: as many as it likes."""
        if not self._quotas.is_on:
            return None
        found = uow.usage.find_open(key_of(turn.id, turn.attempt))
        return None if found is None else found.tokens

    def fitted(self, request: ModelRequest, held: int | None, calls: Sequence[ModelCall]) -> ModelRequest:
        """`request` as it may be asked with what is left of `held` after `calls`.

        It seldom changes: only when the history has grown while the turn waited for its place, or memories did. Then
        the oldest messages stay out.
        """
        if held is None:
            return request
        left = held - sum(call.usage.tokens for call in calls) - self._of_judge(request.messages[-1].text).tokens
        messages, prompt = list(request.messages), most_of_prompt(request)
        while len(messages) > 1 and prompt + request.max_output_tokens > left:
            prompt -= most_of_message(messages.pop(0))
        most = max(1, min(request.max_output_tokens, left - prompt))
        return msgspec.structs.replace(request, messages=tuple(messages), max_output_tokens=most)

    def _of_reply(self, uow: UnitOfWork, turn: StoredTurn, influencer: StoredInfluencer) -> Bound:
        found = uow.messages.find_said(turn.user_message_id)
        assert found is not None  # noqa: S101 - a reply's question is never deleted alone
        said, recording, seq = found
        settings = self._settings
        history = uow.messages.list_for_prompt(turn.conversation_id, before_seq=seq, limit=settings.history_messages)
        request = compose(
            influencer,
            history,
            said,
            pictures={},
            deadline=time.monotonic(),
            temperature=settings.model_temperature,
            max_output_tokens=settings.model_max_output_tokens,
            correlation_id="",
            attempt=turn.attempt,
            memories=uow.memories.list_all(turn.conversation_id) if settings.memories_enabled else (),
            summary=uow.memories.find_summary(turn.conversation_id).text if settings.memories_enabled else "",
        )
        pictures = len(images_to_show([*history, said], settings.image_history_window))
        bound = self._quotas.most_of(request, pictures=pictures) + self._of_judge(said.content)
        if recording is None or not said.is_unheard or not self._is_listening:
            return bound
        stored = uow.messages.find(turn.conversation_id, turn.user_message_id)
        seconds = None if stored is None else stored.message["audio_duration_seconds"]
        return bound + self._of_recording(seconds or settings.max_audio_duration_seconds)

    def _of_recording(self, seconds: int) -> Bound:
        """It is written down, and then its words are part of the prompt and of what the judge is asked."""
        heard = size_of(INSTRUCTION) + AUDIO_TOKENS_A_SECOND * seconds
        words = MAX_TRANSCRIPT_CHARACTERS * CHARACTER_BYTES * (2 if self._has_judge else 1)
        return self._quotas.most(heard + words, MAX_OUTPUT_TOKENS)

    def _of_judge(self, text: str) -> Bound:
        """Whether there is something to judge is found out later."""
        return self._quotas.most(*most_of_judgement(text)) if self._has_judge else Bound()

    def _of_picture(self, uow: UnitOfWork, turn: StoredTurn, influencer: StoredInfluencer) -> Bound:
        request = uow.pictures.find(turn.id)
        prompt = "" if request is None else request.prompt
        if prompt or not self._settings.has_model_provider:
            return self._quotas.most_of_picture(prompt)
        history = uow.messages.list_for_prompt(turn.conversation_id, before_seq=2**62, limit=SCENE_MESSAGES)
        scene = scene_request(influencer, history, deadline=time.monotonic(), correlation_id="")
        return self._quotas.most_of(scene) + self._quotas.most_of_picture("x" * MAX_PROMPT_CHARACTERS * CHARACTER_BYTES)
