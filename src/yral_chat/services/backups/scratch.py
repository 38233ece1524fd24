"""A folder in which a backup is restored to be looked at: one at a time, never beyond what the disk has, never left."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from yral_chat.core.sizes import MEBIBYTE

NAME: Final = "backup-drill"
# What a restore needs of the disk, as a multiple of the database: itself, and what looking at it takes.
ROOM: Final = 1.2


class ScratchUnusable(Exception):
    """Somebody else is in there, or there is no room; the text says it."""


@contextmanager
def scratch_folder(data_dir: Path) -> Iterator[Path]:
    """Empty, and gone afterwards; what a killed process has left there goes first. Raises ScratchUnusable."""
    try:
        handle = os.open(data_dir / f"{NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise ScratchUnusable(
            f"There is no folder {data_dir.resolve()}, in which the backup would be restored: make it, or set DATA_DIR."
        ) from error
    folder = data_dir / NAME
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ScratchUnusable("Another drill or verification runs; wait for its end.") from error
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def require_room(folder: Path, size: int) -> None:
    """Raises ScratchUnusable when a database of `size` bytes does not fit."""
    free, needed = shutil.disk_usage(folder).free, int(size * ROOM)
    if free < needed:
        raise ScratchUnusable(
            f"This takes {needed / MEBIBYTE:.0f} MiB, and the disk of {folder.resolve()} has {free / MEBIBYTE:.0f} MiB "
            "free: make room."
        )
