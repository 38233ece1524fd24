"""What the operator's graphs are drawn from: contract section 6, `/metrics`."""

import asyncio
import math
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from yral_chat.core.cache import CacheCounters
from yral_chat.core.errors import AppError, StorageFull
from yral_chat.core.version import VERSION

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

# A made-up method would make a new series each time.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TURN_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120)
_FIRST_TOKEN_BUCKETS: Final = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_UNIT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_JOB_BUCKETS: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300)
_LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# Vendors name the model that answered, and could name a new one each time.
MAX_MODELS: Final = 100
OTHER: Final = "other"

Extraction = Literal["found", "nothing", "skipped", "failed"]
_EXTRACTIONS: Final[tuple[Extraction, ...]] = ("found", "nothing", "skipped", "failed")

# `_created` doubles every series and is read by nothing that reads text 0.0.4. The switch is the process's.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All series of one application, in a registry of its own, so that several can live in one process.

    Label children are looked up in dictionaries here: `labels()` takes a lock and two microseconds each time.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = self._counter("http_requests_total", "Answered requests", "method", "endpoint", "status_code")
        self._request_duration = Histogram(
            "http_request_duration_seconds",
            "From the first byte of the request to the last of the answer; streams last as long as they last",
            ("method", "endpoint"),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.requests_in_progress = self._gauge("http_requests_in_progress", "Requests being answered")
        self._turns = self._counter("turns_total", "Ended turns", "provider", "model", "outcome")
        self.turns_in_progress = self._gauge("turns_in_progress", "Turns running in this process")
        self.turn_duration = Histogram(
            "turn_duration_seconds",
            "From the start of a turn to its end",
            buckets=_TURN_BUCKETS,
            registry=self.registry,
        )
        self.turn_first_token = Histogram(
            "turn_first_token_seconds",
            "From the start of a turn to the first text of the model",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self._tokens = self._counter("ai_tokens_total", "Tokens as billed", "provider", "model", "kind")
        self._cost = self._counter("ai_cost_total", "US dollars by the price list", "provider", "model")
        self._circuits = self._gauge("circuit_breaker_state", "0 closed, 1 half-open, 2 open", "service")
        self._transitions = self._counter("circuit_breaker_transitions_total", "Changes of state", "service", "to")
        self.ws_connections = self._gauge("ws_connections", "Open WebSockets")
        self._refusals = self._counter("rate_limit_exceeded_total", "Refused for a limit", "limit_type")
        self._overload = self._counter("overload_refusals_total", "Refused because too much waits or runs", "reason")
        self._queue_depth = self._gauge("database_queue_depth", "Units that wait for a database thread", "queue")
        self._queue_seconds = self._gauge(
            "database_queue_oldest_seconds", "How long the first of them has waited", "queue"
        )
        self._moderation = self._counter("moderation_total", "Decisions of the rules", "rule_kind", "outcome")
        self.db_up = self._gauge("db_up", "1 when the database answered the last time that somebody looked")
        self._db_pool_size = self._gauge("db_pool_size", "Database connections")
        self._db_pool_in_use = self._gauge("db_pool_in_use", "Database connections in use")
        self._units = Histogram(
            "db_unit_seconds",
            "Units of work, from handing in to the answer, waiting included",
            ("kind",),
            buckets=_UNIT_BUCKETS,
            registry=self.registry,
        )
        self._units_failed = self._counter(
            "db_units_failed_total", "Units of work that the database failed, not the request", "kind"
        )
        self._disk_free = self._gauge("disk_free_bytes", "Free space where DATA_DIR lies")
        self._memories = self._counter("memory_extractions_total", "Turns looked through for memories", "outcome")
        self.event_loop_lag = Histogram(
            "event_loop_lag_seconds",
            "How late the event loop came to something, looked at ten times a second",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.job_duration = Histogram(
            "job_duration_seconds",
            "Runs of jobs (in groups) and chores, failed ones too",
            ("name",),
            buckets=_JOB_BUCKETS,
            registry=self.registry,
        )
        self.jobs_failed = self._counter("jobs_failed_total", "Failed runs of jobs and chores", "name")
        self._jobs_depth = self._gauge("job_queue_depth", "Jobs that wait or run", "name")
        self._jobs_age = self._gauge("job_oldest_seconds", "Age of the oldest job that is not done", "name")
        self._jobs_dead = self._gauge("jobs_dead", "Jobs that were tried too often and wait for the operator")
        self._gauge("yral_chat_build_info", "Always 1", "version", "python").labels(
            VERSION, platform.python_version()
        ).set(1)
        self._gauge("asyncio_tasks", "Tasks of the event loop: what leaks shows here first").set_function(_count_tasks)
        self.backup_restarts = self._counter("backup_restarts", "Times that Litestream had ended and was started again")
        self.backup_errors = self._counter("backup_errors", "What Litestream could not do, by reason", "reason")
        # Not a number without a backup: no alert is about what nobody wants.
        self._backup_up = self._unknown("backup_up", "1 while changes arrive at the backup, or the last dump was made")
        self._backup_lag = self._unknown("backup_lag_seconds", "For how long a change has been waiting to arrive")
        self._backup_wal = self._unknown("backup_wal_bytes", "Size of the log that Litestream copies and shortens")
        self._backup_dump = self._unknown("backup_dump_timestamp_seconds", "When the newest dump was made; 0: none is")
        self._backup_stale = self._unknown("backup_proof_stale", "1 when for too long no drill has proved anything")
        self._backup_proven = self._unknown(
            "backup_proven_timestamp_seconds", "When the state was that was last restored without a finding"
        )
        self._backup_point = self._unknown("backup_recovery_point_seconds", "What the last drill would have lost")
        self._backup_time = self._unknown("backup_recovery_seconds", "How long the restore of the last drill took")
        self._backup_findings = self._unknown("backup_findings", "What the last drill has found to be wrong")
        self._caches = _CacheCollector()
        self.registry.register(self._caches)
        for kind in ("read", "write"):
            self._units.labels(kind)
            self._units_failed.labels(kind)
        for outcome in _EXTRACTIONS:
            self._memories.labels(outcome)
        self._unit_children = {kind: self._units.labels(kind) for kind in ("read", "write")}
        self._models: set[str] = set()
        self._request_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._known_jobs: set[str] = set()
        self._token_children: dict[tuple[str, str, str], Counter] = {}

    def request_finished(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """`endpoint` is the route template, never a path: the series must be few."""
        key = (method, endpoint, status)
        children = self._request_children.get(key)
        if children is None:
            method = method if method in METHODS else "OTHER"
            children = (
                self._requests.labels(method, endpoint, str(status)),
                self._request_duration.labels(method, endpoint),
            )
            if len(self._request_children) < 10_000:  # made-up methods must not fill the dictionary either
                self._request_children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def turn_finished(self, provider: str, model: str, outcome: str, seconds: float) -> None:
        self._turns.labels(provider, self._model_label(model), outcome).inc()
        self.turn_duration.observe(seconds)

    def tokens_used(self, provider: str, model: str, kind: str, count: int) -> None:
        """`kind` is `prompt`, `cached`, `output` or `thinking`."""
        key = (provider, model, kind)
        child = self._token_children.get(key)
        if child is None:
            child = self._tokens.labels(provider, self._model_label(model), kind)
            if len(self._token_children) < 10 * MAX_MODELS:
                self._token_children[key] = child
        child.inc(count)

    def money_spent(self, provider: str, model: str, dollars: float) -> None:
        self._cost.labels(provider, model).inc(dollars)

    def unit_finished(self, kind: str, seconds: float, error: BaseException | None) -> None:
        """A unit of work, `read` or `write`; a refusal is the unit's own answer and no failure of the database."""
        self._unit_children[kind].observe(seconds)
        if error is not None and _is_of_the_database(error):
            self._units_failed.labels(kind).inc()

    def memory_extracted(self, outcome: Extraction) -> None:
        """`skipped`: there was nothing to look at, or nobody wants it."""
        self._memories.labels(outcome).inc()

    def jobs_known(self, names: Iterable[str]) -> None:
        """Their series begin with zero: an alert on an increase misses the first failure otherwise."""
        for name in names:
            self.jobs_failed.labels(name)
            self.job_duration.labels(name)

    def jobs_measured(self, depths: dict[str, int], ages: dict[str, float], dead: int) -> None:
        """By job name; a name that is empty now is zero."""
        self._known_jobs |= depths.keys()
        for name in self._known_jobs:
            self._jobs_depth.labels(name).set(depths.get(name, 0))
            self._jobs_age.labels(name).set(ages.get(name, 0))
        self._jobs_dead.set(dead)

    def limit_refused(self, limit_type: str) -> None:
        self._refusals.labels(limit_type).inc()

    def overload_refused(self, reason: str) -> None:
        """`reason`: see `Overloaded`."""
        self._overload.labels(reason).inc()

    def watch_queue(self, name: str, depth: Callable[[], float], seconds: Callable[[], float]) -> None:
        """Both are asked at each scrape."""
        self._queue_depth.labels(name).set_function(depth)
        self._queue_seconds.labels(name).set_function(seconds)

    def moderated(self, rule_kind: str, outcome: str) -> None:
        """`outcome` is `blocked`, `crisis`, `suspicious`, `refused` (a persona), `stopped` (a reply that gave away the
        instructions), `judge_stopped`, `judge_passed` or `judge_failed`."""
        self._moderation.labels(rule_kind, outcome).inc()

    def watch_circuit(self, service: str, state: Callable[[], float]) -> None:
        """`state` is asked at each scrape: 0 closed, 1 half-open, 2 open."""
        self._circuits.labels(service).set_function(state)
        for to in ("closed", "half_open", "open"):
            self._transitions.labels(service, to)

    def circuit_changed(self, service: str, to: str) -> None:
        self._transitions.labels(service, to).inc()

    def watch_pool(self, pool: Callable[[], tuple[int, int]]) -> None:
        """`pool` is (size, in use) of the connections, asked at each scrape."""
        self._db_pool_size.set_function(lambda: pool()[0])
        self._db_pool_in_use.set_function(lambda: pool()[1])

    def watch_disk(self, folder: Path) -> None:
        """Asked at each scrape; not a number where the folder cannot be looked at."""

        def free() -> float:
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return math.nan

        self._disk_free.set_function(free)

    def watch_backup(
        self,
        is_up: Callable[[], float],
        lag_seconds: Callable[[], float],
        wal_bytes: Callable[[], float],
        proven: "ProvenBackup",
    ) -> None:
        """All are asked at each scrape."""
        self._backup_up.set_function(is_up)
        self._backup_lag.set_function(lag_seconds)
        self._backup_wal.set_function(wal_bytes)
        self._backup_stale.set_function(lambda: float(proven.is_stale))
        self._backup_proven.set_function(lambda: _number(proven.proven_seconds))
        self._backup_point.set_function(lambda: _number(proven.recovery_point_seconds))
        self._backup_time.set_function(lambda: _number(proven.recovery_seconds))
        self._backup_findings.set_function(lambda: _number(proven.findings))

    def watch_dumps(self, newest_at: Callable[[], float]) -> None:
        """`newest_at` is in seconds since the epoch, 0 without a dump; asked at each scrape."""
        self._backup_dump.set_function(newest_at)

    def watch_sockets(self, counts: "SocketCounts") -> None:
        """Read at each scrape, so that an event pays for no metric."""
        self.registry.register(_SocketCollector(counts))

    def watch_cache(self, name: str, counters: Callable[[], CacheCounters]) -> None:
        """`counters` is asked at each scrape, so that a cache hit pays for no metric."""
        self._caches.sources[name] = counters

    def render(self) -> bytes:
        """Prometheus text format 0.0.4 (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def _model_label(self, model: str) -> str:
        """The name, or `other` for one too many."""
        if model not in self._models:
            if len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add(model)
        return model

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _unknown(self, name: str, documentation: str) -> Gauge:
        gauge = self._gauge(name, documentation)
        gauge.set(math.nan)
        return gauge

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)


def _count_tasks() -> float:
    """0 where no loop runs, as in a program that only renders."""
    try:
        return float(len(asyncio.all_tasks()))
    except RuntimeError:
        return 0.0


class _CacheCollector(Collector):
    def __init__(self) -> None:
        self.sources: dict[str, Callable[[], CacheCounters]] = {}

    def collect(self) -> Iterator[Metric]:
        counters = {name: source() for name, source in self.sources.items()}
        for field in ("hits", "misses", "evictions"):
            family = CounterMetricFamily(f"cache_{field}", f"Cache {field}", labels=("cache",))
            for name, values in counters.items():
                family.add_metric((name,), getattr(values, field))
            yield family
        for field in ("items", "bytes"):
            held = GaugeMetricFamily(f"cache_{field}", f"Cached {field}", labels=("cache",))
            for name, values in counters.items():
                held.add_metric((name,), getattr(values, field))
            yield held


class ProvenBackup(Protocol):
    """What the last drill has shown; None: there was none."""

    @property
    def is_stale(self) -> bool: ...

    @property
    def proven_seconds(self) -> float | None: ...

    @property
    def recovery_point_seconds(self) -> float | None: ...

    @property
    def recovery_seconds(self) -> float | None: ...

    @property
    def findings(self) -> int | None: ...


def _number(value: float | None) -> float:
    return math.nan if value is None else value


class SocketCounts(Protocol):
    """Totals since the start."""

    events_sent: int
    slow_closed: int


class _SocketCollector(Collector):
    def __init__(self, counts: SocketCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("ws_events_sent", "Events sent, once for each socket", self._counts.events_sent)
        yield CounterMetricFamily(
            "ws_slow_closed", "Sockets closed because they could not keep up", self._counts.slow_closed
        )


def _is_of_the_database(error: BaseException) -> bool:
    return (
        not isinstance(error, AppError) or isinstance(error, StorageFull) or error.details.get("service") == "database"
    )
