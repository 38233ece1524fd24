"""CPU of the three reads that every opening of the app causes."""

from functools import partial
from itertools import cycle, islice

from benchmarks import seeding
from benchmarks.load import ask_all, get
from benchmarks.rig import Meter, Rig, cpu_of, median_of, tokens

READERS = 8


async def measure(rig: Rig) -> dict[str, float]:
    """Requests per second of CPU, plain and compressed."""
    counts = rig.counts
    folder = rig.stocked("reads", seeding.Stock(users=READERS, messages=counts.messages))
    found: dict[str, float] = {}
    with rig.service(folder) as service:
        meter = Meter(service.pid)
        for key, paths in _paths().items():
            for suffix, is_compressed in (("", False), ("_gzip", True)):
                requests = [
                    get(path, token, is_compressed=is_compressed)
                    for path, token in islice(zip(cycle(paths), cycle(tokens(READERS)), strict=False), counts.reads)
                ]
                cpu = await median_of(counts.rounds, partial(_cpu, meter, service.url, counts.connections, requests))
                found[key + suffix] = len(requests) / max(cpu, 1e-3)
    return found


async def _cpu(meter: Meter, url: str, connections: int, requests: list[bytes]) -> float:
    return await cpu_of(meter, lambda: ask_all(url, connections, requests))


def _paths() -> dict[str, list[str]]:
    """By quantity: what is asked in turn, the n-th by the n-th reader."""
    return {
        "influencers": ["/api/v1/influencers"],
        "inbox": ["/api/v2/chat/conversations?limit=20"],
        "history": [
            f"/api/v1/chat/conversations/{seeding.conversation(reader, 0)}/messages?limit=50"
            for reader in range(READERS)
        ],
    }
