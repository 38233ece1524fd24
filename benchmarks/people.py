"""What people get of their own, and what stands between a model and them: export, output filter, memories."""

import base64
import random
import statistics
import time
from collections.abc import Iterator
from itertools import islice

from benchmarks import seeding
from benchmarks.load import StreamConnection, ask_all, connected, get
from benchmarks.rig import Meter, Rig, cpu_of, median_of, tokens
from benchmarks.sends import Letters
from tests.service import Service
from yral_chat.services.moderation.leaks import OutputFilter, Secret

# As long as the pieces in which models answer get.
CHUNK = 60
CHUNKS = 300
WORDS = (
    "the river runs past old houses where people sell books and mangoes in the morning light while you listen first "
    "and then answer a question about what is new today"
)
INSTRUCTIONS = (
    "Listen first, then answer. Ask what the person wants to know, and be honest about what you do not. " * 30
)
# The first four words of the instructions of every persona of a stock, and words that are none of theirs.
MATCHING, OTHER = "Listen first, then answer. ", "Look first and then leap. "
SILENCE_SECONDS = 0.2


async def measure(rig: Rig) -> dict[str, float]:
    found = _filter()
    folder = rig.stocked("people", seeding.Stock(users=1, messages=2, longest=rig.counts.exported))
    with rig.service(folder) as service:
        found |= await _export(rig, service)
        found["filter_delay"] = await _delay(rig, service)
    return found | {"memories_latency": await _latency(rig)}


def _filter() -> dict[str, float]:
    """Microseconds of CPU for a piece of text: ordinary words, and the kind that costs most."""
    numbers = random.Random(0)
    prose = " ".join(numbers.choices(WORDS.split(), k=CHUNKS * 20))
    worst = base64.b64encode(numbers.randbytes(CHUNKS * CHUNK)).decode()
    return {"filter": _cpu_of_chunks(worst), "filter_usual": _cpu_of_chunks(prose)}


def _cpu_of_chunks(text: str) -> float:
    secret = Secret.of(INSTRUCTIONS)
    pieces = list(islice(_cut(text), CHUNKS))
    rounds = []
    for _ in range(15):
        output = OutputFilter(secret)
        started = time.process_time()
        for piece in pieces:
            output.feed(piece)
        rounds.append(time.process_time() - started)
    return min(rounds) / len(pieces) * 1e6


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + CHUNK] for start in range(0, len(text), CHUNK))


async def _export(rig: Rig, service: Service) -> dict[str, float]:
    """Seconds for the document of somebody with one long conversation."""
    request, meter = get("/api/v1/users/me/export", tokens(1)[0]), Meter(service.pid)
    walls: list[float] = []

    async def export() -> None:
        async with connected(service.url, 1, lambda: StreamConnection(b'"sequence":')) as (connection,):
            times = await connection.ask(request)
        assert len(times.arrivals) >= rig.counts.exported, "not everything was exported"
        walls.append(times.ended_at - times.asked_at)

    cpu = await median_of(rig.counts.rounds, lambda: cpu_of(meter, export))
    return {"export": cpu, "export_wall": statistics.median(walls)}


async def _delay(rig: Rig, service: Service) -> float:
    """Milliseconds by which a text that matches and then stops comes later than one that does not match."""
    letters = Letters(1, is_streamed=True)
    seconds: dict[str, list[float]] = {MATCHING: [], OTHER: []}
    async with connected(service.url, 1, StreamConnection) as (connection,):
        for _ in range(rig.counts.rounds * 4):
            for said, found in seconds.items():
                rig.say(pieces=[said, "So it is."], chunk_delay=SILENCE_SECONDS)
                times = await connection.ask(letters.next())
                found.append(times.first_at - times.asked_at)
    return (statistics.median(seconds[MATCHING]) - statistics.median(seconds[OTHER])) * 1000


async def _latency(rig: Rig) -> float:
    """Time to the answer with memories on, as a ratio to the time with memories off; measured in turn."""
    stock = seeding.Stock(users=rig.counts.users, messages=2)
    rig.say(pieces=["Of course, here it is."])
    with (
        rig.service(rig.stocked("forgetting", stock)) as without,
        rig.service(rig.stocked("remembering", stock), MEMORIES_ENABLED="true") as remembering,
    ):
        seconds: dict[str, list[float]] = {without.url: [], remembering.url: []}
        letters = Letters(rig.counts.users)
        for url in seconds:
            await ask_all(url, 1, letters.take(8))  # to warm up
        for _ in range(rig.counts.rounds):
            for url, found in seconds.items():
                found += await ask_all(url, 1, letters.take(max(1, rig.counts.sends // 8)))
    return statistics.median(seconds[remembering.url]) / statistics.median(seconds[without.url])
