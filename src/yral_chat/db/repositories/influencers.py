"""Influencers: the catalogue and the personas that people own."""

from typing import Any, NamedTuple

import msgspec
import orjson
from sqlalchemy import bindparam, exists, func, insert, or_, select

from yral_chat.core.clock import to_text
from yral_chat.core.objects import Influencer
from yral_chat.db.execution import Executor, PageStatement, Row, Statement, UpdateById
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import influencers, principals

ACTIVE, COMING_SOON, DISCONTINUED = 0, 1, 2
STATUS_RANK = {"active": ACTIVE, "coming_soon": COMING_SOON, "discontinued": DISCONTINUED}


class StoredInfluencer(msgspec.Struct, frozen=True):
    """A whole row: what the wire shows, and what only prompts and owners see. Times in microseconds."""

    id: str
    name: str
    display_name: str
    avatar_url: str
    description: str
    category: str
    status: str
    is_nsfw: bool
    owner_id: str | None
    source: str | None
    system_instructions: str
    initial_greeting: str
    suggested_messages: str
    personality_traits: str
    voice: str | None
    seed_hash: str | None
    conversation_count: int
    message_count: int
    version: int
    status_before_ban: str | None
    created_at: int
    updated_at: int

    @property
    def is_banned(self) -> bool:
        return self.status_before_ban is not None

    def to_wire(self, *, is_owner: bool = False) -> Influencer:
        """Contract section 5.5. The system prompt is the owner's alone."""
        return {
            "id": self.id,
            "name": self.name,
            "display_name": self.display_name,
            "avatar_url": self.avatar_url,
            "description": self.description,
            "category": self.category,
            "is_active": self.status,  # type: ignore[typeddict-item]
            "is_nsfw": self.is_nsfw,
            "parent_principal_id": self.owner_id,
            "source": self.source,
            "system_prompt": self.system_instructions if is_owner else None,
            "suggested_messages": orjson.loads(self.suggested_messages),
            "voice": self.voice,
            "created_at": to_text(self.created_at),
            "updated_at": to_text(self.updated_at),
            "conversation_count": self.conversation_count,
            "message_count": self.message_count,
        }


class NamedInfluencer(NamedTuple):
    """What a list of names needs. `created_at` in microseconds."""

    id: str
    name: str
    created_at: int


_ALL = select(*(influencers.c[name] for name in StoredInfluencer.__struct_fields__))
_BY_ID = Statement(_ALL.where(influencers.c.id == bindparam("id")))
_LOCKED = Statement(_ALL.where(influencers.c.id == bindparam("id")).with_for_update())
_BY_NAME = Statement(select(influencers.c.id).where(influencers.c.name_key == bindparam("key")))
_CARD = Statement(select(influencers.c.card).where(influencers.c.id == bindparam("id")))
_IS_PERSON = Statement(
    select(
        or_(
            exists().where(principals.c.id == bindparam("id")),
            exists().where(influencers.c.owner_id == bindparam("id")),
        )
    )
)
_IS_OWNED_BY = Statement(
    select(func.count()).where(influencers.c.id == bindparam("id"), influencers.c.owner_id == bindparam("owner"))
)
_LISTED = Statement(
    _ALL.where(influencers.c.status_rank < DISCONTINUED)
    .order_by(influencers.c.status_rank, influencers.c.created_at.desc(), influencers.c.id)
    .limit(bindparam("limit"))
    .offset(bindparam("offset"))
)
_COUNT_LISTED = Statement(select(func.count()).where(influencers.c.status_rank < DISCONTINUED))
_TRENDING = Statement(
    _ALL.where(influencers.c.status_rank == ACTIVE)
    .order_by(influencers.c.message_count.desc(), influencers.c.created_at.desc(), influencers.c.id)
    .limit(bindparam("limit"))
    .offset(bindparam("offset"))
)
_ACTIVE_NAMES = PageStatement(
    select(influencers.c.id, influencers.c.name, influencers.c.created_at)
    .where(influencers.c.status_rank == ACTIVE)
    .order_by(influencers.c.created_at.desc(), influencers.c.id)
    .limit(bindparam("limit"))
)
_COUNT_ACTIVE = Statement(select(func.count()).where(influencers.c.status_rank == ACTIVE))
_OWNED = Statement(
    select(influencers.c.id)
    .where(influencers.c.owner_id == bindparam("owner"), influencers.c.status_rank < DISCONTINUED)
    .order_by(influencers.c.created_at, influencers.c.id)
)
_SEEDS = Statement(select(influencers.c.id, influencers.c.seed_hash, influencers.c.owner_id))
_ADD = insert(influencers)
# Whatever it is that stands in the way, the id or the name: the caller looks.
_ADD_NEW = Statement(
    for_both(influencers, lambda statement: statement.on_conflict_do_nothing()),
    columns=tuple(
        column.name
        for column in influencers.columns
        if column.name not in ("voice", "seed_hash", "status_before_ban", "conversation_count", "message_count")
    ),
)
_UPDATE = UpdateById(influencers)


