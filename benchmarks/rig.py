"""What every part needs: the fake vendor, services on prepared databases, and what their processes use."""

import asyncio
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from benchmarks import seeding
from tests.service import FakeModel, Service, token

# Log lines and metrics as in production, so that nothing that costs is left out.
SETTINGS = {
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
    "BREAKER_FAILURES": "1000",
    "RATE_LIMIT_ENABLED": "true",
    "RATE_LIMIT_PER_MINUTE": "1000000",
    "RATE_LIMIT_PER_HOUR": "10000000",
}
# After the last answer the outbox is worked off: jobs within a tenth of a second, counts every two seconds.
SETTLE_SECONDS = 0.5
# The settings of `Service` forbid byte code; a service that is started twice has it.
WITH_BYTE_CODE = {"PYTHONDONTWRITEBYTECODE": ""}


class Counts(msgspec.Struct, frozen=True):
    """How much is done. The defaults make a run of some minutes; tests use tiny ones."""

    rounds: int = 5
    connections: int = 16
    reads: int = 1500  # of each kind and round
    sends: int = 320  # a round
    senders: int = 64
    senders_seconds: float = 4.0
    streams: int = 250
    chunks: int = 80  # of each stream
    first_token_streams: int = 100
    first_token_rounds: int = 5
    sockets: int = 1500
    crowd_streams: int = 500
    crowd_chunks: int = 50
    crowd_sockets: int = 2000
    flood_connections: int = 500
    flood_rounds: int = 100
    uploads: int = 1000
    upload_megabytes: float = 19.0
    exported: int = 10_000  # messages
    rate_checks: int = 50_000
    rate_keys: int = 1_000_000
    lines: int = 20_000
    write_seconds: float = 1.0
    starts: int = 3
    crashes: int = 3
    crash_seconds: float = 0.7
    users: int = 80
    messages: int = 60  # in each of their conversations
    stored: int = 1_000_000
    longest: int = 100_000
    inbox_requests: int = 2000
    database_seconds: float = 0.4  # of each cell of the comparison


class Rig:
    """Makes services in `folder`, and the fake vendor that they ask. A context manager."""

    def __init__(self, folder: Path, counts: Counts) -> None:
        self.folder = folder
        self.counts = counts
        self.model = FakeModel()

    def close(self) -> None:
        self.model.close()

    def say(self, **behaviour: object) -> None:
        """How the model answers from now on: see tests/fakes/model_server.py."""
        self.model.tell(reset=True, default=behaviour)

    def stocked(self, name: str, stock: seeding.Stock) -> Path:
        """A folder with a service's database that holds `stock`."""
        folder = self.folder / name
        (folder / "data").mkdir(parents=True)
        seeding.fill(f"sqlite:///{folder}/data/yral_chat.db", stock)
        return folder

    @contextmanager
    def service(self, folder: Path, **settings: str) -> Iterator[Service]:
        """A running service; its database is removed afterwards."""
        with Service(folder, **SETTINGS, **self.model.settings, **settings) as running:
            yield running
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Meter:
    """CPU time of a process: user and system, all threads."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def read(self) -> float:
        """Seconds since its start."""
        times = self._process.cpu_times()
        return times.user + times.system

    def resident(self) -> int:
        """Bytes of memory."""
        size: int = self._process.memory_info().rss
        return size

    def share(self) -> int | None:
        """Bytes of memory, those of shared pages divided by their users; None where the system does not tell."""
        return getattr(self._process.memory_full_info(), "pss", None)


async def cpu_of(meter: Meter, work: Callable[[], Awaitable[object]], *, settle: bool = False) -> float:
    """CPU seconds that the metered process spends on `work`, with `settle` also on what it does afterwards."""
    before = meter.read()
    await work()
    if settle:
        await asyncio.sleep(SETTLE_SECONDS)
    return meter.read() - before


async def median_of(rounds: int, measure: Callable[[], Awaitable[float]]) -> float:
    """The median of so many rounds, after one that only warms up."""
    await measure()
    return statistics.median([await measure() for _ in range(rounds)])


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def tokens(users: int) -> list[str]:
    """One token for each of the first users of a stock."""
    return [token(seeding.user(number)) for number in range(users)]


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Waits for `condition`. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.02)
