"""The same requests to an almost empty database and to one with a million messages, in turn."""

import statistics
from collections.abc import Awaitable, Callable

from benchmarks import seeding
from benchmarks.load import StreamConnection, ask_all, connected, get, spread
from benchmarks.rig import Meter, Rig, cpu_of, quantile, tokens
from benchmarks.sends import letter
from tests.service import Service

# Every conversation that is asked for has pages before and behind.
MESSAGES = 120
CHATTY = 8  # users who do the asking; the first has the long conversation
CHUNKS = 4
AT_ONCE = 4  # at most five replies may be written in one conversation at a time


async def measure(rig: Rig) -> dict[str, float]:
    """See the quantities of the part `growth`. The full database's conversation is the long one."""
    counts = rig.counts
    small = rig.stocked("empty", seeding.Stock(users=CHATTY, messages=MESSAGES))
    full = rig.stocked(
        "full",
        seeding.Stock(users=CHATTY, messages=MESSAGES, others=counts.stored - counts.longest, longest=counts.longest),
    )
    rig.say(chunks=CHUNKS, chunk_text="word ")
    with rig.service(small) as empty_service, rig.service(full) as full_service:
        empty = _Side(empty_service, MESSAGES, counts.connections)
        grown = _Side(full_service, max(counts.longest, MESSAGES), counts.connections)
        found = {
            "grown_inbox": await _ratio(rig, empty, grown, _Side.inbox),
            "grown_first": await _ratio(rig, empty, grown, _Side.first_page),
            "grown_keyset": await _ratio(rig, empty, grown, _Side.keyset_page),
            "grown_send": await _ratio(rig, empty, grown, _Side.send),
            "grown_stream": await _ratio(rig, empty, grown, _Side.stream),
        }
        offset = counts.longest * 9 // 10
        first, deep = await grown.first_page(counts.reads // 10), await grown.page_at(offset, counts.reads // 10)
        found["grown_offset"] = deep / max(first, 1e-3)
        found["big_inbox_p99"] = await _inbox_p99(full_service, counts.inbox_requests)
    return found


class _Side:
    """One of the two services. Every method does `count` of something and returns the CPU seconds of one."""

    def __init__(self, service: Service, newest: int, connections: int) -> None:
        self._url = service.url
        self._meter = Meter(service.pid)
        self._newest = newest
        self._connections = connections
        self._token = tokens(1)[0]
        self._sent = 0

    async def inbox(self, count: int) -> float:
        return await self._get("/api/v2/chat/conversations?limit=20", count)

    async def first_page(self, count: int) -> float:
        return await self._get(f"{self._path}?limit=50", count)

    async def keyset_page(self, count: int) -> float:
        middle = seeding.message(0, 0, self._newest * 2 // 3)
        return await self._get(f"{self._path}?limit=50&before={middle}", count)

    async def page_at(self, offset: int, count: int) -> float:
        return await self._get(f"{self._path}?limit=50&offset={offset}", count)

    async def send(self, count: int) -> float:
        requests = self._letters(count // 4, "/messages")
        return await self._cpu(lambda: ask_all(self._url, AT_ONCE, requests), len(requests))

    async def stream(self, count: int) -> float:
        requests = self._letters(count // 4, "/messages/stream")
        async with connected(self._url, AT_ONCE, StreamConnection) as connections:
            return await self._cpu(lambda: spread(connections, requests, StreamConnection.ask), len(requests))

    @property
    def _path(self) -> str:
        return f"/api/v1/chat/conversations/{seeding.conversation(0, 0)}/messages"

    def _letters(self, count: int, path: str) -> list[bytes]:
        numbers = range(self._sent, self._sent + max(1, count))
        self._sent = numbers.stop
        return [letter(0, 0, number, self._token, path) for number in numbers]

    async def _get(self, path: str, count: int) -> float:
        requests = [get(path, self._token)] * max(1, count)
        return await self._cpu(lambda: ask_all(self._url, self._connections, requests), len(requests))

    async def _cpu(self, work: Callable[[], Awaitable[object]], count: int) -> float:
        return await cpu_of(self._meter, work) / count


async def _ratio(rig: Rig, empty: _Side, grown: _Side, do: Callable[[_Side, int], Awaitable[float]]) -> float:
    """CPU on the full database by CPU on the empty one: rounds in turn, so that both see the same machine."""
    count = rig.counts.reads // 2
    for side in (empty, grown):
        await do(side, count // 4)
    ratios = []
    for _ in range(rig.counts.rounds):
        before, after = await do(empty, count), await do(grown, count)
        ratios.append(after / max(before, 1e-6))
    return statistics.median(ratios)


async def _inbox_p99(service: Service, count: int) -> float:
    """Milliseconds, one request at a time, the users in turn."""
    requests = [get("/api/v2/chat/conversations?limit=20", token) for token in tokens(CHATTY)]
    seconds = await ask_all(service.url, 1, requests * max(1, count // CHATTY))
    return quantile(seconds, 0.99) * 1000
