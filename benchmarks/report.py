"""The table that a run prints, and the page that it writes."""

import os
import platform
import sys
from pathlib import Path

import psutil

from benchmarks.database import Cell
from benchmarks.quantities import Quantity, known
from yral_chat.db.files import load_driver

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks

Written by `make bench`. Each part starts the real service and a fake model vendor as processes of their own on
loopback, and puts load on them from a third one.

**How to read it.** "/s" is one divided by the CPU time of the service's process per request, all threads: what one
core carries. A busy machine cannot distort that much, unlike the rows by the clock (64 senders, first token, late
chunks, p99), which are reported and not gated. `make bench` fails when a gated row is below three quarters of its
floor. The service runs with everything on: JSON access log, metrics, circuit breakers, durable commits.
"""


def machine() -> str:
    """What the figures were measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    ) if Path("/proc/cpuinfo").exists() else platform.machine()  # fmt: skip
    memory = round(psutil.virtual_memory().total / 2**30)
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{os.cpu_count()} cores ({model}), {memory} GiB of memory, {platform.system()}, Python {version}, "
        f"SQLite {load_driver().sqlite_version}"
    )


def table(measured: dict[str, float]) -> str:
    """Floor, aim and measured, as a Markdown table."""
    lines = ["| quantity | floor | aim | measured | reaches |", "|---|---|---|---|---|"]
    for quantity in known(measured):
        value = measured[quantity.key]
        lines.append(
            f"| {quantity.name} | {quantity.text(quantity.floor)} | {quantity.text(quantity.aim)} "
            f"| {quantity.text(value)} | {quantity.verdict(value)} |"
        )
    return "\n".join(lines)


def comparison(cells: list[Cell]) -> str:
    """CPU per operation of every way, at one task and at many."""
    operations = list(dict.fromkeys(cell.operation for cell in cells))
    lines = [
        f"| CPU per operation, µs, at 1 / 32 tasks | {' | '.join(operations)} |",
        "|---" * (len(operations) + 1) + "|",
    ]
    for way in dict.fromkeys(cell.way for cell in cells):
        texts = []
        for operation in operations:
            micros = [cell.micros for cell in cells if (cell.way, cell.operation) == (way, operation)]
            texts.append(" / ".join(f"{value:,.0f}" for value in micros))
        lines.append(f"| {way} | {' | '.join(texts)} |")
    return "\n".join(lines)


def write_page(measured: dict[str, float], cells: list[Cell], failed: list[Quantity]) -> None:
    """Writes docs/benchmarks.md; only whole runs do."""
    parts = [HEAD, f"**Machine.** {machine()}.\n", "## Against the floors\n", table(measured), ""]
    if failed:
        parts += [f"Below three quarters of the floor: {', '.join(quantity.name for quantity in failed)}.", ""]
    parts += [
        "## Ways to the database\n",
        "The same statements, CPU of the whole process. The asynchronous ways serialise their writers with a lock of "
        "the application or wait in `BEGIN IMMEDIATE`; ours commits whatever waits together. Why this decided the "
        "design: [decision 0001](decisions/0001-synchronous-units-of-work.md).\n",
        comparison(cells),
        "",
    ]
    PAGE.write_text("\n".join(parts))
