"""StatusService: is everything well, and how much is there (contract section 6)."""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal

from yral_chat.clients.identity import TokenVerifier
from yral_chat.clients.images import ImageModel
from yral_chat.clients.model_chain import ModelChain
from yral_chat.clients.profiles import ProfileClient
from yral_chat.clients.push import Webhook
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.clients.storage import StorageService
from yral_chat.clients.transcription import Transcriber
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError, ServiceUnavailable
from yral_chat.core.fresh import Fresh
from yral_chat.core.metrics import Metrics
from yral_chat.core.version import SERVICE_NAME, VERSION
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.counters import Totals
from yral_chat.services.backups.postgres import PostgresBackup
from yral_chat.services.backups.service import BackupService
from yral_chat.services.job_runner import JobRunner
from yral_chat.services.turns import TurnEngine

DATABASE_SECONDS = 2.5  # the whole answer must come within 3 s
# The best circuit of a provider's models stands for the provider.
_ORDER = {"closed": 0, "half_open": 1, "open": 2}
# Parts that contract section 6 names and that this version does not have yet.
_DISABLED = ("event_bus", "push", "profiles", "images", "speech", "transcription", "backup")

State = Literal["up", "degraded", "down", "disabled"]
Service = dict[str, Any]


def service(
    state: State,
    *,
    circuit: str | None = None,
    latency_ms: int | None = None,
    error: str | None = None,
    pool: tuple[int, int] | None = None,
) -> Service:
    """One entry of `services`; every key is always there."""
    return {
        "status": state,
        "circuit": circuit,
        "latency_ms": latency_ms,
        "error": error,
        "pool_size": pool[0] if pool else None,
        "pool_free": pool[0] - pool[1] if pool else None,
    }


