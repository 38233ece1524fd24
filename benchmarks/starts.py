"""From the command to the first answer, and what an idle process holds."""

import statistics
import time
from pathlib import Path

from benchmarks.load import ask_all, get
from benchmarks.rig import SETTINGS, WITH_BYTE_CODE, Meter, Rig
from tests.service import Service, token

FIRST_REQUEST = get("/api/v1/influencers")


async def measure(rig: Rig) -> dict[str, float]:
    """See the quantities of the part `start`. The first start makes the tables and the byte code."""
    folder = rig.folder / "starts"
    folder.mkdir()
    first = await _start(rig, folder)
    again = [await _start(rig, folder) for _ in range(max(1, rig.counts.starts))]
    medians = {key: statistics.median([values[key] for values in again]) for key in again[0]}
    return medians | {"start_empty": first["start_wall"]}


async def _start(rig: Rig, folder: Path) -> dict[str, float]:
    started = time.perf_counter()
    with Service(folder, **SETTINGS, **WITH_BYTE_CODE, **rig.model.settings) as service:
        await ask_all(service.url, 1, [FIRST_REQUEST])
        found = {"start_wall": time.perf_counter() - started, "start": Meter(service.pid).read()}
        found |= await _memory(service)
        service.stop()
    return found


async def _memory(service: Service) -> dict[str, float]:
    """In MB, after a bit of everything: what is loaded lazily belongs to an idle worker too."""
    reader = token("somebody")
    paths = ("/api/v1/influencers", "/api/v1/influencers/trending", "/api/v2/chat/conversations", "/health")
    await ask_all(service.url, 4, [get(path, reader) for path in paths * 5])
    meter = Meter(service.pid)
    share = meter.share()
    found = {"memory": meter.resident() / 1e6}
    return found if share is None else found | {"memory_share": share / 1e6}
