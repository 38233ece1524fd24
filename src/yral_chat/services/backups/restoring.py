"""A whole database out of the backup, into a file aside.

Without SQLAlchemy, as everything that a drill has at hand while it restores (drill.py).
"""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from yral_chat.clients.litestream import DiskFull, Litestream, state_folder
from yral_chat.core.failures import CannotGoOn
from yral_chat.services.backups.scratch import ScratchUnusable, require_room

PROGRESS_SECONDS: Final = 0.2

Progress = Callable[[int, int | None], None]  # is told how many bytes are there, and of how many; None: not known
Say = Callable[[str], None]  # is told what is being done

_LTX = re.compile(r"[0-9a-f]{16}-([0-9a-f]{16})\.ltx")


class RestoreFailed(CannotGoOn):
    """Nothing was changed; the text says why."""


async def restore_aside(litestream: Litestream, to: Path, *, txid: str | None, size: int, progress: Progress) -> None:
    """Into the new file `to` of a scratch folder, to be looked at: that there is no room says nothing of the backup.

    Raises ScratchUnusable, LitestreamError.
    """
    await asyncio.to_thread(require_room, to.parent, size)
    try:
        async with watching(to, size, progress):
            await litestream.restore(to, txid=txid, is_frugal=True)
    except DiskFull as error:
        raise ScratchUnusable(f"The disk of {to.parent} is full ({error}): make room.") from error


@asynccontextmanager
async def watching(path: Path, size: int, progress: Progress) -> AsyncIterator[None]:
    """Tells how much of what is restored to `path` in the block is there. `size` in bytes; 0: not known."""
    watch = asyncio.create_task(_watch(path, size or None, progress))
    try:
        yield
    finally:
        watch.cancel()
    if size:
        progress(size, size)


async def _watch(path: Path, size: int | None, progress: Progress) -> None:
    while True:
        for name in (path, Path(f"{path}.tmp")):
            with suppress(FileNotFoundError):
                progress(name.stat().st_size, size)
        await asyncio.sleep(PROGRESS_SECONDS)


def remove_database(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".tmp", ".tmp-wal", ".tmp-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """What Litestream keeps of a generation that has ended."""
    shutil.rmtree(path, ignore_errors=True)


def last_local_txid(database: Path) -> int | None:
    """The last transaction that Litestream has read of this database; None when it has no state here."""
    names = (state_folder(database) / "ltx").glob("*/*.ltx")
    return max((int(found[1], 16) for name in names if (found := _LTX.fullmatch(name.name))), default=None)