class StatusService:
    """States come from real traffic: asking costs no provider a request."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        model: ModelChain,
        verifier: TokenVerifier,
        profiles: ProfileClient,
        engine: TurnEngine,
        storage: StorageService,
        transcriber: Transcriber | None,
        image_model: ImageModel | None,
        *,
        push: Webhook,
        backup: BackupService | PostgresBackup | None,
        jobs: JobRunner,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._database = database
        self._model = model
        self._verifier = verifier
        self._profiles = profiles
        self._engine = engine
        self._storage = storage
        self._generators = {"transcription": transcriber, "images": image_model}
        self._push = push
        self._backup = backup
        self._metrics = metrics
        # Each is asked for by anybody, or by machines: however often, the database is read once a second.
        self._probe = Fresh(self._probe_database, patience=DATABASE_SECONDS)
        self._counts = Fresh(lambda: database.read(_count), patience=DATABASE_SECONDS)
        self._jobs = Fresh(jobs.measure, patience=DATABASE_SECONDS)
        self._started = time.monotonic()

    async def health(self) -> dict[str, Any]:
        """The body of `/health`."""
        services: dict[str, Service] = {"database": await self._database_service()}
        services |= {name: service("disabled") for name in _DISABLED}
        services["event_bus"] = service("up")
        services["identity"] = self._identity()
        if self._profiles.is_enabled:
            services["profiles"] = _of_circuit(self._profiles.breaker, "the profile service fails")
        services["storage"] = (
            service("up") if self._storage.is_local else _of_circuit(self._storage.breaker, "the object store fails")
        )
        for name, generator in self._generators.items():
            if generator is not None:
                services[name] = _of_circuit(_best(generator.circuits().values()), "the provider fails")
        if self._push.is_enabled:
            services["push"] = _of_circuit(self._push.breaker, "the receiver of pushes fails")
        if self._backup is not None:
            services["backup"] = self._backup_service(self._backup)
        services |= self._models()
        return {
            "status": _overall(services),
            "timestamp": to_text(now()),
            "version": VERSION,
            "services": services,
        }

    async def ready(self) -> dict[str, Any]:
        """The body of `/health/ready`; migrations are done before the first request is heard."""
        is_up = (await self._database_service())["status"] == "up"
        checks = {"database": is_up, "migrations": True, "draining": self._engine.is_draining}
        is_ready = is_up and not self._engine.is_draining
        return {"status": "ready" if is_ready else "not_ready", "checks": checks}

    async def status(self) -> dict[str, Any]:
        """The body of `/status`."""
        database = await self._database_service()
        try:
            totals, active = await self._counts.get()
        except TimeoutError:
            raise ServiceUnavailable("The database does not answer", details={"service": "database"}) from None
        size, busy = self._database.pool()
        return {
            "service": SERVICE_NAME,
            "version": VERSION,
            "environment": self._settings.environment,
            "uptime_seconds": int(time.monotonic() - self._started),
            "database": {
                "connected": database["status"] == "up",
                "pool_size": size,
                "active_connections": busy,
            },
            "statistics": {
                "total_conversations": totals.conversations,
                "total_messages": totals.messages,
                "active_influencers": active,
            },
            "timestamp": to_text(now()),
        }

    async def measure(self) -> None:
        """Brings up to date what `/metrics` shows of the database, if that answers."""
        await self._database_service()
        with suppress(AppError, TimeoutError):  # a database that is away must not hide the other series
            await self._jobs.get()

    async def close(self) -> None:
        for asking in (self._probe, self._counts, self._jobs):
            await asking.close()

    async def _database_service(self) -> Service:
        try:
            latency_ms = await self._probe.get()
        except (AppError, TimeoutError):
            self._metrics.db_up.set(0)
            return service("down", error="the database does not answer")
        self._metrics.db_up.set(1)
        return service("up", latency_ms=latency_ms, pool=self._database.pool())

    async def _probe_database(self) -> int:
        """How many milliseconds the smallest of reads takes."""
        started = time.monotonic()
        await self._database.read(lambda uow: uow.counters.has_deltas())
        return round((time.monotonic() - started) * 1000)

    def _identity(self) -> Service:
        """The worst issuer stands for all: its tokens are the ones that may be refused."""
        state = self._verifier.status()
        failing = "the keys of an issuer cannot be fetched"
        circuits = self._verifier.circuits()
        worst = max(circuits, key=lambda breaker: _ORDER[breaker.state], default=None)
        if worst is not None and worst.state != "closed":
            return _of_circuit(worst, failing)
        error = failing if state == "down" else None
        return service(state, circuit="closed" if circuits else None, error=error)

    @staticmethod
    def _backup_service(backup: BackupService | PostgresBackup) -> Service:
        state, error = backup.condition()
        lag = backup.lag_seconds
        return service(state, error=error, latency_ms=None if lag is None else round(lag * 1000))

    def _models(self) -> dict[str, Service]:
        services: dict[str, Service] = {}
        for provider, circuits in self._model.circuits().items():
            services[f"llm_{provider}"] = _of_circuit(_best(circuits.values()), "the model provider fails")
        return services


def _count(uow: UnitOfWork) -> tuple[Totals, int]:
    return uow.counters.totals(), uow.influencers.count_active()


def _best(circuits: Iterable[CircuitBreaker]) -> CircuitBreaker | None:
    """The one that stands for a provider; None where there is nothing that could be down."""
    return min(circuits, key=lambda breaker: _ORDER[breaker.state], default=None)


def _of_circuit(breaker: CircuitBreaker | None, failing: str) -> Service:
    """`failing` says what is wrong while it is not closed; why and since when follow."""
    if breaker is None or breaker.down_seconds is None:
        return service("up", circuit="closed")
    since = to_text((now() - round(breaker.down_seconds * SECOND)) // SECOND * SECOND)
    circuit = breaker.state
    return service(
        "down" if circuit == "open" else "degraded",
        circuit=circuit,
        error=f"{failing}: {breaker.opened_reason}, since {since}",
    )


def _overall(services: dict[str, Service]) -> str:
    if services["database"]["status"] == "down":
        return "unhealthy"
    is_well = all(
        entry["status"] in ("up", "disabled") and entry["circuit"] in (None, "closed") for entry in services.values()
    )
    return "healthy" if is_well else "degraded"
