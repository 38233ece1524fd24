"""Which accounts were erased, beside the database: a backup that is restored brings them back, and this tells so.

One line of JSON per erasure. The id of the account stands there as it is, because only so can the erasure be repeated:
the file is for its owner's eyes only, and it is all that is kept of such a person.
"""

import os
from pathlib import Path

import msgspec

from yral_chat.core.errors import ServiceUnavailable, StorageFull
from yral_chat.core.objects import Time


class Erasure(msgspec.Struct, frozen=True):
    """One line."""

    id: str
    user_id: str
    at: Time


class ErasureLog:
    """The file `erasures.jsonl`. Methods block: not for the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, erasure: Erasure) -> None:
        """Returns once it is on the disk. Raises StorageFull, ServiceUnavailable."""
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(handle, b"\n" * (not self._ends_with_line()) + msgspec.json.encode(erasure) + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
            self._sync_folder()
        except OSError as error:
            if error.errno in (28, 122):  # ENOSPC, EDQUOT
                raise StorageFull from error
            raise ServiceUnavailable("The erasure cannot be noted", details={"service": "accounts"}) from error

    def read(self) -> list[Erasure]:
        """All of them, oldest first. A line that a crash has cut off is none: its erasure had not begun."""
        if not self._path.exists():
            return []
        found = []
        for line in self._path.read_bytes().splitlines():
            try:
                found.append(msgspec.json.decode(line, type=Erasure))
            except msgspec.DecodeError:
                continue
        return found

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
