"""A whole database out of the backup: looked at, and put in its place."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from yral_chat.clients.litestream import DiskFull, Litestream, LitestreamError, Restored
from yral_chat.core.clock import now, stamp
from yral_chat.db import copies
from yral_chat.db.damage import check_damage
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.inspection import inspect_database
from yral_chat.db.urls import file_url
from yral_chat.services.backups.restoring import Progress, RestoreFailed, remove_database, watching
from yral_chat.services.backups.scratch import ScratchUnusable, require_room


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
        async with watching(aside, size, progress):
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
