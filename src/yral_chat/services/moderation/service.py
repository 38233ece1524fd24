"""ModerationService: rules for what people write and for what personas are made of."""

import asyncio
from collections.abc import Mapping

import msgspec
from loguru import logger

from yral_chat.clients.language_model import LanguageModel
from yral_chat.core.config import Settings
from yral_chat.core.metrics import Metrics
from yral_chat.services.moderation.judging import Judgement
from yral_chat.services.moderation.leaks import OutputFilter, secret_of
from yral_chat.services.moderation.rules import Verdict, load_rules

# Longer instructions are prepared beside the event loop: a tenth of a second for the longest.
LONG_INSTRUCTIONS = 4000


class Refusal(msgspec.Struct, frozen=True):
    """Why a persona is refused. `reason` may be shown; `field` is the key of the text, `rule` and `version` name the
    rule."""

    reason: str
    field: str
    rule: str
    version: int


class ModerationService:
    """Decides without a model; `judge` asks one. Logs rule, version and outcome, never a text."""

    def __init__(self, settings: Settings, metrics: Metrics, model: LanguageModel) -> None:
        self._metrics = metrics
        self._model = model
        self.has_judge = settings.moderation_judge and settings.has_model_provider

    def check_message(self, text: str) -> Verdict:
        """What a person's message is; `tier` None: nothing was found."""
        verdict = load_rules().judge(text, "message")
        if verdict.tier is not None:
            self._note(verdict, {"block": "blocked"}.get(verdict.tier, verdict.tier))
        return verdict

    def check_picture(self, prompt: str) -> bool:
        """Whether a picture may be made of this."""
        verdict = load_rules().judge(prompt, "picture")
        if verdict.tier == "block":
            self._note(verdict, "refused")
        return verdict.tier != "block"

    def check_persona(self, texts: Mapping[str, str]) -> Refusal | None:
        """None when a persona may be made of these texts (by field); else the first refusal.

        What would only be suspicious in a message is accepted: a persona's maker is known.
        """
        for field, text in texts.items():
            verdict = load_rules().judge(text, "persona")
            if verdict.tier == "block":
                self._note(verdict, "refused")
                return Refusal(verdict.reason, field, verdict.rule, verdict.version)
        return None

    def judge(self, verdict: Verdict, text: str) -> Judgement | None:
        """Begins to ask a model about a suspicious message, where there is one to ask."""
        if verdict.tier != "suspicious" or not self.has_judge:
            return None
        return Judgement(self._model, text)

    def judged(self, verdict: Verdict, judgement: Judgement) -> None:
        """Counts what became of a question to the judge."""
        outcome = (
            "judge_stopped" if judgement.is_refused else "judge_failed" if judgement.has_failed else "judge_passed"
        )
        self._note(verdict, outcome)

    async def output_filter(self, instructions: str, greeting: str) -> OutputFilter:
        """For one reply of a persona with these instructions."""
        if len(instructions) > LONG_INSTRUCTIONS:
            return OutputFilter(await asyncio.to_thread(secret_of, instructions, greeting))
        return OutputFilter(secret_of(instructions, greeting))

    def leaked(self) -> None:
        """Counts a reply that was ended by its filter."""
        self._metrics.moderated("leak", "stopped")

    def _note(self, verdict: Verdict, outcome: str) -> None:
        self._metrics.moderated(verdict.kind, outcome)
        logger.info("moderation.decided", rule=verdict.rule, rules_version=verdict.version, outcome=outcome)
