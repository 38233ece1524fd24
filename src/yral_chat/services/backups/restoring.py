"""A whole database out of the backup: into a file aside, looked at, and then in its place."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from loguru import logger

from yral_chat.clients.litestream import DiskFull, Litestream, LitestreamError, Restored, state_folder
from yral_chat.core.clock import now, stamp
from yral_chat.core.failures import CannotGoOn
from yral_chat.db import copies
from yral_chat.db.damage import check_damage
from yral_chat.db.database import DatabaseUnusable
from yral_chat.db.inspection import inspect_database
from yral_chat.db.sqlite import file_url
from yral_chat.services.backups.scratch import ScratchUnusable, require_room

PROGRESS_SECONDS: Final = 0.2

Progress = Callable[[int, int | None], None]  # is told how many bytes are there, and of how many; None: not known
Say = Callable[[str], None]  # is told what is being done

_LTX = re.compile(r"[0-9a-f]{16}-([0-9a-f]{16})\.ltx")


class RestoreFailed(CannotGoOn):
    """Nothing was changed; the text says why."""


async def bring_back(
    litestream: Litestream,
    path: Path,
    *,
    txid: str | None = None,
    at: str | None = None,
    size: int = 0,
    progress: Progress = lambda _done, _total: None,
    check: Callable[[Restored], None] = lambda _: None,
) -> Restored:
    """Restores to `path`, where nothing of value may be. `size` is that of the database, in bytes; 0: not known.
    `check` may refuse what has come.

    Raises RestoreFailed; then `path` is as it was.
    """
    aside = path.with_name(f"{path.name}.restoring")
    await asyncio.to_thread(remove_database, aside)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        await asyncio.to_thread(require_room, path.parent, size)
        async with _watching(aside, size, progress):
            restored = await litestream.restore(aside, txid=txid, at=at)
        check(restored)
        await asyncio.to_thread(_check, aside)
        await asyncio.to_thread(_put_in_place, aside, path)
    except ScratchUnusable as error:
        raise RestoreFailed(f"{error} Nothing was changed.") from error
    except DiskFull as error:
        raise RestoreFailed(
            f"The disk of {path.parent.resolve()} is full ({error}). Nothing was changed. Make room, then repeat this."
        ) from error
    except (LitestreamError, DatabaseUnusable) as error:
        raise RestoreFailed(
            f"There is a backup, but it could not be restored: {error}. Nothing was changed. "
            "`yral-chat backup verify --all` names what is damaged: moved out of the backup, others may have the same "
            "changes (docs/operations/restore.md); or `yral-chat restore --at TIME` brings an earlier state."
        ) from error
    finally:
        await asyncio.to_thread(remove_database, aside)
    return restored


async def restore_aside(litestream: Litestream, to: Path, *, txid: str | None, size: int, progress: Progress) -> None:
    """Into the new file `to` of a scratch folder, to be looked at: that there is no room says nothing of the backup.

    Raises ScratchUnusable, LitestreamError.
    """
    await asyncio.to_thread(require_room, to.parent, size)
    try:
        async with _watching(to, size, progress):
            await litestream.restore(to, txid=txid, is_frugal=True)
    except DiskFull as error:
        raise ScratchUnusable(f"The disk of {to.parent} is full ({error}): make room.") from error


@asynccontextmanager
async def _watching(path: Path, size: int, progress: Progress) -> AsyncIterator[None]:
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


def _check(path: Path) -> None:
    """Raises DatabaseUnusable for what is not a sound database of ours."""
    found = inspect_database(file_url(path))
    if found.damage:
        raise DatabaseUnusable(f"what came is damaged ({found.damage})")
    if found.revision is None:
        raise DatabaseUnusable("what came has no tables of ours")


def _put_in_place(aside: Path, path: Path) -> None:
    settle(aside)
    if (log := Path(f"{path}-wal")).exists():  # of a database that somebody has moved away, who may miss it
        kept = log.rename(f"{path}.before-restore-{stamp(now())}-wal")
        logger.warning("backup.log_kept", name=kept.name)  # it may have what had not been sent
    Path(f"{path}-shm").unlink(missing_ok=True)
    aside.replace(path)
    copies.sync(path.parent)


def settle(file: Path) -> None:
    """What a file holds is on the disk, before it is called the database; and nobody else may read it."""
    file.chmod(0o600)
    copies.sync(file)


def replace_database(path: Path, file: Path) -> Path | None:
    """`file`, which has no log, becomes the database at `path`; where the one that was there is kept.

    One that is damaged goes away as it is, with its log: to bring that into it would be to write into it.
    """
    try:
        check_damage(path)
        return copies.put_back(file, path)
    except DatabaseUnusable:
        kept = _set_aside(path)
        file.replace(path)
        return kept


def _set_aside(path: Path) -> Path:
    """Renames a broken database, with its log, which is a part of it."""
    kept = path.with_name(f"{path.name}.broken-{stamp(now())}")
    for suffix in ("-wal", "-shm"):
        if (beside := Path(f"{path}{suffix}")).exists():
            beside.rename(f"{kept}{suffix}")
    try:
        return path.rename(kept)
    except FileNotFoundError:
        return Path(f"{kept}-wal")  # it was all there was


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
