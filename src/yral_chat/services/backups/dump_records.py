"""What lies beside the dumps at BACKUP_URL (dumps.py): their records, and the marker that says whose they are."""

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

from yral_chat.core.clock import SECOND
from yral_chat.core.objects import Time
from yral_chat.db.verification import TableSum

MARKER: Final = "dumps.json"
_KEY: Final = re.compile(r"[0-9a-f-]+/dumps/(\d{8}T\d{6}\.\d{6}Z)\.(?:dump|json)")


class Marker(msgspec.Struct, frozen=True):
    """`dumps.json`: the one database whose dumps this target is for."""

    database_id: str
    begun_at: Time


class Dump(msgspec.Struct, frozen=True):
    """The record of one. `at` is the time of the state that it holds; sizes in bytes. `erasures`: so many the log of
    them had; 0 where nobody knows.
    """

    database_id: str
    at: Time
    revision: str
    server_version: str
    size: int
    sha256: str
    database_size: int
    seconds: float
    tables: dict[str, TableSum]
    erasures: int = 0

    @property
    def name(self) -> str:
        return dump_name(self.database_id, self.at)

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())


def folder_of(database_id: str) -> str:
    return f"{database_id}/dumps"


def dump_name(database_id: str, at: str) -> str:
    """`<database>/dumps/20261127T100000.123456Z`"""
    return f"{folder_of(database_id)}/{re.sub('[-:]', '', at)}"


def time_of(key: str) -> int | None:
    """When the dump of that key was made, in microseconds since the epoch; None for a key that none has."""
    if (found := _KEY.fullmatch(key)) is None:
        return None
    try:
        at = datetime.strptime(found[1], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return round(at.timestamp() * SECOND)
