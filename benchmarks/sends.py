"""What a message costs: accepted, prompted, answered, stored, counted. The reply comes in one piece."""

import asyncio
import time

from benchmarks import seeding
from benchmarks.load import Connection, ask_all, connected, post
from benchmarks.rig import Meter, Rig, cpu_of, median_of, tokens

MODEL_SECONDS = 0.2


async def measure(rig: Rig) -> dict[str, float]:
    """CPU milliseconds of a send, many at once and one at a time; sends per second with a slow model."""
    counts = rig.counts
    folder = rig.stocked("send", seeding.Stock(users=counts.users, messages=counts.messages))
    found: dict[str, float] = {}
    with rig.service(folder) as service:
        meter = Meter(service.pid)
        letters = Letters(counts.users)

        async def send(at_once: int, count: int) -> float:
            requests = letters.take(max(1, count))
            cpu = await cpu_of(meter, lambda: ask_all(service.url, at_once, requests), settle=True)
            return cpu / len(requests) * 1000

        rig.say(pieces=["Of course, here it is."])
        found["send"] = await median_of(counts.rounds, lambda: send(counts.connections, counts.sends))
        found["send_alone"] = await median_of(counts.rounds, lambda: send(1, counts.sends // 4))
        rig.say(pieces=["Of course, here it is."], first_byte_delay=MODEL_SECONDS)
        async with connected(service.url, counts.senders, Connection) as senders:
            found["senders"] = await _with_slow_model(senders, letters, counts.senders_seconds)
    return found | await _with_memories(rig)


async def _with_memories(rig: Rig) -> dict[str, float]:
    """The same, with what is done behind a reply where memories are on: the model is asked once more."""
    counts = rig.counts
    folder = rig.stocked("memories", seeding.Stock(users=counts.users, messages=counts.messages))
    with rig.service(folder, MEMORIES_ENABLED="true") as service:
        meter, letters = Meter(service.pid), Letters(counts.users)

        async def send() -> float:
            requests = letters.take(counts.sends)
            cpu = await cpu_of(meter, lambda: ask_all(service.url, counts.connections, requests), settle=True)
            return cpu / len(requests) * 1000

        rig.say(pieces=["Of course, here it is."])
        return {"send_memories": await median_of(counts.rounds, send)}


async def _with_slow_model(connections: list[Connection], letters: "Letters", seconds: float) -> float:
    """Answers per second while every sender sends again as soon as it has its answer."""
    started = time.perf_counter()
    answered = 0

    async def send_on(connection: Connection) -> None:
        nonlocal answered
        while time.perf_counter() - started < seconds:
            await connection.ask(letters.next())
            answered += 1

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(send_on(connection))
    return answered / (time.perf_counter() - started)


class Letters:
    """Requests to send, no two alike; the users take turns, and so do their conversations."""

    def __init__(self, users: int, *, is_streamed: bool = False, personas: int = seeding.PERSONAS) -> None:
        self._tokens = tokens(users)
        self._personas = personas
        self._path = "/messages/stream" if is_streamed else "/messages"
        self._count = 0

    def next(self) -> bytes:
        number = self._count
        self._count += 1
        user = number % len(self._tokens)
        persona = number // len(self._tokens) % self._personas
        return letter(user, persona, number, self._tokens[user], self._path)

    def take(self, count: int) -> list[bytes]:
        return [self.next() for _ in range(count)]


def letter(user: int, persona: int, number: int, token: str, path: str = "/messages") -> bytes:
    """The request with which a user says something in the conversation with a persona."""
    return post(
        f"/api/v1/chat/conversations/{seeding.conversation(user, persona)}{path}",
        {"message_type": "text", "content": f"What would you do on day {number}?", "client_message_id": f"k{number}"},
        token,
    )
