"""StatusService: is everything well, and how much is there (contract section 6)."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Literal

from yral_chat.clients.identity import TokenVerifier
from yral_chat.clients.images import ImageModel
from yral_chat.clients.model_chain import ModelChain
from yral_chat.clients.profiles import ProfileClient
from yral_chat.clients.push import Webhook
from yral_chat.clients.resilience import CircuitBreaker, CircuitState
from yral_chat.clients.storage import StorageService
from yral_chat.clients.transcription import Transcriber
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.version import SERVICE_NAME, VERSION
from yral_chat.db.database import Database
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
        self._started = time.monotonic()

    async def health(self) -> dict[str, Any]:
        """The body of `/health`."""
        services: dict[str, Service] = {"database": await self._database_service()}
        services |= {name: service("disabled") for name in _DISABLED}
        services["event_bus"] = service("up")
        identity = self._verifier.status()
        services["identity"] = service(
            identity, error="the keys of an issuer cannot be fetched" if identity == "down" else None
        )
        if self._profiles.is_enabled:
            has_failed = self._profiles.has_failed
            error = "the profile service does not answer" if has_failed else None
            services["profiles"] = service("down" if has_failed else "up", error=error)
        services["storage"] = (
            service("up")
            if self._storage.is_local
            else _of_circuit(self._storage.breaker.state, "the object store fails")
        )
        for name, generator in self._generators.items():
            if generator is not None:
                services[name] = _of_circuit(_best(generator.circuits()), "the provider fails")
        if self._push.is_enabled:
            services["push"] = _of_circuit(self._push.breaker.state, "the receiver of pushes fails")
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
        totals, active = await self._database.read(lambda uow: (uow.counters.totals(), uow.influencers.count_active()))
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

    async def _database_service(self) -> Service:
        started = time.monotonic()
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                await self._database.read(lambda uow: uow.counters.has_deltas())
        except (AppError, TimeoutError):
            return service("down", error="the database does not answer")
        latency_ms = round((time.monotonic() - started) * 1000)
        return service("up", latency_ms=latency_ms, pool=self._database.pool())

    def _models(self) -> dict[str, Service]:
        services: dict[str, Service] = {}
        for provider, circuits in self._model.circuits().items():
            services[f"llm_{provider}"] = _of_circuit(_best(circuits), "the model provider fails")
        return services


def _best(circuits: Mapping[str, CircuitBreaker]) -> CircuitState:
    """The state that stands for a provider; closed where there is nothing that could be down."""
    return min((breaker.state for breaker in circuits.values()), key=_ORDER.__getitem__, default="closed")


def _of_circuit(circuit: CircuitState, failing: str) -> Service:
    """`failing` says what is wrong while it is not closed."""
    if circuit == "closed":
        return service("up", circuit=circuit)
    return service("down" if circuit == "open" else "degraded", circuit=circuit, error=failing)


def _overall(services: dict[str, Service]) -> str:
    if services["database"]["status"] == "down":
        return "unhealthy"
    is_well = all(
        entry["status"] in ("up", "disabled") and entry["circuit"] in (None, "closed") for entry in services.values()
    )
    return "healthy" if is_well else "degraded"
