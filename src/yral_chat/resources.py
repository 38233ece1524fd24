"""Everything a process holds open, and the services built on it: opened and closed here, and chosen only here."""

import asyncio
from collections.abc import Iterator

from loguru import logger

from yral_chat.backed_up import BackedUpDatabase
from yral_chat.clients.circuits import build_breaker, watch_circuit
from yral_chat.clients.identity import TokenVerifier, load_dev_secret
from yral_chat.clients.images import build_image_model
from yral_chat.clients.kept_secrets import load_kept_secret
from yral_chat.clients.model_chain import ModelChain, build_model
from yral_chat.clients.profiles import ProfileClient
from yral_chat.clients.public_files import PublicFiles
from yral_chat.clients.push import Webhook
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.clients.sentry import SentryReporter
from yral_chat.clients.storage import StorageService, load_signing_key
from yral_chat.clients.traces import OpenTelemetryTracer
from yral_chat.clients.transcription import build_transcriber
from yral_chat.core import crashes, tracing
from yral_chat.core.cache import LRUCache
from yral_chat.core.config import Settings
from yral_chat.core.credentials import ClientAddresses
from yral_chat.core.errors import AppError, StorageFull
from yral_chat.core.logging import show_users
from yral_chat.core.metrics import Metrics
from yral_chat.core.objects import is_external
from yral_chat.core.rate_limits import MemoryRateLimits
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.repositories.turns import TurnKind
from yral_chat.db.tracing import TracedDatabase
from yral_chat.realtime.hub import Hub
from yral_chat.services.accounts.service import AccountService
from yral_chat.services.background_model import BackgroundModel
from yral_chat.services.cards import CardService
from yral_chat.services.characters import BanService, CharacterService, Generator, RevisionService
from yral_chat.services.chat import ChatService
from yral_chat.services.completions import CompletionService
from yral_chat.services.inbox import InboxService
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.job_runner import JobRunner
from yral_chat.services.log_levels import LogLevelService
from yral_chat.services.media import MediaService
from yral_chat.services.memories import MemoryService
from yral_chat.services.moderation import ModerationService
from yral_chat.services.notifications import NotificationService
from yral_chat.services.overload import Admission
from yral_chat.services.people import PeopleService
from yral_chat.services.pictures import PictureService
from yral_chat.services.preferences import PreferenceService
from yral_chat.services.rate_limits import RateLimitService
from yral_chat.services.restores import RestoreService
from yral_chat.services.status import StatusService
from yral_chat.services.summaries import SummaryService
from yral_chat.services.turns import TurnEngine, TurnService
from yral_chat.services.turns.budgets import TurnBudgets
from yral_chat.services.turns.hearing import Hearing
from yral_chat.services.turns.picturing import PictureWork
from yral_chat.services.turns.replying import ReplyWork
from yral_chat.services.turns.running import RunningTurns, TurnWork
from yral_chat.services.turns.seeing import Seeing
from yral_chat.services.upkeep import UpkeepService
from yral_chat.services.usage import Meter, Quotas, Tabs, UsageService, load_prices
from yral_chat.services.usage.recording import release_lost


