"""CharacterService: from an idea to a persona that people can talk to (contract section 11)."""

import asyncio
from typing import Any

import msgspec
import orjson

from yral_chat.clients.identity import Identity
from yral_chat.clients.language_model import Picture
from yral_chat.core.clock import now
from yral_chat.core.config import Settings
from yral_chat.core.errors import (
    AppError,
    Conflict,
    Forbidden,
    InfluencerNotFound,
    Invalid,
    MediaForbidden,
)
from yral_chat.core.objects import Influencer, is_external
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencer_versions import StoredVersion
from yral_chat.db.repositories.influencers import STATUS_RANK, StoredInfluencer
from yral_chat.services.characters.answers import refused
from yral_chat.services.characters.checking import objection_to, refuse_forbidden
from yral_chat.services.characters.generating import Generator
from yral_chat.services.characters.names import free_name
from yral_chat.services.characters.records import Metadata, NewPersona, VideoPrompt
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.media import MediaService
from yral_chat.services.moderation import ModerationService
from yral_chat.services.prompts import persona_of

# A picture that takes longer is left out of a request.
PICTURE_SECONDS = 5.0
MAX_PICTURE_BYTES = 2 * 1024 * 1024
SHOWABLE = ("image/jpeg", "image/png", "image/webp")


# Fixed names beside the ids in the addresses of the catalogue, and what clients take out of every address.
RESERVED_IDS = frozenset(
    {".", "..", "trending", "create", "import", "generate-prompt", "validate-and-generate-metadata"}
)


class Created(msgspec.Struct, frozen=True):
    """`is_new` is false when an earlier request had made it already."""

    influencer: Influencer
    is_new: bool
    starter_video_prompt: str | None = None


