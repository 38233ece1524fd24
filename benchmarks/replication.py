"""What Litestream beside it costs the database, and how fast a database comes back."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.database import WRITE_TASKS, Place, _our_database, _our_way, _run
from benchmarks.rig import Rig, median_of
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Rclone
from yral_chat.clients.backup_store import Target
from yral_chat.clients.litestream import Litestream, find_litestream
from yral_chat.db.database import Database

PREFIX = "bench"
WAIT_SECONDS = 60
# Its first state is there by then, so that what follows is changes.
SETTLE_SECONDS = 2
# So many times the seconds of other measurements of writes: as many changes are sent in one.
SYNCS = 10


@asynccontextmanager
async def _replicating(path: Path, target: Target) -> AsyncIterator[Litestream]:
    litestream = Litestream(find_litestream(None), path, target, PREFIX, path.parent)
    lines = await litestream.start()
    reading = asyncio.ensure_future(_drain(lines))
    await asyncio.sleep(SETTLE_SECONDS)
    try:
        yield litestream
    finally:
        await litestream.stop()
        await reading


async def _write(database: Database, place: Place, seconds: float) -> float:
    """Seconds that one durable insert takes by the clock, of many tasks."""
    steps, _ = place.operations()["durable insert"]
    return (await _run(_our_way(database), steps, True, WRITE_TASKS, seconds))[1]


async def _drain(lines: AsyncIterator[object]) -> None:
    async for _ in lines:
        pass


async def measure(rig: Rig) -> dict[str, float]:
    """The ratio of time per durable write, with and without a backup; MB of database a second from S3 on loopback."""
    folder = rig.folder / "replication"
    folder.mkdir()
    with Rclone(folder / "s3", has_etags=False) as server:
        target = Target(BUCKET, "backups", server.url, "us-east-1", ACCESS_KEY, SECRET_KEY)
        path = folder / "written.db"
        seconds = SYNCS * rig.counts.write_seconds

        async with (
            _our_database(f"sqlite:///{folder}/alone.db") as alone,
            _our_database(f"sqlite:///{path}", is_replicated=True) as replicated,
        ):

            async def write_alone() -> float:
                return await _write(*alone, seconds)

            async def write_replicated() -> float:
                async with _replicating(path, target) as litestream:
                    await litestream.wait_replicated(WAIT_SECONDS)
                    took = await _write(*replicated, seconds)
                    await litestream.wait_replicated(WAIT_SECONDS)
                return took

            ratios = []
            for number in range(rig.counts.rounds):
                if number % 2:  # neither is always the first, when the machine may be cooler or quieter
                    without = await write_alone()
                    ratios.append(await write_replicated() / without)
                else:
                    beside = await write_replicated()
                    ratios.append(beside / await write_alone())
        megabytes = path.stat().st_size / 1e6
        reader = Litestream(find_litestream(None), path, target, PREFIX, folder)

        async def restore() -> float:
            back = folder / "back.db"
            back.unlink(missing_ok=True)
            started = time.perf_counter()
            await reader.restore(back)
            return megabytes / (time.perf_counter() - started)

        return {
            "replicated_writes": statistics.median(ratios),
            "restore": await median_of(rig.counts.rounds, restore),
        }