class Resources:
    """One process's resources. `open` raises DatabaseInUse, DatabaseUnusable, ValueError, OSError with a message."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None, *, is_new_backup: bool = False) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._begin_to_observe()
        self.dev_secret = load_dev_secret(settings)
        self.verifier = TokenVerifier(settings, self.dev_secret)
        self.client_addresses = ClientAddresses(settings.trusted_proxies)
        self.rate_limits = RateLimitService(settings, MemoryRateLimits(), self.metrics)
        self.storage = StorageService(settings, load_signing_key(settings))
        self.cache = LRUCache(
            max_items=settings.cache_max_items,
            max_bytes=settings.cache_max_bytes,
            ttl_seconds=settings.cache_ttl_seconds,
        )
        self.database = self._build_database()
        self._backed_up = BackedUpDatabase(settings, self.database, self.metrics, is_new_backup=is_new_backup)
        self.backup = self._backed_up.continuous
        self.postgres_backup = self._backed_up.dumps
        self.running_turns = RunningTurns()
        self.admission = Admission(
            settings, self.database, self._count_turns, observe_lateness=self.metrics.event_loop_lag.observe
        )
        self.model: ModelChain = build_model(settings)
        self.transcriber = build_transcriber(settings)
        self.image_model = build_image_model(settings)
        self.profiles = ProfileClient(settings.profile_url, self.cache, build_breaker(settings, "profiles"))
        self.prices = load_prices(settings.model_prices_file)
        self.quotas = self._build_quotas()
        self.meter = Meter(self.metrics, self.prices)
        self.moderation = ModerationService(settings, self.metrics, self.model)
        self.hub = Hub(max_sockets_per_user=settings.ws_max_connections_per_user)
        self.jobs = JobRunner(self.database, self.metrics)
        self.tabs = Tabs(self.database, self.quotas, self.meter, wake_jobs=self.jobs.wake)
        self.usage = UsageService(self.database, self.quotas)
        self.influencers = InfluencerService(self.database, self.cache, base_url=settings.base_url)
        self.public_files = PublicFiles(
            breakers={host: build_breaker(settings, f"files:{host}") for host in settings.media_allowed_hosts}
        )
        self.media = MediaService(
            settings,
            self.database,
            self.storage,
            self.public_files,
            self.cache,
            admission=self.admission,
            wake_jobs=self.jobs.wake,
        )
        self.characters = self._build_characters()
        self.revisions = RevisionService(self.database, self.influencers, self.moderation)
        self.cards = CardService(self.database, self.characters, self.media)
        self.bans = BanService(settings, self.database, self.influencers, wake_jobs=self.jobs.wake)
        budgets = TurnBudgets(
            settings,
            self.quotas,
            is_listening=self.transcriber is not None,
            has_judge=self.moderation.has_judge,
        )
        self.engine = self._build_engine(budgets)
        self.turns = TurnService(settings, self.database, self.hub, self.engine, budgets)
        self.completions = CompletionService(
            settings,
            self.database,
            self.cache,
            self.metrics,
            self.influencers,
            self.model,
            self.turns,
            self.moderation,
            self.quotas,
            self.tabs,
            admission=self.admission,
            wake_jobs=self.jobs.wake,
        )
        background = BackgroundModel(self.model, self.quotas, self.tabs, is_offline="offline" in self.model.circuits())
        self.memories = MemoryService(settings, self.database, self.influencers, background, self.metrics)
        self.summaries = SummaryService(settings, self.database, self.influencers, background)
        self.preferences = PreferenceService(self.database)
        self.pictures = PictureService(settings, self.database, self.hub, self.engine, self.image_model, budgets)
        self.notifications = self._build_notifications()
        self.chat = ChatService(
            self.database, self.hub, self.influencers, self.engine, self.profiles, wake_jobs=self.jobs.wake
        )
        self.people = PeopleService(
            settings,
            self.database,
            self.hub,
            self.profiles,
            list_handed_over=self.engine.list_handed_over,
            wake_jobs=self.jobs.wake,
        )
        self.inbox = InboxService(settings, self.database, self.hub, renew_url=self._renew_url)
        self.upkeep = UpkeepService(settings, self.database, self.influencers, self.prices)
        self.accounts = AccountService(
            settings,
            self.database,
            self.hub,
            self.cache,
            self.engine,
            self.influencers,
            media_url=self._media_url,
            wake_jobs=self.jobs.wake,
            scrub=self.database.scrub if self.backup is None else self.backup.scrub,
        )
        self.restores = RestoreService(
            settings,
            self.database,
            self.hub,
            forget_influencers=self.influencers.forget,
            wake_jobs=self.jobs.wake,
        )
        self.status = StatusService(
            settings,
            self.database,
            self.model,
            self.verifier,
            self.profiles,
            self.engine,
            self.storage,
            self.transcriber,
            self.image_model,
            push=self.notifications.push,
            backup=self.backup or self.postgres_backup,
            jobs=self.jobs,
            metrics=self.metrics,
        )
        self.log_levels = LogLevelService(settings)
        self._watch()

    def _begin_to_observe(self) -> None:
        """How the log names people, where spans go, and who is told of crashes. Raises ValueError without packages."""
        settings = self.settings
        is_keyed = settings.log_users == "hashed"
        show_users(settings.log_users, load_kept_secret(settings.data_dir / "log-key") if is_keyed else None)
        self._tracer = OpenTelemetryTracer(settings) if settings.otel_enabled else None
        self._reporter = SentryReporter(settings) if settings.sentry_dsn is not None else None
        if self._tracer is not None:
            tracing.use(self._tracer)
        if self._reporter is not None:
            crashes.use(self._reporter)

    async def _end_to_observe(self) -> None:
        """What is left is sent, within bounds; both at once, because each may have to wait for a dead server."""
        closing = [asyncio.to_thread(part.close) for part in (self._tracer, self._reporter) if part is not None]
        if self._tracer is not None:
            tracing.use(None)
        if self._reporter is not None:
            crashes.use(None)
        await asyncio.gather(*closing)

    def _build_database(self) -> Database:
        settings = self.settings
        database = create_database(
            settings.resolved_database_url,
            pool_size=settings.database_pool_size,
            cache_mb=settings.database_cache_mb,
            is_replicated=settings.litestream_enabled,
            media_url=self._media_url,
            max_waiting=settings.database_max_waiting,
            silence_seconds=settings.database_silence_seconds,
            observe=self.metrics.unit_finished,
        )
        return TracedDatabase(database) if settings.otel_enabled else database

    def _build_characters(self) -> CharacterService:
        generator = Generator(
            self.settings,
            self.model,
            self.image_model,
            self.media,
            self.metrics,
            self.quotas,
            self.tabs,
            admission=self.admission,
        )
        return CharacterService(self.settings, self.database, self.influencers, generator, self.media, self.moderation)

    def _build_quotas(self) -> Quotas:
        """What may be asked is what may be billed: the chain, what writes down recordings, what makes pictures."""
        chains: list[dict[str, dict[str, CircuitBreaker]]] = [self.model.circuits()]
        if self.transcriber is not None:
            chains.append({self.transcriber.provider: self.transcriber.circuits()})
        models = [(provider, model) for chain in chains for provider, circuits in chain.items() for model in circuits]
        painter = self.image_model
        image_models = () if painter is None else tuple((painter.provider, model) for model in painter.models)
        return Quotas(self.settings, self.prices, models, image_models)

    def _build_engine(self, budgets: TurnBudgets) -> TurnEngine:
        """What works on turns: on replies, and on pictures."""
        settings, running_turns = self.settings, self.running_turns
        hearing = Hearing(self.database, self.hub, self.media, self.transcriber)
        replies = ReplyWork(
            settings,
            self.database,
            self.hub,
            self.influencers,
            self.model,
            running_turns,
            Seeing(self.media),
            hearing,
            self.moderation,
            self.profiles,
            budgets,
        )
        pictures = PictureWork(
            settings,
            self.database,
            self.influencers,
            self.model,
            self.image_model,
            self.media,
            self.moderation,
        )
        works: dict[TurnKind, TurnWork] = {"reply": replies, "picture": pictures}
        return TurnEngine(
            settings,
            self.database,
            self.hub,
            self.metrics,
            self.meter,
            self.jobs.wake,
            running_turns,
            works,
            self.admission,
        )

    def _build_notifications(self) -> NotificationService:
        settings = self.settings
        secret = settings.push_secret.get_secret_value() if settings.push_secret is not None else None
        push, operator = (
            Webhook(url, secret, build_breaker(settings, name))
            for name, url in (("push", settings.push_url), ("operator", settings.operator_webhook_url))
        )
        return NotificationService(
            self.database, self.hub, self.profiles, self.engine.list_handed_over, push=push, operator=operator
        )

    def _count_turns(self) -> int:
        """What is asked of the models for people who wait."""
        return len(self.running_turns) + self.completions.count()

    def _media_url(self, reference: str) -> str:
        """The address that clients are given for a file."""
        return reference if is_external(reference) else self.storage.url(reference)

    def _renew_url(self, url: str) -> str:
        """The same address with a fresh signature; what is not ours stays."""
        key = self.storage.key_of(url)
        return url if key is None else self.storage.url(key)

    def _watch(self) -> None:
        """Lets the metrics ask what others count."""
        self.metrics.watch_cache("main", self.cache.counters)
        self.metrics.watch_pool(self.database.pool)
        for name in self.database.waiting():
            self.metrics.watch_queue(
                name,
                lambda name=name: self.database.waiting()[name].units,  # type: ignore[misc]
                lambda name=name: self.database.waiting()[name].seconds,  # type: ignore[misc]
            )
        self.metrics.watch_disk(self.settings.data_dir)
        self.metrics.watch_sockets(self.hub.counts)
        for breaker in self._circuits():
            watch_circuit(breaker, self.metrics)

    def _circuits(self) -> Iterator[CircuitBreaker]:
        """Those of what is in use."""
        for circuits in self.model.circuits().values():
            yield from circuits.values()
        for generator in (self.transcriber, self.image_model):
            if generator is not None:
                yield from generator.circuits().values()
        yield from self.verifier.circuits()
        yield from self.public_files.breakers.values()
        if not self.storage.is_local:
            yield self.storage.breaker
        if self.profiles.is_enabled:
            yield self.profiles.breaker
        for webhook in (self.notifications.push, self.notifications.operator):
            if webhook.is_enabled:
                yield webhook.breaker

    async def open(self) -> None:
        """Makes this process the one that serves the database, brings the tables up to date, and picks up turns."""
        self.database.lock()
        try:
            self.media.clear_incoming()
            await self._backed_up.open()
            seeded = await self.influencers.seed()
            if seeded:
                logger.info("personas.seeded", count=seeded)
            await self.database.write(lambda uow: uow.jobs.free_all())
            await self.database.write(release_lost)
            await self.accounts.replay_erasures()
            self.admission.start()
            await self.engine.start()
            if self.postgres_backup is not None:
                self.postgres_backup.start()
        except AppError as error:
            await self._backed_up.close()
            raise DatabaseUnusable(_not_started(error)) from error
        except BaseException:
            await self._backed_up.close()
            raise

    async def drain(self) -> None:
        """Before `close`: see TurnEngine.drain. Sockets are told to come back."""
        grace_seconds = self.settings.shutdown_grace_seconds
        await asyncio.gather(self.engine.drain(grace_seconds), self.completions.drain(grace_seconds))
        self.hub.close_all()

    async def close(self) -> None:
        """Ends everything in the order in which it depends on each other."""
        if not self.engine.is_draining:
            await self.engine.drain(0)
        self.hub.close_all()
        await self.admission.close()
        await self.engine.close()
        await self.tabs.wait_closed()
        await self.jobs.close()
        await self.cache.close()
        await self.model.close()
        if self.transcriber is not None:
            await self.transcriber.close()
        if self.image_model is not None:
            await self.image_model.close()
        await self.public_files.close()
        await self.verifier.close()
        await self.profiles.close()
        await self.notifications.close()
        await self.storage.close()
        await self.status.close()
        await self._backed_up.close()
        self.log_levels.close()
        await self._end_to_observe()


def _not_started(error: AppError) -> str:
    """A start has to write: it makes itself the owner of what an earlier process left unfinished."""
    if isinstance(error, StorageFull):
        return "The disk that holds the database is full; nothing was changed. Make room, then start again."
    return f"{error.message}. Look at the log above, and at the disk that holds it."
