"""Everything a process holds open, and the services built on it: opened and closed here, and chosen only here."""

import asyncio

from loguru import logger

from yral_chat.clients.identity import TokenVerifier, load_dev_secret
from yral_chat.clients.model_chain import ModelChain, build_model
from yral_chat.clients.profiles import ProfileClient
from yral_chat.core.cache import LRUCache
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError, StorageFull
from yral_chat.core.metrics import Metrics
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database, DatabaseUnusable
from yral_chat.db.migrations import migrate
from yral_chat.realtime.hub import Hub
from yral_chat.services.chat import ChatService
from yral_chat.services.inbox import InboxService
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.job_runner import JobRunner
from yral_chat.services.status import StatusService
from yral_chat.services.turns import TurnEngine, TurnService
from yral_chat.services.upkeep import UpkeepService


class Resources:
    """One process's resources. `open` raises DatabaseInUse, DatabaseUnusable, ValueError, OSError with a message."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.dev_secret = load_dev_secret(settings)
        self.verifier = TokenVerifier(settings, self.dev_secret)
        self.cache = LRUCache(
            max_items=settings.cache_max_items,
            max_bytes=settings.cache_max_bytes,
            ttl_seconds=settings.cache_ttl_seconds,
        )
        self.database: Database = create_database(settings.resolved_database_url, pool_size=settings.database_pool_size)
        self.model: ModelChain = build_model(settings)
        self.hub = Hub(max_sockets_per_user=settings.ws_max_connections_per_user)
        self.jobs = JobRunner(self.database)
        self.influencers = InfluencerService(self.database, self.cache, base_url=settings.base_url)
        self.engine = TurnEngine(
            settings, self.database, self.hub, self.influencers, self.model, self.metrics, self.jobs.wake
        )
        self.turns = TurnService(settings, self.database, self.hub, self.engine)
        self.profiles = ProfileClient(settings.profile_url, self.cache)
        self.chat = ChatService(self.database, self.hub, self.influencers, self.engine, self.profiles)
        self.inbox = InboxService(settings, self.database, self.hub)
        self.upkeep = UpkeepService(settings, self.database, self.influencers)
        self.status = StatusService(settings, self.database, self.model, self.verifier, self.profiles, self.engine)
        self._watch()

    def _watch(self) -> None:
        """Lets the metrics ask what others count."""
        self.metrics.watch_cache("main", self.cache.counters)
        self.metrics.db_pool_in_use.set_function(lambda: self.database.pool()[1])
        levels = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
        for provider, circuits in self.model.circuits().items():
            for model, breaker in circuits.items():
                self.metrics.watch_circuit(
                    f"llm_{provider}:{model}",
                    lambda breaker=breaker: levels[breaker.state],  # type: ignore[misc]
                )

    async def open(self) -> None:
        """Makes this process the one that serves the database, brings the tables up to date, and picks up turns."""
        self.database.lock()
        try:
            await asyncio.to_thread(migrate, self.settings.resolved_database_url)
            await self.database.open()
            seeded = await self.influencers.seed()
            if seeded:
                logger.info("personas.seeded", count=seeded)
            await self.database.write(lambda uow: uow.jobs.free_all())
            await self.engine.start()
        except AppError as error:
            await self.database.close()
            raise DatabaseUnusable(_not_started(error)) from error
        except BaseException:
            await self.database.close()
            raise

    async def drain(self) -> None:
        """Before `close`: see TurnEngine.drain. Sockets are told to come back."""
        await self.engine.drain(self.settings.shutdown_grace_seconds)
        self.hub.close_all()

    async def close(self) -> None:
        """Ends everything in the order in which it depends on each other."""
        if not self.engine.is_draining:
            await self.engine.drain(0)
        self.hub.close_all()
        await self.engine.close()
        await self.jobs.close()
        await self.cache.close()
        await self.model.close()
        await self.verifier.close()
        await self.profiles.close()
        await self.database.close()


def _not_started(error: AppError) -> str:
    """A start has to write: it makes itself the owner of what an earlier process left unfinished."""
    if isinstance(error, StorageFull):
        return "The disk that holds the database is full; nothing was changed. Make room, then start again."
    return f"{error.message}. Look at the log above, and at the disk that holds it."
