"""Which accounts were erased, beside the database: a backup that is restored brings them back, and this tells so.

One line of JSON per erasure. The id of the account stands there as it is, because only so can the erasure be repeated:
the file is for its owner's eyes only, and it is all that is kept of such a person.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from yral_chat.core.decoding import decode
from yral_chat.core.errors import ServiceUnavailable, StorageFull
from yral_chat.core.objects import Time


class Erasure(msgspec.Struct, frozen=True):
    """One line."""

    id: str
    user_id: str
    at: Time


class Lines(NamedTuple):
    """Of a copy of the log: those that are whole, and how many are not."""

    whole: list[Erasure]
    damaged: int


def read_lines(data: bytes) -> Lines:
    """One that was cut off counts as damaged, too."""
    found, damaged = [], 0
    for line in data.splitlines():
        try:
            found.append(decode(line, Erasure))
        except msgspec.DecodeError:
            damaged += 1
    return Lines(found, damaged)


def parse(data: bytes) -> list[Erasure]:
    """The lines that are whole."""
    return read_lines(data).whole


def write_lines(erasures: Iterable[Erasure]) -> bytes:
    """As they stand in the file."""
    return b"".join(msgspec.json.encode(erasure) + b"\n" for erasure in erasures)


class ErasureLog:
    """The file `erasures.jsonl`. Methods block: not for the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, *erasures: Erasure) -> None:
        """Returns once they are on the disk. Raises StorageFull, ServiceUnavailable."""
        lines = write_lines(erasures)
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "ab") as file:  # writes all of it, or raises
                file.write(b"\n" * (not self._ends_with_line()) + lines)
                file.flush()
                os.fsync(file.fileno())
            self._sync_folder()
        except OSError as error:
            if error.errno in (28, 122):  # ENOSPC, EDQUOT
                raise StorageFull from error
            raise ServiceUnavailable("The erasure cannot be noted", details={"service": "accounts"}) from error

    def read(self) -> list[Erasure]:
        """All of them, oldest first. A line that a crash has cut off is none: its erasure had not begun."""
        return parse(self._path.read_bytes()) if self._path.exists() else []

    def merge(self, lines: bytes) -> int:
        """Adds those of another copy of the log that this one does not have; returns how many."""
        known = set(self.read())
        # As keys of a dict, which keep their order: a line may stand there twice.
        missing = [erasure for erasure in dict.fromkeys(parse(lines)) if erasure not in known]
        if missing:
            self.append(*missing)
        return len(missing)

    def _ends_with_line(self) -> bool:
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _sync_folder(self) -> None:
        """The name of a new file is not on the disk before its folder is."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
