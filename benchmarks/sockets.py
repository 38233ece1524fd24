"""Memory of WebSockets that wait for events."""

import asyncio

from benchmarks import seeding
from benchmarks.load import SocketConnection, connected
from benchmarks.rig import Meter, Rig
from tests.service import token

# The first ones pay for what is made once.
WARM_UP = 0.2


async def measure(rig: Rig) -> dict[str, float]:
    """Kilobytes by which the service grows with each socket, each of another user."""
    folder = rig.stocked("sockets", seeding.Stock(users=1, messages=2))
    with rig.service(folder) as service:
        meter = Meter(service.pid)
        first = max(1, round(rig.counts.sockets * WARM_UP))
        async with connected(service.url, first + rig.counts.sockets, SocketConnection) as sockets:
            await _open(sockets[:first], "early")
            before = meter.resident()
            await _open(sockets[first:], "late")
            grown = meter.resident() - before
    return {"socket": grown / rig.counts.sockets / 1024}


async def _open(sockets: list[SocketConnection], name: str) -> None:
    for number, socket in enumerate(sockets):
        user = f"listener-{name}-{number}"
        await socket.shake_hands(f"/api/v1/chat/ws/inbox/{user}?token={token(user)}")
    await asyncio.sleep(0.5)  # until the service has nothing left to do for them
