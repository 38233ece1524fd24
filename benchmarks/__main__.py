"""`python -m benchmarks [PART …]`: measures the parts (all without a name), prints a table, fails below the floors."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import (
    counting,
    crashes,
    crowds,
    database,
    defences,
    growth,
    logs,
    media,
    people,
    rates,
    reads,
    replication,
    sends,
    sockets,
    starts,
    streams,
)
from benchmarks.quantities import failures
from benchmarks.report import comparison, machine, table, write_page
from benchmarks.rig import Counts, Rig

PARTS: dict[str, Callable[[Rig], Awaitable[dict[str, float]]]] = {
    "start": starts.measure,
    "reads": reads.measure,
    "send": sends.measure,
    "streams": streams.measure,
    "sockets": sockets.measure,
    "crowds": crowds.measure,
    "media": media.measure,
    "people": people.measure,
    "defences": defences.measure,
    "rates": rates.measure,
    "logs": logs.measure,
    "counting": counting.measure,
    "writes": database.measure_writes,
    "backups": replication.measure,
    "crash": crashes.measure,
    "growth": growth.measure,
}
COMPARISON = "database"


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def measure(parts: list[str], counts: Counts) -> tuple[dict[str, float], list[database.Cell]]:
    """The figures of these parts, by quantity, and the cells of the comparison."""
    measured: dict[str, float] = {}
    cells: list[database.Cell] = []
    with tempfile.TemporaryDirectory(prefix="yral-bench-") as folder:
        rig = Rig(Path(folder), counts)
        try:
            for part in parts:
                started = time.monotonic()
                if part == COMPARISON:
                    cells = await database.compare(rig)
                else:
                    measured |= await PARTS[part](rig)
                say(f"{part}: {time.monotonic() - started:.0f} s")
        finally:
            rig.close()
    return measured, cells


def main(names: list[str]) -> int:
    everything = [*PARTS, COMPARISON]
    unknown = [name for name in names if name not in everything]
    if unknown:
        say(f"unknown: {', '.join(unknown)}; there are: {', '.join(everything)}")
        return 2
    parts = [part for part in everything if not names or part in names]
    measured, cells = asyncio.run(measure(parts, Counts()))
    failed = failures(measured)
    say(f"\n{machine()}\n\n{table(measured)}\n")
    if cells:
        say(f"{comparison(cells)}\n")
    if parts == everything:
        write_page(measured, cells, failed)
    for quantity in failed:
        say(f"FAILED: {quantity.name}: {quantity.text(measured[quantity.key])}, floor {quantity.text(quantity.floor)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
