"""BanService: the operator takes personas out of use and brings them back (contract section 16)."""

from collections.abc import Callable

from yral_chat.core.clock import now
from yral_chat.core.config import Settings
from yral_chat.core.errors import Conflict, InfluencerNotFound
from yral_chat.core.objects import Influencer
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencers import DISCONTINUED, STATUS_RANK, StoredInfluencer
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.notifications import queue_operator_notice


class BanService:
    """Both methods take an id or a name (an id wins), may be repeated, and raise InfluencerNotFound."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        influencers: InfluencerService,
        *,
        wake_jobs: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._influencers = influencers
        self._wake_jobs = wake_jobs

    async def ban(self, id_or_name: str, reason: str) -> tuple[Influencer, bool]:
        """The state after, and that it is banned. It keeps its display name."""

        def unit(uow: UnitOfWork) -> StoredInfluencer:
            stored = _find(uow, id_or_name)
            if stored.is_banned:
                return stored
            return self._change(
                uow,
                stored,
                "influencer.banned",
                reason,
                status="discontinued",
                status_rank=DISCONTINUED,
                status_before_ban=stored.status,
            )

        return self._present(await self._database.write(unit))

    async def unban(self, id_or_name: str, reason: str) -> tuple[Influencer, bool]:
        """The state after. Raises Conflict for one that its owner has deleted."""

        def unit(uow: UnitOfWork) -> StoredInfluencer:
            stored = _find(uow, id_or_name)
            before = stored.status_before_ban or stored.status
            if before == "discontinued":
                raise Conflict("This influencer was deleted by its owner")
            if not stored.is_banned:
                return stored
            return self._change(
                uow,
                stored,
                "influencer.unbanned",
                reason,
                status=before,
                status_rank=STATUS_RANK[before],
                status_before_ban=None,
            )

        return self._present(await self._database.write(unit))

    def _change(
        self, uow: UnitOfWork, stored: StoredInfluencer, action: str, reason: str, **columns: str | int | None
    ) -> StoredInfluencer:
        time = now()
        uow.influencers.update(stored.id, **columns, updated_at=time)
        uow.audit.add(action, stored.id, time, reason=reason, details={"name": stored.name})
        queue_operator_notice(uow, self._settings, action, stored.id, reason)
        uow.after_commit(lambda: self._influencers.forget([stored.id]))
        uow.after_commit(self._wake_jobs)
        changed = uow.influencers.find(stored.id)
        assert changed is not None  # noqa: S101 - locked by this unit
        return changed

    def _present(self, stored: StoredInfluencer) -> tuple[Influencer, bool]:
        return self._influencers.to_wire(stored), stored.is_banned


def _find(uow: UnitOfWork, id_or_name: str) -> StoredInfluencer:
    stored = uow.influencers.find_locked(id_or_name)
    if stored is None and (by_name := uow.influencers.find_id_by_name(id_or_name)) is not None:
        stored = uow.influencers.find_locked(by_name)
    if stored is None:
        raise InfluencerNotFound
    return stored