class CharacterService:
    """See the module. Where models are asked it raises what Generator does."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        influencers: InfluencerService,
        generator: Generator,
        media: MediaService,
        moderation: ModerationService,
    ) -> None:
        self._moderation = moderation
        self._settings = settings
        self._database = database
        self._influencers = influencers
        self._generator = generator
        self._media = media

    @property
    def is_offline(self) -> bool:
        """Whether templates answer instead of a model."""
        return self._generator.is_offline

    async def write_prompt(self, user_id: str, idea: str) -> str:
        """System instructions for an idea. Raises ContentBlocked for one that is not allowed."""
        await refuse_forbidden(self._moderation, {"prompt": idea})
        return await self._generator.instructions(user_id, idea)

    async def describe(self, user_id: str, instructions: str) -> Metadata:
        """Whether the concept may be used, and what a catalogue needs of it."""
        reason = await objection_to(self._moderation, {"system_instructions": instructions})
        if reason is not None:
            return refused(reason)
        metadata = await self._generator.describe(user_id, instructions)
        if not metadata.is_valid:
            return metadata
        name = await self._database.read(free_name, metadata.name or "")
        return msgspec.structs.replace(metadata, name=name)

    async def create(self, caller: Identity, persona: NewPersona) -> Created:
        """The persona, made unless the same owner has made it before. Raises Invalid, Forbidden, Conflict with
        `{field}`, ContentBlocked."""
        self.check_id(caller, persona.id)
        found = await self._database.read(find_existing, caller.user_id, persona)
        if found is not None:
            return Created(self._influencers.to_wire(found, is_owner=True), is_new=False)
        await refuse_forbidden(self._moderation, persona.texts)
        opening = await self._generator.open(caller.user_id, persona)
        persona = msgspec.structs.replace(
            persona,
            initial_greeting=persona.initial_greeting or opening.initial_greeting,
            suggested_messages=persona.suggested_messages or opening.suggested_messages,
        )
        stored, is_new = await self._database.write(self._add, caller.user_id, persona)
        prompt = opening.starter_video_prompt if is_new else None
        return Created(self._influencers.to_wire(stored, is_owner=True), is_new, prompt)

    def check_id(self, caller: Identity, persona_id: str) -> None:
        """Whether the caller may give this id to a bot."""
        if persona_id == caller.user_id:
            raise Invalid.field(["body", "bot_principal_id"], "A bot needs an id of its own")
        if "/" in persona_id or persona_id in RESERVED_IDS:
            raise Invalid.field(["body", "bot_principal_id"], "This id cannot stand in an address")
        if self._settings.influencer_require_ownership_claim and persona_id not in caller.ai_account_ids:
            raise Forbidden("Your token does not name this bot as yours")

    async def settle(self, user_id: str, persona: NewPersona) -> tuple[NewPersona, bool]:
        """With a free name where it has none, and whether the same owner has made it already. Raises Conflict."""
        return await self._database.read(_settle, user_id, persona)

    async def write_video_prompt(
        self, user_id: str, influencer_id: str, scene: str, reference: str | None
    ) -> VideoPrompt:
        """A prompt for a video of this persona. `reference` is a picture as in contract section 12.4; None: the
        avatar. Raises InfluencerNotFound, Invalid, MediaForbidden."""
        influencer = await self._influencers.find(influencer_id)
        if influencer is None or influencer.status == "discontinued":
            raise InfluencerNotFound
        await refuse_forbidden(self._moderation, {"scene_description": scene})
        source = None
        if reference is not None:
            source = self._media.reduce(reference, ["body", "reference_image_url"])
            if not is_external(source):
                await self._database.write(_check_reference, user_id, source)  # which locks its row
        picture = None if self.is_offline else await self._look(source, influencer.avatar_url)
        return await self._generator.video_prompt(
            user_id, persona_of(influencer), influencer.description, scene, picture
        )

    async def _look(self, reference: str | None, avatar_url: str) -> Picture | None:
        """What can be shown to a model; words are worth more than a picture that is late."""
        try:
            async with asyncio.timeout(PICTURE_SECONDS):
                if reference is not None:
                    return Picture(*await self._media.small_copy(reference))
                found = await self._media.own_avatar(avatar_url)
        except (AppError, TimeoutError):
            return None
        if found is None or found[0] not in SHOWABLE or len(found[1]) > MAX_PICTURE_BYTES:
            return None
        return Picture(*found)

    def _add(self, uow: UnitOfWork, user_id: str, persona: NewPersona) -> tuple[StoredInfluencer, bool]:
        found = find_existing(uow, user_id, persona)
        if found is not None:
            return found, False
        time = now()
        if not uow.influencers.add_new(_row(user_id, persona, time)):
            # Somebody was faster, and has committed: either it is this same request, or the name is gone.
            found = find_existing(uow, user_id, persona)
            if found is None:
                raise Conflict("This name is taken", details={"field": "name"})
            return found, False
        uow.influencer_versions.keep(persona.id, StoredVersion(1, persona.system_instructions, time))
        uow.after_commit(lambda: self._influencers.forget([persona.id]))
        stored = uow.influencers.find(persona.id)
        assert stored is not None  # noqa: S101 - just added
        return stored, True


def _settle(uow: UnitOfWork, user_id: str, persona: NewPersona) -> tuple[NewPersona, bool]:
    # In one moment: between two of them somebody may take the name that was found, and nobody has asked for it.
    if not persona.name:
        persona = msgspec.structs.replace(persona, name=free_name(uow, persona.display_name))
    return persona, find_existing(uow, user_id, persona) is not None


def find_existing(uow: UnitOfWork, user_id: str, persona: NewPersona) -> StoredInfluencer | None:
    """What the same owner has made under this id. Raises Conflict that names what is taken."""
    stored = uow.influencers.find(persona.id)
    if stored is not None:
        if stored.owner_id != user_id or stored.status == "discontinued":
            raise Conflict("This id is taken", details={"field": "bot_principal_id"})
        return stored
    if uow.influencers.is_person(persona.id):
        raise Conflict("This is the id of a person", details={"field": "bot_principal_id"})
    named = uow.influencers.find_id_by_name(persona.name)
    if named == persona.id:  # PostgreSQL: the same request was committed since we looked for its id
        return find_existing(uow, user_id, persona)
    if named is not None:
        raise Conflict("This name is taken", details={"field": "name"})
    return None


def _row(user_id: str, persona: NewPersona, time: int) -> dict[str, Any]:
    return {
        "id": persona.id,
        "name": persona.name,
        "name_key": persona.name.lower(),
        "display_name": persona.display_name,
        "avatar_url": persona.avatar_url,
        "description": persona.description,
        "category": persona.category,
        "status": "active",
        "status_rank": STATUS_RANK["active"],
        "is_nsfw": False,
        "owner_id": user_id,
        "source": persona.source,
        "system_instructions": persona.system_instructions,
        "initial_greeting": persona.initial_greeting,
        "suggested_messages": orjson.dumps(persona.suggested_messages).decode(),
        "personality_traits": orjson.dumps(persona.personality_traits).decode(),
        "version": 1,
        "card": persona.card,
        "created_at": time,
        "updated_at": time,
    }


def _check_reference(uow: UnitOfWork, user_id: str, key: str) -> None:
    media = uow.media.find_own(key, user_id)
    if media is None:
        raise MediaForbidden
    if media.kind != "image":
        raise Invalid.field(["body", "reference_image_url"], "Not an image", "media_kind")
