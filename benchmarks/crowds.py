"""Many at once on one worker: 500 streams, 2,000 sockets beside 100 streams, and one user's flood beside the others."""

import asyncio
import json
import re
from collections.abc import Sequence

from benchmarks import seeding
from benchmarks.load import Connection, SocketConnection, Unexpected, ask_all, connected, get
from benchmarks.rig import Meter, Rig, quantile, tokens, until
from benchmarks.sends import Letters
from tests.service import token

PERIOD_SECONDS = 0.2  # between the chunks of a stream
OTHERS = 8
_EVENT = re.compile(rb"id: (\d+)-(\w+)\nevent: (\w+)\ndata: (.*)\n\n")


async def measure(rig: Rig) -> dict[str, float]:
    """See the quantities of the part `crowds`."""
    counts = rig.counts
    folder = rig.stocked("crowds", seeding.Stock(users=counts.users, messages=2))
    with rig.service(folder, MAX_CONNECTIONS=str(2 * counts.crowd_sockets + 2 * counts.crowd_streams + 100)) as service:
        letters = Letters(counts.users, is_streamed=True)
        found = await _sockets_and_streams(rig, service.url, Meter(service.pid), letters)
        faults = await _streams(rig, service.url, letters, counts.crowd_streams)
        slowed = await _flood(rig, service.url)
        return {"crowd_faults": faults, **found, "flood": slowed}


class WholeStream(Connection):
    """Keeps what came, and finds what is missing or out of order in it."""

    def __init__(self) -> None:
        super().__init__()
        self._came = bytearray()

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._came.endswith(b"\r\n0\r\n\r\n"):  # RFC 9112, section 7.1
            self._found(bytes(self._came))
        elif not self._came.startswith(b"HTTP/1.1 200"):
            self._failed(self._came[:600].decode(errors="replace"))

    async def ask(self, request: bytes) -> bytes:
        """The events, out of their chunks."""
        self._came.clear()
        answer: bytes = await self._send(request)
        body, events = answer[answer.index(b"\r\n\r\n") + 4 :], b""
        while (size := int(body[: (line := body.index(b"\r\n"))], 16)) > 0:
            events += body[line + 2 : line + 2 + size]
            body = body[line + 4 + size :]
        return events


def is_faulty(events: bytes, text: str) -> bool:
    """True unless every piece came once, in its place, and the end says the same."""
    place, said, is_done = 0, "", False
    for _, offset, event, data in _EVENT.findall(events):
        if is_done:
            return True
        if event == b"token":
            piece = json.loads(data)["text"]
            place, said = place + len(piece), said + piece
            if int(offset) != place:
                return True
        elif event == b"done":
            is_done = json.loads(data)["assistant_message"]["content"] == said
    return not is_done or said != text


async def _streams(rig: Rig, url: str, letters: Letters, count: int) -> float:
    """How many of so many streams at once lost an event or had one out of order."""
    pieces = [f"{number:03d} " for number in range(rig.counts.crowd_chunks)]
    rig.say(pieces=pieces, chunk_delay=PERIOD_SECONDS)
    async with connected(url, count, WholeStream) as connections:
        answers = await _begun_together(connections, letters.take(count))
    return float(sum(is_faulty(events, "".join(pieces)) for events in answers))


async def _begun_together(connections: Sequence[WholeStream], requests: Sequence[bytes]) -> list[bytes]:
    """The beginnings are spread over a second: it is the streams that are to be many, not the sends."""

    async def stream(number: int) -> bytes:
        await asyncio.sleep(number / len(connections))
        return await connections[number].ask(requests[number])

    return list(await asyncio.gather(*(stream(number) for number in range(len(connections)))))


async def _sockets_and_streams(rig: Rig, url: str, meter: Meter, letters: Letters) -> dict[str, float]:
    """Megabytes of the whole process with so many idle sockets, while a fifth of the streams run beside them."""
    peak = 0
    async with connected(url, rig.counts.crowd_sockets, SocketConnection) as sockets:
        for number, socket in enumerate(sockets):
            user = f"idle-{number}"
            await socket.shake_hands(f"/api/v1/chat/ws/inbox/{user}?token={token(user)}")
        streaming = asyncio.create_task(_streams(rig, url, letters, max(1, rig.counts.crowd_streams // 5)))
        while not streaming.done():
            peak = max(peak, meter.resident())
            await asyncio.sleep(0.05)
        if await streaming:
            raise Unexpected("a stream beside the sockets lost something")
    return {"crowd_memory": peak / 2**20}


async def _flood(rig: Rig, url: str) -> float:
    """The others' p95 while one user floods, against the same without."""
    others = [get("/api/v2/chat/conversations", name) for name in tokens(OTHERS)] * rig.counts.flood_rounds
    await ask_all(url, OTHERS, others)
    quiet = await ask_all(url, OTHERS, others)
    flooder = token("bench-flooder")
    async with connected(url, rig.counts.flood_connections, Flooding) as connections:
        for connection in connections:
            connection.begin(get("/api/v2/chat/conversations", flooder))
        await until(lambda: sum(connection.answered for connection in connections) >= OTHERS, seconds=30)
        loud = await ask_all(url, OTHERS, others)
    return quantile(loud, 0.95) / quantile(quiet, 0.95)


class Flooding(Connection):
    """Asks again as soon as there is an answer, whatever it says."""

    answered = 0
    _request = b""

    def begin(self, request: bytes) -> None:
        self._request = request
        if self._transport is not None:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if b"HTTP/1.1 " in data and self._transport is not None:
            self.answered += 1
            self._transport.write(self._request)
