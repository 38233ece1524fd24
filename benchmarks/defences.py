"""What everything that guards and watches costs of a request: the same service, with it and without."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks import seeding, undefended
from benchmarks.load import ask_all, get
from benchmarks.rig import SETTINGS, Meter, Rig, cpu_of, tokens
from benchmarks.sends import Letters
from tests.service import Service

READERS = 8


async def measure(rig: Rig) -> dict[str, float]:
    """CPU with the defences as a multiple of that without: of an inbox page, and of a send."""
    counts = rig.counts
    rig.say(pieces=["Of course, here it is."])
    stock = seeding.Stock(users=counts.users, messages=counts.messages)
    with _service(rig, stock, is_defended=True) as guarded, _service(rig, stock, is_defended=False) as bare:
        both = (guarded, bare)
        inbox = [get("/api/v2/chat/conversations?limit=20", token) for token in tokens(READERS)]
        pages = inbox * (counts.reads // READERS + 1)
        letters = {service: Letters(counts.users) for service in both}

        async def read(service: Service) -> float:
            meter = Meter(service.pid)
            return await cpu_of(meter, lambda: ask_all(service.url, counts.connections, pages))

        async def send(service: Service) -> float:
            meter, requests = Meter(service.pid), letters[service].take(counts.sends)
            return await cpu_of(meter, lambda: ask_all(service.url, counts.connections, requests), settle=True)

        # In turns, so that a machine that gets slower meanwhile is no cost of either.
        reading = [(await read(guarded)) / max(await read(bare), 1e-3) for _ in range(counts.rounds + 1)]
        sending = [(await send(guarded)) / max(await send(bare), 1e-3) for _ in range(counts.rounds + 1)]
    return {"defences_inbox": median(reading[1:]), "defences_send": median(sending[1:])}


@contextmanager
def _service(rig: Rig, stock: seeding.Stock, *, is_defended: bool) -> Iterator[Service]:
    folder = rig.stocked("defended" if is_defended else "undefended", stock)
    more = {} if is_defended else undefended.SETTINGS
    service = Service(folder, **{**SETTINGS, **rig.model.settings, **more})
    if not is_defended:
        service.command = undefended.COMMAND
    with service as running:
        yield running
        running.stop()
