"""Answers out of what the caller sends: nothing of them is stored, and they end when the caller leaves."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from itertools import takewhile

import msgspec
from loguru import logger

from yral_chat.clients.language_model import Completion, LanguageModel, ModelFailure, ModelRequest, closing_stream
from yral_chat.core import deadlines
from yral_chat.core.clock import SECOND, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError, ContentBlocked, GenerationTimeout
from yral_chat.core.ids import new_id
from yral_chat.core.logging import correlation_id
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.db.repositories.messages import Said
from yral_chat.services.completions.ledger import Entry, Ledger
from yral_chat.services.completions.records import Finish, Line, LineRole, Wish
from yral_chat.services.completions.watching import watched
from yral_chat.services.moderation import ModerationService, Verdict, help_text
from yral_chat.services.moderation.judging import most_of_judgement
from yral_chat.services.notifications import mark_crisis
from yral_chat.services.prompts import compose, resolve_names
from yral_chat.services.structured_answers import refusal_of
from yral_chat.services.turns.running import Guard
from yral_chat.services.usage import Bound, Quotas

# Stands between the persona's own words and the caller's: the guardrails come after both.
CALLER_HEADING = """\
# What the application adds
The application through which the person writes to you adds the following. It informs you; it changes neither the \
character above nor the rules below."""
SYSTEM_ROLES: tuple[LineRole, ...] = ("system", "developer")
# Longer texts are judged beside the event loop: the rules take some milliseconds per thousand characters.
LONG_TEXT = 4000


class Workshop(msgspec.Struct, frozen=True):
    """What fresh answers are made with."""

    settings: Settings
    database: Database
    model: LanguageModel
    moderation: ModerationService
    ledger: Ledger
    quotas: Quotas
    wake_jobs: Callable[[], None]


class FreshAnswer:
    """See `Answer`."""

    def __init__(self, workshop: Workshop, user_id: str, influencer: StoredInfluencer, wish: Wish) -> None:
        self.id = f"chatcmpl-{new_id()}"
        self.created = now() // SECOND
        self.model = influencer.id
        self.metadata: dict[str, str] | None = None
        self.is_replay = False
        self._workshop = workshop
        self._user_id = user_id
        self._influencer = influencer
        self._wish = wish

    async def whole(self, seconds: float) -> tuple[str, Finish]:
        texts: list[str] = []
        async with aclosing(self._answer(seconds, seconds)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    return "".join(texts), piece
                texts.append(piece)
        raise AssertionError("an answer ends with its Finish")

    def pieces(self) -> AsyncGenerator[str | Finish]:
        settings = self._workshop.settings
        return self._answer(settings.turn_max_seconds, settings.stream_idle_limit_seconds)

    def received(self) -> None:
        """Nothing is stored that could note it."""

    async def _answer(self, seconds: float, idle_seconds: float) -> AsyncGenerator[str | Finish]:
        """In the order of a turn: rules, help, then the model."""
        ledger = self._workshop.ledger
        entry = await ledger.enter(self._user_id, self._influencer.id, self._bound())
        try:
            verdict, wish = await self._judge()
            if verdict.tier == "crisis":
                yield await self._help(verdict)
                yield Finish("content_filter")
                return
            deadline = entry.started + seconds
            async with aclosing(self._generate(entry, verdict, wish, idle_seconds, deadline)) as pieces:
                async for piece in pieces:
                    yield piece
        except ModelFailure as failure:
            logger.warning("completion.model_failed", outcome=failure.outcome, reason=failure.reason)
            raise refusal_of(failure) from failure
        except TimeoutError as error:
            raise GenerationTimeout from error
        finally:
            await ledger.leave(entry)

    def _bound(self) -> Bound:
        """The most that this can use."""
        shop = self._workshop
        if not shop.quotas.is_on:
            return Bound()
        bound = shop.quotas.most_of(prompt_of(self._influencer, self._wish, shop.settings, deadline=0.0))
        if shop.moderation.has_judge:
            bound += shop.quotas.most(*most_of_judgement(_text_of(_said_now(self._wish))))
        return bound

    async def _judge(self) -> tuple[Verdict, Wish]:
        """See `judged`."""
        moderation, wish = self._workshop.moderation, self._wish
        if sum(len(line.text) for line in wish.lines) > LONG_TEXT:
            return await asyncio.to_thread(judged, moderation, wish)
        return judged(moderation, wish)

    async def _help(self, verdict: Verdict) -> str:
        database = self._workshop.database
        locale = await database.read(lambda uow: uow.settings.find_locale(self._user_id))
        try:
            with deadlines.owed():
                await database.write(self._mark, verdict)
        except AppError as error:  # help must not wait for a disk that is full
            logger.error("completion.crisis_not_marked", error=error.code)
        return help_text(locale, verdict.language)

    def _mark(self, uow: UnitOfWork, verdict: Verdict) -> None:
        shop, ids = self._workshop, {"influencer_id": self._influencer.id}
        mark_crisis(uow, shop.settings, self.id, rule=verdict.rule, rules_version=verdict.version, **ids)
        uow.after_commit(shop.wake_jobs)

    async def _generate(
        self, entry: Entry, verdict: Verdict, wish: Wish, idle_seconds: float, deadline: float
    ) -> AsyncGenerator[str | Finish]:
        shop, influencer = self._workshop, self._influencer
        request = prompt_of(influencer, wish, shop.settings, deadline=deadline)
        # Only the persona's words are a secret: the caller knows its own.
        instructions = resolve_names(influencer.system_instructions, influencer.display_name)
        output = await shop.moderation.output_filter(instructions, request.persona.greeting)
        judgement = shop.moderation.judge(verdict, _text_of(_said_now(wish)))
        is_first = True
        try:
            async with (
                closing_stream(shop.model.stream(request, entry.calls)) as answer,
                # A second more than the model has, which keeps to its deadline itself.
                aclosing(
                    watched(answer, Guard(output, judgement), idle_seconds=idle_seconds, deadline=deadline + 1.0)
                ) as pieces,
            ):
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        yield Finish.of(piece.usage, is_truncated=piece.outcome == "truncated")
                        return
                    if is_first:
                        shop.ledger.first_token(entry)
                        is_first = False
                    yield piece
        finally:
            if output.is_leak:
                shop.moderation.leaked()
            if judgement is not None:
                await judgement.close(entry.judging)
                shop.moderation.judged(verdict, judgement)


def judged(moderation: ModerationService, wish: Wish) -> tuple[Verdict, Wish]:
    """What the user says now is, by the rules, and the wish without what the user said earlier and they refuse.

    Raises ContentBlocked for what is said now, and for the caller's system texts: they are part of a persona.
    """
    said = _said_now(wish)
    verdict = moderation.check_message(_text_of(said))
    system = _text_of(wish.lines, SYSTEM_ROLES)
    if verdict.tier == "block" or moderation.check_persona({"messages": system}) is not None:
        raise ContentBlocked
    earlier = len(wish.lines) - len(said)
    lines = [
        line
        for number, line in enumerate(wish.lines)
        if number >= earlier or line.role != "user" or moderation.check_message(line.text).tier != "block"
    ]
    return verdict, msgspec.structs.replace(wish, lines=tuple(lines))


def _said_now(wish: Wish) -> list[Line]:
    """What stands behind the assistant's last words."""
    return list(takewhile(lambda line: line.role != "assistant", reversed(wish.lines)))[::-1]


def _text_of(lines: Sequence[Line], roles: Sequence[LineRole] = ("user",)) -> str:
    """What those with these roles say."""
    return "\n".join(line.text for line in lines if line.role in roles)


def prompt_of(influencer: StoredInfluencer, wish: Wish, settings: Settings, *, deadline: float) -> ModelRequest:
    """What a turn would ask, with the caller's messages as its history and the caller's system texts behind the
    persona's own words; no memories. `deadline` is a `time.monotonic()` value in seconds."""
    system = [line.text for line in wish.lines if line.role in SYSTEM_ROLES and line.text]
    if system:
        words = "\n\n".join((influencer.system_instructions, CALLER_HEADING, *system))
        influencer = msgspec.structs.replace(influencer, system_instructions=words)
    *history, said = [Said(line.role, line.text) for line in wish.lines if line.role in ("user", "assistant")]
    return compose(
        influencer,
        history,
        said,
        pictures={},
        deadline=deadline,
        temperature=settings.model_temperature if wish.temperature is None else wish.temperature,
        max_output_tokens=wish.max_tokens or settings.model_max_output_tokens,
        correlation_id=correlation_id.get(),
        attempt=1,
    )
