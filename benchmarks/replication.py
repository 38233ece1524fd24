"""What Litestream beside it costs the database, and how fast a database comes back."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.database import WRITE_TASKS, _our_database, _our_way, _run
from benchmarks.rig import Rig, median_of
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Rclone
from yral_chat.clients.backup_store import Target
from yral_chat.clients.litestream import Litestream, find_litestream

PREFIX = "bench"
WAIT_SECONDS = 60
# Its first state is there by then, so that what follows is changes.
SETTLE_SECONDS = 2


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


async def _drain(lines: AsyncIterator[object]) -> None:
    async for _ in lines:
        pass


async def measure(rig: Rig) -> dict[str, float]:
    """The ratio of time per durable write, with and without; MB of database a second from S3 on loopback."""
    folder = rig.folder / "replication"
    folder.mkdir()
    with Rclone(folder / "s3", has_etags=False) as server:
        target = Target(BUCKET, "backups", server.url, "us-east-1", ACCESS_KEY, SECRET_KEY)
        path = folder / "written.db"
        async with _our_database(f"sqlite:///{path}", is_replicated=True) as (database, place):
            steps, _ = place.operations()["durable insert"]
            way = _our_way(database)
            ratios = []
            for _ in range(rig.counts.rounds):
                alone = (await _run(way, steps, True, WRITE_TASKS, rig.counts.write_seconds))[1]
                async with _replicating(path, target) as litestream:
                    await litestream.wait_replicated(WAIT_SECONDS)
                    ratios.append((await _run(way, steps, True, WRITE_TASKS, rig.counts.write_seconds))[1] / alone)
                    await litestream.wait_replicated(WAIT_SECONDS)
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