def _to_influencer(row: Row) -> StoredInfluencer:
    influencer = StoredInfluencer(*row)
    return msgspec.structs.replace(influencer, is_nsfw=bool(influencer.is_nsfw))


class InfluencerRepository:
    """Rows of `influencers`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def find(self, influencer_id: str) -> StoredInfluencer | None:
        row = self._executor.one(_BY_ID, {"id": influencer_id})
        return None if row is None else _to_influencer(row)

    def find_locked(self, influencer_id: str) -> StoredInfluencer | None:
        """As `find`; nobody else changes it until this unit ends."""
        row = self._executor.one(_LOCKED, {"id": influencer_id})
        return None if row is None else _to_influencer(row)

    def find_id_by_name(self, name: str) -> str | None:
        """Names are the same in any case of letters; also of discontinued ones."""
        return self._executor.text(_BY_NAME, {"key": name.lower()})

    def find_card(self, influencer_id: str) -> str | None:
        """The data of the card that it was imported from, as JSON of up to 10 MB."""
        return self._executor.text(_CARD, {"id": influencer_id})

    def is_person(self, principal_id: str) -> bool:
        """Whether this is the id of somebody who has chatted or owns a bot."""
        return bool(self._executor.count(_IS_PERSON, {"id": principal_id}))

    def is_owned_by(self, influencer_id: str, owner_id: str) -> bool:
        """False for catalogue influencers and unknown ids."""
        return bool(self._executor.count(_IS_OWNED_BY, {"id": influencer_id, "owner": owner_id}))

    def list_listed(self, limit: int, offset: int) -> list[StoredInfluencer]:
        """Not discontinued; active before coming soon, newest first."""
        return self._list(_LISTED, limit, offset)

    def list_trending(self, limit: int, offset: int) -> list[StoredInfluencer]:
        """Active; most talked to first."""
        return self._list(_TRENDING, limit, offset)

    def list_active_names(self) -> list[NamedInfluencer]:
        """All active ones, newest first."""
        return [NamedInfluencer(*row) for row in self._executor.all(_ACTIVE_NAMES, {"limit": 2**31 - 1})]

    def count_listed(self) -> int:
        return self._executor.count(_COUNT_LISTED, {})

    def count_active(self) -> int:
        return self._executor.count(_COUNT_ACTIVE, {})

    def list_owned_ids(self, owner_id: str) -> list[str]:
        """Of bots that are not discontinued, oldest first."""
        return [row[0] for row in self._executor.all(_OWNED, {"owner": owner_id})]

    def list_seeds(self) -> dict[str, tuple[str | None, str | None]]:
        """(seed hash, owner) by id."""
        return {row[0]: (row[1], row[2]) for row in self._executor.all(_SEEDS, {})}

    def add(self, row: dict[str, Any]) -> None:
        self._executor.connection.execute(_ADD, row)

    def add_new(self, row: dict[str, Any]) -> bool:
        """A persona that somebody has made; False when its id or name is taken."""
        return self._executor.run(_ADD_NEW, row) == 1

    def update(self, influencer_id: str, **values: Any) -> None:
        self._executor.update(_UPDATE, influencer_id, values)

    def _list(self, query: Statement, limit: int, offset: int) -> list[StoredInfluencer]:
        rows = self._executor.all(query, {"limit": limit, "offset": offset})
        return [_to_influencer(row) for row in rows]
