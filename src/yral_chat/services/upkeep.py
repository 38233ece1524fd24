"""What is done after turns and now and then: usage and counts are written, the event replay is trimmed."""

import asyncio

from loguru import logger

from yral_chat.core.clock import DAY, SECOND, now
from yral_chat.core.config import Settings
from yral_chat.db import copies
from yral_chat.db.copies import Copy
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.db.urls import backend_of, database_path
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.turns import ending
from yral_chat.services.usage import Prices


class UpkeepService:
    """Each method is one job or chore; all may be repeated."""

    def __init__(self, settings: Settings, database: Database, influencers: InfluencerService, prices: Prices) -> None:
        self._prices = prices
        self._settings = settings
        self._database = database
        self._influencers = influencers

    async def record_turns(self, jobs: list[Job]) -> None:
        """Writes what ended turns cost and added."""
        job_ids, payloads = [job.id for job in jobs], [job.payload for job in jobs]
        await self._database.write(ending.record, self._prices, job_ids, payloads)

    async def fold_counters(self) -> None:
        """Brings popularity counts up to date, and drops what is cached of those influencers."""
        if not await self._database.read(lambda uow: uow.counters.has_deltas()):
            return
        while changed := await self._database.write(lambda uow: uow.counters.fold()):
            self._influencers.forget(changed)

    async def trim_events(self) -> None:
        """Keeps the event replay within its bounds."""
        oldest = now() - round(self._settings.ws_replay_hours * 3600 * SECOND)
        await self._database.write(lambda uow: uow.events.trim(oldest, self._settings.ws_replay_events))

    async def scrub(self) -> None:
        """Keeps the write-ahead log short, and what was deleted out of it. With Litestream that is its work."""
        if self._settings.litestream_enabled:
            return
        await self._database.scrub()

    async def expire_copies(self) -> None:
        """Forgets copies from before upgrades (db/copies.py) that are too old, or that hold an erased account."""
        url = self._settings.resolved_database_url
        if backend_of(url) != "sqlite":
            return
        for copy in await asyncio.to_thread(copies.list_copies, database_path(url)):
            erased_at = await self._database.read(_find_erased_since, copy.made_at)
            if is_expired(copy, erased_at, now(), self._settings.backup_retention_days):
                await asyncio.to_thread(copy.path.unlink, missing_ok=True)
                logger.info("database.copy_forgotten", name=copy.path.name)


def is_expired(copy: Copy, erased_at: int | None, time: int, retention_days: int) -> bool:
    """`erased_at`: of the first account that was erased after it. Until a day later it can be gone back to."""
    ends = copy.made_at + retention_days * DAY
    return time >= (ends if erased_at is None else min(ends, erased_at + DAY))


def _find_erased_since(uow: UnitOfWork, time: int) -> int | None:
    return uow.accounts.find_erased_since(time)
