"""Service routes: health, status, metrics (contract section 6)."""

from typing import Any, Literal

from fastapi import APIRouter
from starlette.responses import Response
from typing_extensions import TypedDict

from yral_chat.api.deps import Services, json_response, operator
from yral_chat.api.errors import errors
from yral_chat.core.metrics import CONTENT_TYPE
from yral_chat.core.objects import Time

router = APIRouter(tags=["service"])


class ServiceState(TypedDict):
    status: Literal["up", "degraded", "down", "disabled"]
    circuit: Literal["closed", "open", "half_open"] | None
    latency_ms: int | None
    error: str | None
    pool_size: int | None
    pool_free: int | None


class Health(TypedDict):
    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: Time
    version: str
    services: dict[str, ServiceState]


class Alive(TypedDict):
    status: Literal["alive"]


class ReadyChecks(TypedDict):
    database: bool
    migrations: bool
    draining: bool


class Ready(TypedDict):
    status: Literal["ready", "not_ready"]
    checks: ReadyChecks


class DatabaseStatus(TypedDict):
    connected: bool
    pool_size: int | None
    active_connections: int | None


class Statistics(TypedDict):
    total_conversations: int
    total_messages: int
    active_influencers: int


class Status(TypedDict):
    service: str
    version: str
    environment: str
    uptime_seconds: int
    database: DatabaseStatus
    statistics: Statistics
    timestamp: Time


_UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "The database is down"}}
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"model": Ready, "description": "Not ready, or draining"}}


@router.get("/health", response_model=Health, responses={**errors(500), **_UNHEALTHY})
async def get_health(services: Services) -> Response:
    """Every part with its state. Asking costs no provider a request."""
    health = await services.status.health()
    return json_response(health, 503 if health["status"] == "unhealthy" else 200)


@router.get("/health/live", response_model=Alive, responses=errors(500))
async def get_live() -> Response:
    """The process runs. Touches nothing else."""
    return json_response({"status": "alive"})


@router.get("/health/ready", response_model=Ready, responses={**errors(500), **_NOT_READY})
async def get_ready(services: Services) -> Response:
    """Send traffic here, or not."""
    ready = await services.status.ready()
    return json_response(ready, 200 if ready["status"] == "ready" else 503)


@router.get("/status", response_model=Status, dependencies=[operator], responses=errors(401, 429, 500, 503))
async def get_status(services: Services) -> Response:
    """How much there is, for operators."""
    return json_response(await services.status.status())


@router.get(
    "/metrics",
    dependencies=[operator],
    response_class=Response,
    responses={**errors(401, 429, 500, 503), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(services: Services) -> Response:
    """Prometheus text."""
    await services.status.measure()
    return Response(services.metrics.render(), media_type=CONTENT_TYPE)
