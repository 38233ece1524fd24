"""Relayed streams: CPU per chunk, how many streams a core carries, and what is added before the first token."""

import asyncio
import statistics
from collections.abc import Callable

from benchmarks import seeding
from benchmarks.load import StreamConnection, StreamTimes, connected, post, spread
from benchmarks.rig import Meter, Rig, cpu_of, quantile
from benchmarks.sends import Letters

CHUNKS_PER_SECOND = 20
CHUNK = "word after "
# As long as a fast model takes, so that the streams of the measurement overlap.
FIRST_TOKEN_SECONDS = 0.1
FIRST_TOKEN_CHUNKS = 20
# While streams begin and end, their chunks are not all there is to do.
STEADY = (0.2, 0.8)


async def measure(rig: Rig) -> dict[str, float]:
    """See the quantities of the part `streams`."""
    counts = rig.counts
    folder = rig.stocked("streams", seeding.Stock(users=counts.users, messages=counts.messages))
    with rig.service(folder) as service:
        letters = Letters(counts.users, is_streamed=True)
        meter = Meter(service.pid)
        await _warm_up(rig, service.url, letters)
        found = await _live(rig, service.url, meter, letters)
        return found | await _first_token(rig, service.url, letters)


async def _warm_up(rig: Rig, url: str, letters: Letters) -> None:
    rig.say(chunks=4, chunk_text=CHUNK)
    async with connected(url, 8, StreamConnection) as connections:
        await spread(connections, letters.take(64), StreamConnection.ask)


async def _live(rig: Rig, url: str, meter: Meter, letters: Letters) -> dict[str, float]:
    """Many streams at once, each at 20 chunks a second."""
    counts = rig.counts
    period = 1 / CHUNKS_PER_SECOND
    rig.say(chunks=counts.chunks, chunk_text=CHUNK, chunk_delay=period)
    steady = _Window(meter, counts.streams * counts.chunks, STEADY)
    times: list[StreamTimes] = []
    async with connected(url, counts.streams, lambda: StreamConnection(on_event=steady.count)) as connections:

        async def all_at_once() -> None:
            times.extend(await _staggered(connections, letters.take(len(connections)), period))

        whole = await cpu_of(meter, all_at_once, settle=True)
    stream_seconds = sum(stream.ended_at - stream.asked_at for stream in times)
    gaps = [
        later - earlier - period
        for stream in times
        for earlier, later in zip(stream.arrivals, stream.arrivals[1:], strict=False)
    ]
    return {
        "chunk": steady.cpu_per_event() * 1e6,
        "live": stream_seconds / max(whole, 1e-3),
        "late": quantile(gaps, 0.99) * 1000,
    }


class _Window:
    """CPU between two shares of the expected events, when all streams are running and none begins or ends."""

    def __init__(self, meter: Meter, expected: int, shares: tuple[float, float]) -> None:
        self._meter = meter
        self._start, self._end = (int(expected * share) for share in shares)
        self._seen = 0
        self._readings: list[tuple[int, float]] = []

    def count(self, events: int) -> None:
        before, self._seen = self._seen, self._seen + events
        for bound in (self._start, self._end):
            if before < bound <= self._seen:
                self._readings.append((self._seen, self._meter.read()))

    def cpu_per_event(self) -> float:
        """Seconds. On a machine that is behind, pieces leave together and the later share is not reached."""
        if len(self._readings) < 2:
            self._readings.append((self._seen, self._meter.read()))
        (first, earlier), (last, later) = self._readings[0], self._readings[-1]
        return (later - earlier) / (last - first)


async def _staggered(connections: list[StreamConnection], requests: list[bytes], seconds: float) -> list[StreamTimes]:
    """All streams at once, their beginnings spread evenly over so many seconds."""

    async def stream(number: int) -> StreamTimes:
        await asyncio.sleep(seconds * number / len(connections))
        return await connections[number].ask(requests[number])

    return list(await asyncio.gather(*(stream(number) for number in range(len(connections)))))


async def _first_token(rig: Rig, url: str, letters: Letters) -> dict[str, float]:
    """Through the service against directly from the model, each with the same number of streams open."""
    rig.say(
        chunks=FIRST_TOKEN_CHUNKS,
        chunk_text=CHUNK,
        chunk_delay=1 / CHUNKS_PER_SECOND,
        first_byte_delay=FIRST_TOKEN_SECONDS,
    )
    direct = await _first_tokens(rig, rig.model.base_url_gemini, b"data: ", _question)
    through = await _first_tokens(rig, url, b"\nevent: token\n", letters.next)
    return {
        "first_p50": (statistics.median(through) - statistics.median(direct)) * 1000,
        "first_p99": (quantile(through, 0.99) - quantile(direct, 0.99)) * 1000,
    }


async def _first_tokens(rig: Rig, url: str, marker: bytes, request: Callable[[], bytes]) -> list[float]:
    """Seconds to the first token of each stream, in the state in which as many begin as end."""
    counts = rig.counts
    seconds: list[float] = []
    turn = FIRST_TOKEN_SECONDS + FIRST_TOKEN_CHUNKS / CHUNKS_PER_SECOND

    async def listen(number: int, connection: StreamConnection) -> None:
        await asyncio.sleep(turn * number / counts.first_token_streams)
        for _ in range(counts.first_token_rounds):
            times = await connection.ask(request())
            seconds.append(times.first_at - times.asked_at)

    async with (
        connected(url, counts.first_token_streams, lambda: StreamConnection(marker)) as connections,
        asyncio.TaskGroup() as group,
    ):
        for number, connection in enumerate(connections):
            group.create_task(listen(number, connection))
    # The first of each began while the others were still to come.
    return seconds[counts.first_token_streams :] or seconds


def _question() -> bytes:
    """What the service would ask the model."""
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    body = {"contents": [{"parts": [{"text": "What would you do today?"}], "role": "user"}]}
    return post(path, body, headers=b"x-goog-api-key: a-key-of-the-benchmarks\r\n")
