"""What is measured, with the floor that must hold and the aim that is wished for."""

from collections.abc import Iterable
from typing import Literal

import msgspec

# A floor is missed for good below three quarters of it: less is the noise of a shared machine.
TOLERANCE = 0.75

Verdict = Literal["aim", "floor", "near", "FAILED", ""]


class Quantity(msgspec.Struct, frozen=True):
    """One row. `is_gated` False: a wall time, which says as much about the machine as about the code."""

    key: str
    part: str
    name: str
    unit: str
    floor: float | None = None
    aim: float | None = None
    is_higher_better: bool = False
    is_gated: bool = False
    decimals: int = 0

    def reaches(self, value: float, bound: float) -> bool:
        return value >= bound if self.is_higher_better else value <= bound

    def fails(self, value: float) -> bool:
        """True when a gated value is below three quarters of its floor. A floor of zero has no tolerance."""
        if not self.is_gated or self.floor is None:
            return False
        bound = self.floor * TOLERANCE if self.is_higher_better else self.floor / TOLERANCE
        return not self.reaches(value, bound)

    def verdict(self, value: float) -> Verdict:
        """`aim` or `floor`: reached; `near`: below the floor, within the tolerance or not gated."""
        if self.floor is None:
            return ""
        if self.aim is not None and self.reaches(value, self.aim):
            return "aim"
        if self.reaches(value, self.floor):
            return "floor"
        return "FAILED" if self.fails(value) else "near"

    def text(self, value: float | None) -> str:
        return "" if value is None else f"{value:,.{self.decimals}f} {self.unit}".strip()


def _rate(key: str, part: str, name: str, floor: float | None = None, aim: float | None = None) -> Quantity:
    """Operations per second of CPU of one core."""
    is_gated = floor is not None
    return Quantity(key, part, name, "/s", floor, aim, is_higher_better=True, is_gated=is_gated)


def _rate_of_bytes(key: str, part: str, name: str, floor: float) -> Quantity:
    """Megabytes per second of CPU of one core."""
    return Quantity(key, part, name, "MB/s", floor, is_higher_better=True, is_gated=True)


def _growth(key: str, name: str) -> Quantity:
    """A ratio of CPU times. Equal is meant; the rest is what two runs of the same differ by."""
    return Quantity(key, "growth", f"growth: {name}", "×", 1.25, 1.1, is_gated=True, decimals=2)


