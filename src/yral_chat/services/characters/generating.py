"""Generator: has models write about personas, within the time that clients wait, and keeps what that costs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from yral_chat.clients.images import ImageModel
from yral_chat.clients.language_model import (
    LanguageModel,
    ModelCall,
    ModelFailure,
    ModelMessage,
    ModelRequest,
    Persona,
    Picture,
)
from yral_chat.core import deadlines
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError, GenerationTimeout, QuotaExceeded
from yral_chat.core.logging import correlation_id
from yral_chat.core.metrics import Metrics
from yral_chat.services.characters import answers, templates
from yral_chat.services.characters.records import (
    MAX_INSTRUCTIONS,
    Metadata,
    NewPersona,
    Opening,
    VideoPrompt,
)
from yral_chat.services.characters.wordings import (
    METADATA,
    METADATA_SCHEMA,
    OPENING,
    OPENING_SCHEMA,
    PROMPT,
    VIDEO,
    VIDEO_SCHEMA,
    framed,
)
from yral_chat.services.media import MediaService
from yral_chat.services.overload import Admission
from yral_chat.services.structured_answers import MAX_SHOWN_CHARACTERS, ask_data, ask_text, refusal_of
from yral_chat.services.usage import Bound, Quotas, Tab, Tabs

# Models that think do it inside this limit: what is written is a tenth of it.
MAX_OUTPUT_TOKENS = 8192
# Between the last answer of a model and ours: a picture is stored, a row is written.
MARGIN_SECONDS = 1.0
# UTF-8 takes at most so many bytes for a character; what is said of an answer that cannot be used; and a prompt for a
# portrait, which is made of bounded texts.
CHARACTER_BYTES = 4
COMPLAINT_BYTES = 4096
PORTRAIT_BYTES = 8192


class Generator:
    """Everything raises GenerationTimeout, ModelUnavailable, NoModelProvider, ModelQuotaExhausted, ContentBlocked,
    QuotaExceeded.

    Without a model provider (`is_offline`) templates answer.
    """

    def __init__(
        self,
        settings: Settings,
        model: LanguageModel,
        image_model: ImageModel | None,
        media: MediaService,
        metrics: Metrics,
        quotas: Quotas,
        tabs: Tabs,
        *,
        admission: Admission,
    ) -> None:
        self.is_offline = not settings.has_model_provider
        self._settings = settings
        self._model = model
        self._image_model = image_model
        self._media = media
        self._admission = admission
        self._metrics = metrics
        self._quotas = quotas
        self._tabs = tabs

    async def instructions(self, user_id: str, idea: str) -> str:
        """System instructions for an idea, at most 20,000 characters."""
        if self.is_offline:
            return templates.instructions(idea)
        material = framed(idea=idea)
        async with self._call(user_id, self._bound(PROMPT, material, None, asks=1)) as call:
            text = await ask_text(self._model, call.request(PROMPT, material), call.calls)
            return answers.text_of(text.removeprefix("```").removesuffix("```"), MAX_INSTRUCTIONS)

    async def describe(self, user_id: str, instructions: str) -> Metadata:
        """What a catalogue needs, with a picture when one is made in time; `name` is a wish, not checked yet."""
        async with self._call(user_id, self._bound_of_description(instructions)) as call:
            if self.is_offline:
                metadata, look = templates.metadata(instructions), ""
            else:
                metadata, look = await self._ask_metadata(call, instructions)
            if not metadata.is_valid:
                return metadata
            prompt = templates.portrait(metadata.display_name or "", metadata.description or "", look)
            return msgspec.structs.replace(
                metadata, avatar_url=await self._avatar(user_id, prompt, call), system_instructions=instructions
            )

    async def open(self, user_id: str, persona: NewPersona) -> Opening:
        """How chats begin; a fixed text where no model answers in time. Raises nothing."""
        fixed = Opening(templates.greeting(persona.display_name), templates.SUGGESTIONS, None)
        if self.is_offline:
            return templates.opening(persona.display_name, persona.description, persona.system_instructions)
        material = framed(
            name=persona.display_name, description=persona.description, instructions=persona.system_instructions
        )
        try:
            async with self._call(user_id, self._bound(OPENING, material, OPENING_SCHEMA)) as call:
                request = call.request(OPENING, material, OPENING_SCHEMA)
                return await ask_data(self._model, request, call.calls, answers.read_opening)
        except AppError:
            return fixed

    async def video_prompt(
        self, user_id: str, persona: Persona, description: str, scene: str, picture: Picture | None
    ) -> VideoPrompt:
        """Out of the public side of a persona alone: anybody may ask."""
        if self.is_offline:
            return templates.video(persona.display_name, description, persona.category, scene)
        material = framed(name=persona.display_name, description=description, category=persona.category, scene=scene)
        bound = self._bound(VIDEO, material, VIDEO_SCHEMA, pictures=0 if picture is None else 1)
        async with self._call(user_id, bound) as call:
            request = call.request(VIDEO, material, VIDEO_SCHEMA, picture)
            made = await ask_data(self._model, request, call.calls, answers.read_video_prompt)
        chosen = scene or made.scene_description or made.video_prompt[: answers.MAX_SCENE]
        return msgspec.structs.replace(made, scene_description=chosen)

    async def _ask_metadata(self, call: "_Call", instructions: str) -> answers.Described:
        request = call.request(METADATA, framed(instructions=instructions), METADATA_SCHEMA)
        try:
            return await ask_data(self._model, request, call.calls, answers.read_metadata)
        except ModelFailure as failure:
            if failure.outcome != "blocked":
                raise
            return answers.Described(answers.refused("The safety layer refuses this concept."), "")

    async def _avatar(self, user_id: str, prompt: str, call: "_Call") -> str | None:
        """The address of a picture; None when there is none in time."""
        seconds = call.deadline - MARGIN_SECONDS - time.monotonic()
        if self._image_model is None or seconds <= 0:
            return None
        try:
            async with asyncio.timeout(seconds):
                made = await self._image_model.make(
                    prompt,
                    None,
                    deadline=time.monotonic() + seconds,
                    correlation_id=correlation_id.get(),
                    calls=call.calls,
                )
                return await self._media.keep_avatar(user_id, made.data)
        except (ModelFailure, AppError, TimeoutError):
            return None

    def _bound(
        self, system: str, material: str, schema: dict[str, Any] | None, *, asks: int = 2, pictures: int = 0
    ) -> Bound:
        """The most that asking for data can use: an answer that cannot be used is shown to the model once more."""
        if not self._quotas.is_on:
            return Bound()
        request = _Call(0.0, []).request(system, material, schema)
        bound = self._quotas.most_of(request, pictures=pictures)
        if asks == 1:
            return bound
        return bound + bound + self._quotas.most(MAX_SHOWN_CHARACTERS * CHARACTER_BYTES + COMPLAINT_BYTES, 0)

    def _bound_of_description(self, instructions: str) -> Bound:
        if not self._quotas.is_on:
            return Bound()
        bound = Bound()
        if not self.is_offline:
            bound += self._bound(METADATA, framed(instructions=instructions), METADATA_SCHEMA)
        if self._image_model is not None:
            bound += self._quotas.most_of_picture("x" * PORTRAIT_BYTES)
        return bound

    @asynccontextmanager
    async def _call(self, user_id: str, bound: Bound) -> AsyncIterator["_Call"]:
        """Bounds the block in time, turns what models say into refusals, and keeps what they cost, as usage of no
        conversation.

        Raises Overloaded too.
        """
        self._admission.check()
        seconds, tab = self._settings.generation_timeout_seconds, Tab(user_id)
        deadlines.extend(seconds)
        try:
            await self._tabs.open(tab, bound)
        except QuotaExceeded as error:
            self._metrics.limit_refused(error.details["limit_type"])
            raise
        try:
            async with asyncio.timeout(seconds):
                yield _Call(time.monotonic() + seconds, tab.calls)
        except TimeoutError as error:
            raise GenerationTimeout from error
        except ModelFailure as failure:
            raise refusal_of(failure) from failure
        finally:
            await self._tabs.close(tab)


class _Call(msgspec.Struct):
    """One piece of generating: what it has asked so far, and when it must be done (`time.monotonic()`)."""

    deadline: float
    calls: list[ModelCall]

    def request(
        self, system: str, material: str, schema: dict[str, Any] | None = None, picture: Picture | None = None
    ) -> ModelRequest:
        pictures = () if picture is None else (picture,)
        return ModelRequest(
            system=system,
            messages=(ModelMessage("user", material, pictures),),
            persona=Persona(id="", display_name=""),
            deadline=self.deadline,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            correlation_id=correlation_id.get(),
            schema=schema,
        )
