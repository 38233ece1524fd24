"""AccountService: a person takes everything along, or has everything erased."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from loguru import logger

from yral_chat.core import deadlines
from yral_chat.core.cache import LRUCache
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.ids import new_id
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.realtime.hub import Hub
from yral_chat.services.accounts import erasing
from yral_chat.services.accounts.erasing import ERASE_JOB, Deleted, Step
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.accounts.exporting import Exporter
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.turns import TurnEngine

# Contract section 10.1: as for a token that is good no more.
ACCOUNT_DELETED = (4001, "account deleted")
# The request itself erases; should its process die, the job goes on this long after the last sign of life.
LEASE_SECONDS = 60
PAGE = 200


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
    ) -> None:
        self._database = database
        self._hub = hub
        self._cache = cache
        self._engine = engine
        self._influencers = influencers
        self._media_url = media_url
        self._wake_jobs = wake_jobs
        self._has_quotas = settings.has_quotas
        self._log = ErasureLog(settings.data_dir / "erasures.jsonl")

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
        await self._database.write(_queue, erasure)
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
            if not await self._database.read(lambda uow, id_=erasure.id: uow.accounts.is_finished(id_)):  # type: ignore[misc]
                await self._erase(erasure)
                count += 1
        if count:
            logger.warning("accounts.erasures_replayed", count=count)
        return count

    async def _erase(self, erasure: Erasure) -> Deleted:
        user_id = erasure.user_id
        await self._engine.stop_user(user_id)
        steps = await self._erase_conversations(erasure)
        await self._engine.stop_user(user_id)  # of a conversation that began meanwhile
        for unit in (erasing.drop_files, erasing.erase_influencers, erasing.anonymise_usage):
            steps += await self._repeat(erasure, unit, user_id)
            self._influencers.forget([id_ for step in steps for id_ in step.influencer_ids])
        deleted = erasing.total(steps)
        await self._database.write(self._finish, erasure, deleted)
        if not await self._database.scrub():
            logger.warning("accounts.not_scrubbed_yet")  # the chore comes again
        logger.info("account.erased", erasure_id=erasure.id, **deleted)
        return deleted

    async def _erase_conversations(self, erasure: Erasure) -> list[Step]:
        steps: list[Step] = []
        user_id, after = erasure.user_id, ""
        while page := await self._database.read(_list_conversations, user_id, after):
            for conversation_id, after in page:  # noqa: B007 - the last one is where the next page begins
                self._engine.stop_conversation(conversation_id)
                steps += await self._repeat(erasure, erasing.thin_conversation, conversation_id)
        nobody = erasing.nobody_of(erasure)
        for conversation_id in await self._database.read(lambda uow: uow.accounts.list_human_conversations(user_id)):
            steps += await self._repeat(erasure, erasing.thin_human_chat, conversation_id, user_id, nobody)
        return steps

    async def _repeat(self, erasure: Erasure, unit: Callable[..., Step], *args: str) -> list[Step]:
        """Runs the unit until it finds no more; each run keeps the job from being taken by the runner."""

        def step(uow: UnitOfWork) -> Step:
            uow.jobs.renew([erasure.id], now() + LEASE_SECONDS * SECOND)
            uow.after_commit(self._wake_jobs)
            return unit(uow, *args)

        steps = [await self._database.write(step)]
        while steps[-1].has_more:
            steps.append(await self._database.write(step))
        return steps

    def _finish(self, uow: UnitOfWork, erasure: Erasure, deleted: Deleted) -> None:
        erasing.finish(uow, erasure, deleted, has_quotas=self._has_quotas)
        uow.after_commit(lambda: self._cache.drop(f"profile:{erasure.user_id}"))
        uow.after_commit(lambda: self._hub.close_user(erasure.user_id, *ACCOUNT_DELETED))
        uow.after_commit(self._wake_jobs)


def _queue(uow: UnitOfWork, erasure: Erasure) -> None:
    payload = {"id": erasure.id, "user_id": erasure.user_id, "at": erasure.at}
    uow.jobs.add(ERASE_JOB, payload, run_at=now() + LEASE_SECONDS * SECOND, job_id=erasure.id)


def _list_conversations(uow: UnitOfWork, user_id: str, after: str) -> list[tuple[str, str]]:
    return uow.accounts.list_ai_conversations(user_id, after, PAGE)
