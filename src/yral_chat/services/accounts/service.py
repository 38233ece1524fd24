"""AccountService: a person takes everything along, or has everything erased."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from loguru import logger

from yral_chat.core import deadlines
from yral_chat.core.cache import LRUCache
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.ids import new_id
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.realtime.hub import Hub
from yral_chat.services.accounts import erasing
from yral_chat.services.accounts.eraser import Eraser, queue, queue_anew
from yral_chat.services.accounts.erasing import Deleted
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.accounts.exporting import Exporter
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.turns import TurnEngine

# Contract section 10.1: as for a token that is good no more.
ACCOUNT_DELETED = (4001, "account deleted")


class AccountService:
    """See the module. Everything that is stored of a person is named in `erasing`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        hub: Hub,
        cache: LRUCache,
        engine: TurnEngine,
        influencers: InfluencerService,
        *,
        media_url: Callable[[str], str],
        wake_jobs: Callable[[], None],
        scrub: Callable[[], Awaitable[bool]],
    ) -> None:
        self._database = database
        self._scrub = scrub
        self._hub = hub
        self._cache = cache
        self._influencers = influencers
        self._media_url = media_url
        self._wake_jobs = wake_jobs
        self._has_quotas = settings.has_quotas
        self._log = ErasureLog(settings.data_dir / "erasures.jsonl")
        self._eraser = Eraser(
            database,
            stop_user=engine.stop_user,
            stop_conversation=engine.stop_conversation,
            forget_influencers=influencers.forget,
            wake_jobs=wake_jobs,
        )

    def export(self, user_id: str) -> AsyncGenerator[bytes, None]:
        """Everything of this person as one JSON document, in pieces."""
        deadlines.lift()
        exporter = Exporter(self._database, user_id, absolute=self._influencers.absolute, media_url=self._media_url)
        return exporter.write()

    async def erase(self, user_id: str) -> Deleted:
        """Erases everything of this person; returns once the rows are gone. Files follow by jobs.

        First the job is stored and then the line in the log: so an erasure that is in the log goes on after a crash,
        and one that is not has not begun. Raises StorageFull, ServiceUnavailable.
        """
        erasure = Erasure(new_id(), user_id, to_text(now()))
        await self._database.write(queue, erasure)
        try:
            await asyncio.to_thread(self._log.append, erasure)
        except AppError:
            await self._database.write(lambda uow: uow.jobs.delete(erasure.id))
            raise
        return await self._erase(erasure)

    async def continue_erasures(self, jobs: list[Job]) -> None:
        """The job `accounts.erase`: those whose process died. The last unit of an erasure deletes its job."""
        for job in jobs:
            erasure = Erasure(**job.payload)
            if erasure not in await asyncio.to_thread(self._log.read):
                await asyncio.to_thread(self._log.append, erasure)
            await self._erase(erasure)

    async def replay_erasures(self) -> int:
        """Repeats what the log tells and this database has not lived through: it is a backup that was restored.

        Called at every start, before anybody is served. Returns how many there were.
        """
        count = 0
        for erasure in await asyncio.to_thread(self._log.read):
            if not await self._eraser.is_finished(erasure):
                await self._database.write(queue_anew, erasure)
                await self._erase(erasure)
                count += 1
        if count:
            logger.warning("accounts.erasures_replayed", count=count)
        return count

    async def _erase(self, erasure: Erasure) -> Deleted:
        deleted = await self._eraser.run(erasure, self._finish)
        if not await self._scrub():
            logger.warning("accounts.not_scrubbed_yet")  # the chore comes again
        logger.info("account.erased", erasure_id=erasure.id, **deleted)
        return deleted

    def _finish(self, uow: UnitOfWork, erasure: Erasure, deleted: Deleted) -> None:
        erasing.finish(uow, erasure, deleted, has_quotas=self._has_quotas)
        uow.after_commit(lambda: self._cache.drop(f"profile:{erasure.user_id}"))
        uow.after_commit(lambda: self._hub.close_user(erasure.user_id, *ACCOUNT_DELETED))
        uow.after_commit(self._wake_jobs)
