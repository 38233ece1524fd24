"""Every part of the benchmark runs, with tiny counts, and gives figures that can be true."""

import math

import msgspec
import pytest

from benchmarks.__main__ import COMPARISON, PARTS, main, measure
from benchmarks.crowds import is_faulty
from benchmarks.quantities import BY_KEY, QUANTITIES, failures
from benchmarks.report import comparison, machine, table
from benchmarks.rig import Counts

TINY = Counts(
    rounds=1, connections=2, reads=8, sends=4, senders=2, senders_seconds=0.3, streams=4, chunks=6,
    first_token_streams=2, first_token_rounds=1, sockets=10, crowd_streams=10, crowd_chunks=4, crowd_sockets=20,
    flood_connections=30, flood_rounds=2, uploads=10, upload_megabytes=0.5, exported=250,
    rate_checks=50, rate_keys=500, lines=500, write_seconds=0.05, starts=1, crashes=1,
    crash_seconds=0.2, users=4, messages=4, stored=4000, longest=1000, inbox_requests=16, database_seconds=0.02,
)  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", PARTS)
async def test_a_part_measures_its_quantities(part: str) -> None:
    measured, _ = await measure([part], TINY)
    named = {quantity.key for quantity in QUANTITIES if quantity.part == part}
    assert measured.keys() == named
    for key, value in measured.items():
        assert math.isfinite(value), key
        # So few operations may cost less than the clock of the CPU shows.
        assert value >= 0 or key in ("first_p50", "first_p99", "late", "socket", "access_trace"), key
    assert "| quantity |" in table(measured)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_the_comparison_covers_every_way() -> None:
    _, cells = await measure([COMPARISON], TINY)
    assert len({cell.way for cell in cells}) >= 3
    assert all(cell.micros > 0 for cell in cells)
    assert comparison(cells).count("\n") >= 4


def test_below_three_quarters_of_a_floor_is_a_failure() -> None:
    send, inbox = BY_KEY["send"], BY_KEY["inbox"]
    assert send.floor is not None
    assert inbox.floor is not None
    assert failures({"send": send.floor, "inbox": inbox.floor}) == []
    assert failures({"send": send.floor / 0.74}) == [send]
    assert failures({"inbox": inbox.floor * 0.74}) == [inbox]
    assert failures({"lost": 1}) == [BY_KEY["lost"]]


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().out


def test_the_machine_is_described_without_its_name() -> None:
    assert "cores" in machine()


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_no_stream_of_many_loses_an_event() -> None:
    """The row of the issue in small: `make bench` does it with 500 streams and 2,000 sockets."""
    counts = msgspec.structs.replace(TINY, users=40, crowd_streams=150, crowd_chunks=20, crowd_sockets=300)
    measured, _ = await measure(["crowds"], counts)
    assert measured["crowd_faults"] == 0
    assert measured["crowd_memory"] < 300


def test_what_is_missing_or_out_of_order_in_a_stream_is_found() -> None:
    def event(number: str, name: str, data: str) -> bytes:
        return f"id: 1-{number}\nevent: {name}\ndata: {data}\n\n".encode()

    start, done = event("0", "start", "{}"), event("done", "done", '{"assistant_message": {"content": "a b "}}')
    first, second = event("2", "token", '{"text": "a "}'), event("4", "token", '{"text": "b "}')
    assert not is_faulty(start + first + second + done, "a b ")
    for damaged in (
        start + second + done,
        start + first + done,
        start + second + first + done,
        start + first + first + second + done,
        start + first + second,
        start + first + done + second,
        b"",
    ):
        assert is_faulty(damaged, "a b ")
