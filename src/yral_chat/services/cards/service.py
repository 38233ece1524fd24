"""CardService: personas come in as character cards and go out as such."""

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from yral_chat.clients.identity import Identity
from yral_chat.core.errors import AppError, Conflict, UnsupportedMedia
from yral_chat.core.ids import new_id
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.services.cards.mapping import as_v2, as_v3, card_from, texts_from, to_json
from yral_chat.services.cards.shapes import Json
from yral_chat.services.characters.creating import CharacterService, Created
from yral_chat.services.characters.records import NewPersona
from yral_chat.services.characters.revising import find_own
from yral_chat.services.media import MediaService

CardFormat = Literal["json", "png"]
CardSpec = Literal["v2", "v3"]
# Free names that are tried after the first: cards of one name may come together.
MORE_NAMES = 20


class CardFile(msgspec.Struct, frozen=True):
    name: str
    mime_type: str
    data: bytes


class CardService:
    """Raises what CharacterService does, and UnsupportedMedia, PayloadTooLarge, Invalid for files that are no cards."""

    def __init__(self, database: Database, characters: CharacterService, media: MediaService) -> None:
        self._database = database
        self._characters = characters
        self._media = media

    async def import_card(
        self, caller: Identity, path: Path, *, persona_id: str | None, name: str | None, is_preview: bool
    ) -> Created | NewPersona:
        """The persona of the card at `path`; with `is_preview` what would be created, and nothing is stored.

        Without `persona_id` it gets a new id, without `name` a free one.
        """
        from yral_chat.services.cards.reading import is_png, read_card  # with the imaging library: see MediaService

        data = await asyncio.to_thread(path.read_bytes)
        card = await asyncio.to_thread(read_card, data)
        persona = await self._persona_of(card, persona_id, name)
        self._characters.check_id(caller, persona.id)
        persona, is_known = await self._characters.settle(caller.user_id, persona)
        if is_preview:
            return persona
        if is_png(data) and not is_known:
            persona = msgspec.structs.replace(persona, avatar_url=await self._keep_avatar(caller.user_id, data))
        return await self._create(caller, persona, has_own_name=name is not None)

    async def _create(self, caller: Identity, persona: NewPersona, *, has_own_name: bool) -> Created:
        """With another free name when somebody was faster, unless the caller wants this one."""
        for _ in range(0 if has_own_name else MORE_NAMES):
            try:
                return await self._characters.create(caller, persona)
            except Conflict as conflict:
                if conflict.details.get("field") != "name":
                    raise
            persona, _ = await self._characters.settle(caller.user_id, msgspec.structs.replace(persona, name=""))
        return await self._characters.create(caller, persona)

    async def export(self, user_id: str, influencer_id: str, format_: CardFormat, spec: CardSpec) -> CardFile:
        """For the owner. Raises InfluencerNotFound, NotYourInfluencer."""
        from yral_chat.services.cards.writing import to_png  # as above

        influencer, imported = await self._database.read(_find, user_id, influencer_id)
        if format_ == "png":
            picture = await self._picture_of(influencer)
            data = await asyncio.to_thread(lambda: to_png(_card_of(influencer, imported), picture))
            return CardFile(f"{influencer.name}.png", "image/png", data)
        wrap = as_v2 if spec == "v2" else as_v3
        data = await asyncio.to_thread(lambda: to_json(wrap(_card_of(influencer, imported))))
        return CardFile(f"{influencer.name}.json", "application/json", data)

    async def _persona_of(self, card: Json, persona_id: str | None, name: str | None) -> NewPersona:
        texts = await asyncio.to_thread(texts_from, card)
        fields: dict[str, Any] = msgspec.structs.asdict(texts)
        return NewPersona(
            id=persona_id or new_id(),
            name=name or "",
            source="imported-card",
            card=(await asyncio.to_thread(to_json, card)).decode(),
            **fields,
        )

    async def _keep_avatar(self, user_id: str, data: bytes) -> str:
        """The picture around a card; "" for one that cannot be shown, whose texts are good all the same."""
        try:
            return await self._media.keep_avatar(user_id, data)
        except UnsupportedMedia:
            return ""

    async def _picture_of(self, influencer: StoredInfluencer) -> tuple[str, bytes] | None:
        try:
            return await self._media.own_avatar(influencer.avatar_url)
        except AppError:
            return None  # a card with a plain picture is better than none


def _find(uow: UnitOfWork, user_id: str, influencer_id: str) -> tuple[StoredInfluencer, str | None]:
    return find_own(uow, user_id, influencer_id, is_locked=False), uow.influencers.find_card(influencer_id)


def _card_of(influencer: StoredInfluencer, imported: str | None) -> Json:
    return card_from(influencer, None if imported is None else json.loads(imported))
