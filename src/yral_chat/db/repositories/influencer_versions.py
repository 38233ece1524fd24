"""Every text that an owner has given to a persona."""

import msgspec
from sqlalchemy import bindparam, func, select

from yral_chat.db.execution import Executor, PageStatement, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import influencer_versions


class StoredVersion(msgspec.Struct, frozen=True):
    """`created_at` in microseconds."""

    n: int
    system_instructions: str
    created_at: int


_COLUMNS = tuple(influencer_versions.c[name] for name in StoredVersion.__struct_fields__)
_OF_INFLUENCER = influencer_versions.c.influencer_id == bindparam("influencer")
_ADD = Statement(
    for_both(
        influencer_versions,
        lambda statement: statement.on_conflict_do_nothing(index_elements=["influencer_id", "n"]),
    )
)
_NEWEST = PageStatement(
    select(*_COLUMNS).where(_OF_INFLUENCER).order_by(influencer_versions.c.n.desc()).limit(bindparam("most"))
)
_ONE = Statement(select(*_COLUMNS).where(_OF_INFLUENCER, influencer_versions.c.n == bindparam("number")))
_COUNT = Statement(select(func.count()).where(_OF_INFLUENCER))


class InfluencerVersionRepository:
    """Rows of `influencer_versions`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def keep(self, influencer_id: str, version: StoredVersion) -> None:
        """Adds it unless it is there already."""
        self._executor.run(_ADD, {"influencer_id": influencer_id, **msgspec.structs.asdict(version)})

    def list_newest(self, influencer_id: str, most: int) -> list[StoredVersion]:
        """Newest first."""
        rows = self._executor.all(_NEWEST, {"influencer": influencer_id, "most": most})
        return [StoredVersion(*row) for row in rows]

    def find(self, influencer_id: str, n: int) -> StoredVersion | None:
        row = self._executor.one(_ONE, {"influencer": influencer_id, "number": n})
        return None if row is None else StoredVersion(*row)

    def count(self, influencer_id: str) -> int:
        return self._executor.count(_COUNT, {"influencer": influencer_id})
