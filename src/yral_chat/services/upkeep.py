"""What is done after turns and now and then: usage and counts are written, the event replay is trimmed."""

from yral_chat.core.clock import SECOND, now
from yral_chat.core.config import Settings
from yral_chat.db.database import Database
from yral_chat.db.repositories.jobs import Job
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
        """Keeps the write-ahead log short, and what was deleted out of it."""
        await self._database.scrub()
