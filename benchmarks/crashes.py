"""Sends while the process is killed: what was acknowledged must be there after the next start."""

import asyncio
import re
from contextlib import suppress
from itertools import count

from benchmarks import seeding
from benchmarks.load import Connection, Unexpected, connected, get
from benchmarks.rig import Rig, tokens
from benchmarks.sends import Letters
from tests.service import Service

_ID = re.compile(rb'"id":"([^"]{36})"')
PAGE = 200


async def measure(rig: Rig) -> dict[str, float]:
    """How many acknowledged messages were lost, of how many."""
    counts = rig.counts
    users = min(counts.users, counts.connections)
    folder = rig.stocked("crashes", seeding.Stock(users=users, messages=2))
    rig.say(pieces=["Noted."])
    letters = Letters(users, personas=1)
    acknowledged: set[bytes] = set()
    with rig.service(folder) as service:
        for _ in range(counts.crashes):
            acknowledged |= await _send_until_killed(service, letters, counts.connections, counts.crash_seconds)
            service.start()
        stored = await _stored(service, users)
    return {"lost": len(acknowledged - stored), "acknowledged": len(acknowledged)}


async def _send_until_killed(service: Service, letters: Letters, senders: int, seconds: float) -> set[bytes]:
    """The ids of the messages that the service has answered with."""
    acknowledged: set[bytes] = set()

    async def send_on(connection: Connection) -> None:
        # Ends with the process.
        with suppress(Unexpected, OSError):
            while True:
                acknowledged.update(_ID.findall(await connection.ask(letters.next())))

    async with connected(service.url, senders, Connection) as connections, asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(send_on(connection))
        await asyncio.sleep(seconds)
        await asyncio.to_thread(service.kill)
    return acknowledged


async def _stored(service: Service, users: int) -> set[bytes]:
    """The ids of all messages of the conversations that were written to."""
    stored: set[bytes] = set()
    async with connected(service.url, 1, Connection) as (connection,):
        for number, token in enumerate(tokens(users)):
            path = f"/api/v1/chat/conversations/{seeding.conversation(number, 0)}/messages"
            for page in count():
                found = _ID.findall(await connection.ask(get(f"{path}?limit={PAGE}&offset={page * PAGE}", token)))
                stored.update(found)
                if len(found) < PAGE:
                    break
    return stored
