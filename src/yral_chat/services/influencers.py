"""The catalogue: lists and single influencers, as bytes that are ready to be sent; and the personas that ship."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import orjson

from yral_chat import personas
from yral_chat.core.cache import EncodedBody, LRUCache
from yral_chat.core.clock import MILLISECOND, now
from yral_chat.core.errors import InfluencerNotFound
from yral_chat.core.objects import Influencer
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencers import STATUS_RANK, StoredInfluencer
from yral_chat.personas import PICTURES_PATH

Listing = Literal["all", "trending"]


class InfluencerService:
    """Reads through the cache; `forget` is called before a write that concerns an influencer is answered."""

    def __init__(self, database: Database, cache: LRUCache, *, base_url: str) -> None:
        self._database = database
        self._cache = cache
        self._base_url = base_url

    def absolute(self, url: str) -> str:
        """Pictures of shipped personas are stored as paths of this service; clients get whole addresses."""
        return f"{self._base_url}{url}" if url.startswith("/") else url

    async def list_page(self, listing: Listing, limit: int, offset: int) -> EncodedBody:
        """`{influencers, total, limit, offset, has_more}`, encoded."""

        async def load() -> tuple[EncodedBody, int]:
            found, total = await self._database.read(_list_page, listing, limit, offset)
            body = _encode(
                {
                    "influencers": [self.to_wire(influencer) for influencer in found],
                    "total": total,
                    "limit": limit,
                    "offset": offset,
                    "has_more": offset + len(found) < total,
                }
            )
            return body, body.size

        return await self._cache.get(f"influencers:{listing}:{limit}:{offset}", load)

    async def get(self, influencer_id: str, viewer_id: str | None) -> tuple[EncodedBody, bool]:
        """One influencer, encoded, and whether it is private because the viewer owns it.

        Raises InfluencerNotFound for unknown and discontinued ones.
        """
        stored = await self.find(influencer_id)
        if stored is None or stored.status == "discontinued":
            raise InfluencerNotFound
        if viewer_id is not None and stored.owner_id == viewer_id:
            return _encode(self.to_wire(stored, is_owner=True)), True

        async def load() -> tuple[EncodedBody, int]:
            body = _encode(self.to_wire(stored))
            return body, body.size

        return await self._cache.get(f"influencer:{influencer_id}:body", load), False

    async def find(self, influencer_id: str) -> StoredInfluencer | None:
        """The whole stored influencer, discontinued ones included."""

        async def load() -> tuple[StoredInfluencer | None, int]:
            stored = await self._database.read(lambda uow: uow.influencers.find(influencer_id))
            return stored, 0 if stored is None else len(msgspec.json.encode(stored))

        load_stored: Callable[[], Awaitable[tuple[StoredInfluencer | None, int]]] = load
        return await self._cache.get(f"influencer:{influencer_id}:row", load_stored)

    async def list_owned_ids(self, owner_id: str) -> list[str]:
        """Bots of this person that are not discontinued, oldest first."""
        return await self._database.read(lambda uow: uow.influencers.list_owned_ids(owner_id))

    def forget(self, influencer_ids: list[str]) -> None:
        """What is cached of these, and every list, is read anew."""
        for influencer_id in influencer_ids:
            self._cache.drop(f"influencer:{influencer_id}:row")
            self._cache.drop(f"influencer:{influencer_id}:body")
        if influencer_ids:
            self._cache.drop_prefix("influencers:")

    async def seed(self) -> int:
        """Loads the personas that ship; returns how many were added or renewed. An owner's edit is never touched."""
        changed = await self._database.write(_seed, personas.load())
        self.forget(changed)
        return len(changed)

    def to_wire(self, stored: StoredInfluencer, *, is_owner: bool = False) -> Influencer:
        """Contract section 5.5, with whole addresses; the system prompt for the owner alone."""
        influencer = stored.to_wire(is_owner=is_owner)
        influencer["avatar_url"] = self.absolute(influencer["avatar_url"])
        return influencer


def _encode(value: object) -> EncodedBody:
    return EncodedBody.of(orjson.dumps(value))


def _list_page(uow: UnitOfWork, listing: Listing, limit: int, offset: int) -> tuple[list[StoredInfluencer], int]:
    if listing == "trending":
        return uow.influencers.list_trending(limit, offset), uow.influencers.count_active()
    return uow.influencers.list_listed(limit, offset), uow.influencers.count_listed()


def _seed(uow: UnitOfWork, shipped: "tuple[personas.CataloguePersona, ...]") -> list[str]:
    """Adds what is new and renews what nobody has edited; a row without a seed hash is somebody's own."""
    known = uow.influencers.list_seeds()
    changed = []
    time = now()
    for number, persona in enumerate(shipped):
        row = _seed_row(persona)
        stored_hash, owner_id = known.get(persona.id, (None, None))
        if persona.id not in known:
            # One after the other, so that the list has an order of its own from the start.
            created_at = time - number * MILLISECOND
            uow.influencers.add(
                row | {"id": persona.id, "status": "active", "status_rank": STATUS_RANK["active"],
                       "created_at": created_at, "updated_at": created_at}
            )  # fmt: skip
        elif owner_id is None and stored_hash is not None and stored_hash != row["seed_hash"]:
            uow.influencers.update(persona.id, **row, updated_at=time)
        else:
            continue
        changed.append(persona.id)
    return changed


def _seed_row(persona: "personas.CataloguePersona") -> dict[str, object]:
    return {
        "name": persona.name,
        "name_key": persona.name.lower(),
        "display_name": persona.display_name,
        "avatar_url": f"{PICTURES_PATH}{persona.picture}",
        "description": persona.description,
        "category": persona.category,
        "is_nsfw": persona.is_nsfw,
        "system_instructions": persona.system_instructions,
        "initial_greeting": persona.initial_greeting,
        "suggested_messages": orjson.dumps(persona.suggested_messages).decode(),
        "personality_traits": orjson.dumps(persona.personality_traits).decode(),
        "seed_hash": hashlib.sha256(msgspec.json.encode(persona)).hexdigest(),
    }
