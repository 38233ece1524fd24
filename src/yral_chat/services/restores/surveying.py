"""What there is to put back, before it is: for whoever has asked for it."""

import asyncio
from collections.abc import Awaitable, Callable

from yral_chat.core.config import Settings
from yral_chat.core.errors import StorageUnavailable
from yral_chat.db.snapshots import Snapshot
from yral_chat.services.accounts.erasure_log import ErasureLog
from yral_chat.services.restores import owning, reading
from yral_chat.services.restores.erased import Erasures
from yral_chat.services.restores.records import Found, Wanted

# Keys that are shown of files that are missing.
SHOWN = 20
AT_ONCE = 8
PAGE = 200

HasFile = Callable[[str], Awaitable[bool]]


async def survey(settings: Settings, copy_url: str, wanted: Wanted, has_file: HasFile) -> Found:
    """`has_file` tells whether a file is still stored. Raises NotFound, AccountErased, DatabaseUnusable."""
    wanted.check()
    log = await asyncio.to_thread(ErasureLog(settings.data_dir / "erasures.jsonl").read)
    erasures = Erasures(log)
    found: Found = {
        "conversations": 0, "messages": 0, "first_at": None, "last_at": None, "files": 0, "missing": 0,
        "missing_keys": [], "memories": 0,
    }  # fmt: skip
    async with Snapshot(copy_url) as copy:
        if wanted.conversation_id is None and wanted.user_id is not None:
            await copy.read(owning.check_user, wanted.user_id, erasures)
        async for conversation_id in reading.list_conversations(copy, wanted):
            if await copy.read(reading.find_then, conversation_id, wanted, erasures) is not None:
                await _add(copy, conversation_id, found)
                await _look_at_files(copy, conversation_id, found, has_file)
    return found


async def _add(copy: Snapshot, conversation_id: str, found: Found) -> None:
    count, first, last = await copy.read(lambda uow: uow.restores.measure(conversation_id))
    memories = await copy.read(lambda uow: len(uow.memories.list_all(conversation_id)))
    found["conversations"] += 1
    found["messages"] += count
    found["memories"] += memories
    found["first_at"] = min((time for time in (found["first_at"], first) if time is not None), default=None)
    found["last_at"] = max((time for time in (found["last_at"], last) if time is not None), default=None)


async def _look_at_files(copy: Snapshot, conversation_id: str, found: Found, has_file: HasFile) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def is_there(key: str) -> bool:
        async with places:
            return await has_file(key)

    after = ""
    while keys := await copy.read(lambda uow, after: uow.restores.list_keys(conversation_id, after, PAGE), after):
        after = keys[-1]
        found["files"] += len(keys)
        if found["missing"] is None:
            continue
        try:
            there = await asyncio.gather(*map(is_there, keys))
        except StorageUnavailable:
            found["missing"] = None
            continue
        lost = [key for key, is_stored in zip(keys, there, strict=True) if not is_stored]
        found["missing"] += len(lost)
        found["missing_keys"] += lost[: SHOWN - len(found["missing_keys"])]
