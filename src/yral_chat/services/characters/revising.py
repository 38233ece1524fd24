"""RevisionService: owners change their personas, go back to earlier texts, and delete them (contract section 11)."""

import msgspec
from typing_extensions import TypedDict

from yral_chat.core.clock import now, to_text
from yral_chat.core.errors import InfluencerNotFound, NotYourInfluencer, VersionNotFound
from yral_chat.core.objects import Influencer, Time
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencer_versions import StoredVersion
from yral_chat.db.repositories.influencers import STATUS_RANK, StoredInfluencer
from yral_chat.services.characters.checking import refuse_forbidden
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.moderation import ModerationService

DELETED_NAME = "Deleted Bot"
# Every version is kept; the list shows so many of 20,000 characters each.
MAX_LISTED_VERSIONS = 100


class Version(TypedDict):
    n: int
    system_instructions: str
    created_at: Time


class VersionList(TypedDict):
    """Newest first; `total` counts those, too, that are too old for the list."""

    versions: list[Version]
    total: int


class RevisionService:
    """Every method raises InfluencerNotFound (unknown or discontinued) and NotYourInfluencer."""

    def __init__(self, database: Database, influencers: InfluencerService, moderation: ModerationService) -> None:
        self._moderation = moderation
        self._database = database
        self._influencers = influencers

    async def edit(self, user_id: str, influencer_id: str, instructions: str) -> Influencer:
        """The next turn uses the new text. The same text again changes nothing. Raises ContentBlocked."""
        await refuse_forbidden(self._moderation, {"system_instructions": instructions})

        def unit(uow: UnitOfWork) -> StoredInfluencer:
            stored = find_own(uow, user_id, influencer_id)
            if stored.system_instructions == instructions:
                return stored
            return self._rewrite(uow, stored, instructions)

        return self._to_wire(await self._database.write(unit))

    async def list_versions(self, user_id: str, influencer_id: str) -> VersionList:
        return await self._database.read(_list_versions, user_id, influencer_id)

    async def restore(self, user_id: str, influencer_id: str, n: int) -> Influencer:
        """Makes the text of version `n` the newest version. Raises VersionNotFound and ContentBlocked."""
        text = await self._database.read(_find_version, user_id, influencer_id, n)
        await refuse_forbidden(self._moderation, {"system_instructions": text})  # the rules may have changed since

        def unit(uow: UnitOfWork) -> StoredInfluencer:
            return self._rewrite(uow, find_own(uow, user_id, influencer_id), text)

        return self._to_wire(await self._database.write(unit))

    async def delete(self, user_id: str, influencer_id: str) -> Influencer:
        """Nobody can begin anything with it any more; turns that run end, and what was said stays readable."""

        def unit(uow: UnitOfWork) -> StoredInfluencer:
            find_own(uow, user_id, influencer_id)
            uow.influencers.update(
                influencer_id,
                display_name=DELETED_NAME,
                status="discontinued",
                status_rank=STATUS_RANK["discontinued"],
                updated_at=now(),
            )
            return self._changed(uow, influencer_id)

        return self._to_wire(await self._database.write(unit))

    def _rewrite(self, uow: UnitOfWork, stored: StoredInfluencer, instructions: str) -> StoredInfluencer:
        time = max(now(), stored.updated_at + 1)
        version = StoredVersion(stored.version + 1, instructions, time)
        uow.influencer_versions.keep(stored.id, _current(stored))  # for a persona that came with its first text
        uow.influencer_versions.keep(stored.id, version)
        uow.influencers.update(
            stored.id,
            system_instructions=instructions,
            version=version.n,
            seed_hash=None,  # from now on it is the owner's, whatever the next release ships
            updated_at=time,
        )
        return self._changed(uow, stored.id)

    def _changed(self, uow: UnitOfWork, influencer_id: str) -> StoredInfluencer:
        uow.after_commit(lambda: self._influencers.forget([influencer_id]))
        stored = uow.influencers.find(influencer_id)
        assert stored is not None  # noqa: S101 - locked by this unit
        return stored

    def _to_wire(self, stored: StoredInfluencer) -> Influencer:
        return self._influencers.to_wire(stored, is_owner=True)


def find_own(uow: UnitOfWork, user_id: str, influencer_id: str, *, is_locked: bool = True) -> StoredInfluencer:
    """The owner's persona; locked, nobody else changes it until the unit ends."""
    find = uow.influencers.find_locked if is_locked else uow.influencers.find
    stored = find(influencer_id)
    if stored is None or stored.status == "discontinued":
        raise InfluencerNotFound
    if stored.owner_id != user_id:
        raise NotYourInfluencer
    return stored


def _current(stored: StoredInfluencer) -> StoredVersion:
    return StoredVersion(stored.version, stored.system_instructions, stored.created_at)


def _find_version(uow: UnitOfWork, user_id: str, influencer_id: str, n: int) -> str:
    stored = find_own(uow, user_id, influencer_id, is_locked=False)
    version = _current(stored) if n == stored.version else uow.influencer_versions.find(influencer_id, n)
    if version is None:
        raise VersionNotFound
    return version.system_instructions


def _list_versions(uow: UnitOfWork, user_id: str, influencer_id: str) -> VersionList:
    stored = find_own(uow, user_id, influencer_id, is_locked=False)
    found = uow.influencer_versions.list_newest(influencer_id, MAX_LISTED_VERSIONS)
    total = uow.influencer_versions.count(influencer_id)
    if not found:
        found, total = [_current(stored)], 1
    versions: list[Version] = [
        {**msgspec.structs.asdict(version), "created_at": to_text(version.created_at)}  # type: ignore[typeddict-item]
        for version in found
    ]
    return {"versions": versions, "total": total}
