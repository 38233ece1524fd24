"""CPU of the three reads that every opening of the app causes."""

from collections.abc import Iterator
from itertools import cycle, islice

from benchmarks import seeding
from benchmarks.load import Connection, ask_all, connect, get
from benchmarks.rig import Meter, Rig, cpu_of, median_of, tokens

Found = Iterator[tuple[str, float]]

READERS = 8


async def measure(rig: Rig) -> dict[str, float]:
    """Requests per second of CPU, plain and compressed."""
    counts = rig.counts
    folder = rig.stocked("reads", seeding.Stock(users=READERS, messages=counts.messages))
    found: dict[str, float] = {}
    with rig.service(folder) as service:
        meter = Meter(service.pid)
        connections = await connect(service.url, counts.connections, Connection)
        for key, paths in _paths().items():
            for suffix, is_compressed in (("", False), ("_gzip", True)):
                requests = [
                    get(path, token, is_compressed=is_compressed)
                    for path, token in islice(zip(cycle(paths), cycle(tokens(READERS)), strict=False), counts.reads)
                ]
                cpu = await median_of(
                    counts.rounds,
                    lambda requests=requests: cpu_of(meter, lambda: ask_all(connections, requests)),  # type: ignore[misc]
                )
                found[key + suffix] = len(requests) / max(cpu, 1e-3)
    return found


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
