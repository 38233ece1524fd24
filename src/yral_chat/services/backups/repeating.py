"""Who was erased is erased again in what was restored, as a start does it; then nothing of them may be left."""

import asyncio
from functools import partial
from typing import Final

from yral_chat.clients.backup_store import BackupStore
from yral_chat.core.clock import from_text
from yral_chat.core.config import Settings
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database
from yral_chat.db.verification import examine, find_left
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog
from yral_chat.services.backups import erasures
from yral_chat.services.backups.judging import as_finding
from yral_chat.services.backups.proof import Finding

CACHE_MB: Final = 8


async def check_erasures(
    settings: Settings, store: BackupStore, database_id: str, url: str, noted: int = 0
) -> list[Finding]:
    """Changes the restored database at `url`; `noted` is how many there have been. Raises BackupStoreError."""
    log = await asyncio.to_thread(ErasureLog(settings.data_dir / erasures.NAME).read)
    there = await erasures.read(store, database_id)
    findings = erasures.compare(log, there, noted)
    erased = list(dict.fromkeys([*there.whole, *log]))
    repeated = await _erase_again(settings, url, erased)
    left = await asyncio.to_thread(find_left, url, [(one.user_id, from_text(one.at)) for one in erased])
    findings += [as_finding(fault) for fault in left]
    if repeated:
        found = await asyncio.to_thread(examine, url, is_summed=False)
        findings += [as_finding(fault) for fault in found.faults]
    return findings


async def _erase_again(settings: Settings, url: str, erased: list[Erasure]) -> int:
    """Returns how many there were that the backup does not know of."""
    database = create_database(url, pool_size=1, cache_mb=CACHE_MB)
    await database.open()
    try:
        done = await database.read(lambda uow: {one.id for one in erased if uow.accounts.is_finished(one.id)})
        todo = [one for one in erased if one.id not in done]
        if todo:
            await _erase(database, todo, has_quotas=settings.has_quotas)
    finally:
        await database.close()
    return len(todo)


async def _erase(database: Database, todo: list[Erasure], *, has_quotas: bool) -> None:
    # Here, because it brings with it what serves people, and a drill has little memory.
    from yral_chat.services.accounts import erasing
    from yral_chat.services.accounts.eraser import Eraser, queue_anew

    eraser = Eraser(database)
    for erasure in todo:
        await database.write(queue_anew, erasure)
        await eraser.run(erasure, partial(erasing.finish, has_quotas=has_quotas))