QUANTITIES: tuple[Quantity, ...] = (
    _rate("influencers", "reads", "cached influencer list", 3000, 4500),
    _rate("influencers_gzip", "reads", "… compressed"),
    _rate("inbox", "reads", "inbox page (20), v2", 1600, 2500),
    _rate("inbox_gzip", "reads", "… compressed"),
    _rate("history", "reads", "history page (50) with ownership check", 1200, 1800),
    _rate("history_gzip", "reads", "… compressed"),
    Quantity(
        "send", "send", "message send, without the model's time, everything on", "ms",
        2.0, 1.2, is_gated=True, decimals=2,
    ),
    Quantity("send_alone", "send", "… one at a time", "ms", decimals=2),
    Quantity("send_memories", "send", "… with memories, and what they cost behind the reply", "ms", decimals=2),
    Quantity("senders", "send", "64 senders, the model takes 200 ms", "/s", 300, 315, is_higher_better=True),
    Quantity("chunk", "streams", "CPU per streamed chunk, in and out", "µs", 160, 110, is_gated=True),
    _rate("live", "streams", "live streams at 20 chunks/s", 250, 400),
    Quantity("late", "streams", "… 99 % of the chunks are late by at most", "ms"),
    Quantity("first_p50", "streams", "added time to first token at 100 streams, p50", "ms", 6, 4, decimals=1),
    Quantity("first_p99", "streams", "… p99", "ms", 30, 15, decimals=1),
    _rate_of_bytes("upload", "media", "audio upload to a local folder", 100),
    Quantity("upload_image", "media", "… a photo of 1600 × 1200, decoded and cleaned", "ms", decimals=0),
    Quantity("upload_memory", "media", "… more memory after 1,000 uploads", "MB", 16, 8, is_gated=True, decimals=1),
    Quantity("presign", "media", "presigning 50 S3 addresses", "ms", 2.0, 1.0, is_gated=True, decimals=2),
    Quantity(
        "image_page", "media", "history page (50) with images against texts", "×", 1.5, 1.3, is_gated=True, decimals=2
    ),
    Quantity("export", "people", "export of 10,000 messages, CPU", "s", 5.0, 1.0, is_gated=True, decimals=2),
    Quantity("export_wall", "people", "… by the clock", "s", 5.0, 1.0, decimals=2),
    Quantity("filter", "people", "output filter, a chunk of 60 characters of base64", "µs", 50, 35, is_gated=True),
    Quantity("filter_usual", "people", "… of ordinary words", "µs", 50, 35, is_gated=True),
    Quantity("filter_delay", "people", "… added delay of a text that matches and stops", "ms", 50, 45),
    Quantity("memories_latency", "people", "time to an answer, memories on against off", "×", 1.25, 1.1, decimals=2),
    Quantity(
        "defences_inbox", "defences", "inbox page, defences on against off", "×", 1.25, 1.15, is_gated=True, decimals=2
    ),
    Quantity("defences_send", "defences", "… send", "×", 1.25, 1.1, is_gated=True, decimals=2),
    Quantity("rate_check", "rates", "rate check of a known caller", "µs", 5, 2.5, is_gated=True, decimals=1),
    Quantity("rate_check_new", "rates", "… of a new one when no room is left", "µs", 5, 4, is_gated=True, decimals=1),
    Quantity("rate_memory", "rates", "… memory after a million callers", "MB", 50, 45, is_gated=True, decimals=1),
    Quantity("access_line", "logs", "line of the access log, as JSON", "µs", 30, 20, is_gated=True, decimals=1),
    Quantity("access_trace", "logs", "… more with a client's traceparent", "µs", decimals=1),
    Quantity("count_request", "counting", "metrics of a request", "µs", 10, 4, is_gated=True, decimals=1),
    Quantity("count_unit", "counting", "… of a unit of work", "µs", 5, 2, is_gated=True, decimals=1),
    Quantity("socket", "sockets", "idle WebSocket", "KB", 45, 35, is_gated=True, decimals=1),
    Quantity(
        "crowd_faults", "crowds", "500 streams at 5 chunks/s: those that lost an event or had one out of order", "",
        0, 0, is_gated=True,
    ),
    Quantity("crowd_memory", "crowds", "2,000 idle sockets and 100 streams, resident", "MB", 300, 200, is_gated=True),
    Quantity("flood", "crowds", "the others' p95 while one user floods on 500 connections", "×", decimals=1),
    Quantity(
        "writes", "writes", "durable SQLite message writes, 32 tasks", "/s", 8000, 12000,
        is_higher_better=True, is_gated=True,
    ),
    Quantity("writes_wall", "writes", "… by the clock, with this disk", "/s", is_higher_better=True),
    Quantity("replicated_writes", "backups", "time of a write with Litestream beside", "×", 1.1, decimals=2),
    Quantity("restore", "backups", "restore from S3 on loopback, by the clock", "MB/s", 50, is_higher_better=True),
    Quantity("start", "start", "start to first answer, CPU", "s", 2.5, 1.5, is_gated=True, decimals=2),
    Quantity("start_wall", "start", "… by the clock", "s", 2.5, 1.5, decimals=2),
    Quantity("start_empty", "start", "… by the clock, with the tables to make", "s", decimals=2),
    Quantity("memory", "start", "idle memory per worker (resident)", "MB", 130, 90, is_gated=True),
    Quantity("memory_share", "start", "… its share where pages are shared (PSS)", "MB"),
    Quantity("lost", "crash", "acknowledged writes lost after kill -9", "", 0, 0, is_gated=True),
    Quantity("acknowledged", "crash", "… of so many that were acknowledged", "", is_higher_better=True),
    Quantity("big_inbox_p99", "growth", "inbox p99, 1 M messages, a conversation of 100 k", "ms", 10, 5, decimals=1),
    _growth("grown_inbox", "inbox page, full against empty database"),
    _growth("grown_first", "first page of the history"),
    _growth("grown_keyset", "keyset page"),
    _growth("grown_send", "send"),
    _growth("grown_stream", "stream"),
    Quantity("grown_offset", "growth", "… page at offset 90,000 against the first page", "×", decimals=1),
)  # fmt: skip

BY_KEY = {quantity.key: quantity for quantity in QUANTITIES}


def failures(measured: dict[str, float]) -> list[Quantity]:
    """The quantities for which the run fails."""
    return [quantity for quantity in known(measured) if quantity.fails(measured[quantity.key])]


def known(measured: dict[str, float]) -> Iterable[Quantity]:
    """The measured quantities, in the order of the table."""
    return (quantity for quantity in QUANTITIES if quantity.key in measured)
