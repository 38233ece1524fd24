"""What there has to be a copy of: the files that the database knows, and where they lie."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

from yral_chat.clients.storage import StorageService, media_type
from yral_chat.core.config import Settings
from yral_chat.core.errors import StorageFull, StorageUnavailable
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.media import MediaObject
from yral_chat.db.viewing import viewing
from yral_chat.services.backups.media.failures import MediaBackupFailed
from yral_chat.services.backups.media.names import Names

T = TypeVar("T")

# Rows of one look into the database. Each is a transaction of its own: a long one would keep SQLite's log from being
# emptied, and PostgreSQL from cleaning up.
ROWS: Final = 2000


class Originals:
    """The database is only read, beside the server or without one. Raises DatabaseUnusable, MediaBackupFailed."""

    def __init__(self, settings: Settings, storage: StorageService) -> None:
        self._url = settings.resolved_database_url
        self._storage = storage

    async def database_id(self) -> str:
        return await self._look(lambda uow: uow.installation.get_id())

    async def count(self) -> int:
        return await self._look(lambda uow: uow.media.count_stored())

    async def known(self, keys: Collection[str]) -> set[str]:
        """Those of some hundred `keys` that the database knows."""
        return await self._look(lambda uow: {key for key in keys if uow.media.is_stored(key)}) if keys else set()

    async def list(self, after: str) -> list[MediaObject]:
        """The next `ROWS` in the order of keys."""
        return await self._look(lambda uow: uow.media.list_stored(after, ROWS))

    async def listed(self) -> Names:
        """What a bucket lists, a thousand to a request, as `described` gives it. What is not in it may be there all the
        same: in a folder, where asking costs nothing, or where the access key may not list.
        """
        names = Names()
        try:
            async for key, size in self._storage.list_remote():
                names.add(described(key, size))
        except StorageUnavailable as error:
            raise await self._failed() from error
        names.seal()
        return names

    async def size_of(self, key: str) -> int | None:
        try:
            return await self._storage.size_of(key)
        except StorageUnavailable as error:
            raise await self._failed() from error

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """The content. Raises MediaNotFound with the first piece."""
        try:
            async for chunk in await self._storage.open(key):
                yield chunk
        except StorageUnavailable as error:
            raise await self._failed() from error

    async def write(self, key: str, path: Path) -> None:
        """Puts a copy of the file at `path` there."""
        try:
            await self._storage.put_file(key, path, media_type(key))
        except StorageFull as error:
            raise MediaBackupFailed("There is no more room for media. Make some, and run it again.") from error
        except StorageUnavailable as error:
            raise await self._failed() from error

    async def check(self) -> None:
        """Raises MediaBackupFailed when media cannot be read."""
        if await self._storage.find_fault() is not None:
            raise await self._failed()

    async def _failed(self) -> MediaBackupFailed:
        reason = await self._storage.find_fault()
        return MediaBackupFailed(f"The media cannot be read ({reason or 'the storage failed meanwhile'}).")

    async def _look(self, look: Callable[[UnitOfWork], T]) -> T:
        def run() -> T:
            with viewing(self._url) as uow:
                return look(uow)

        return await asyncio.to_thread(run)


def described(key: str, size: int) -> str:
    """A name for an object of that many bytes."""
    return f"{key} {size}"


class Rows:
    """All rows once, in the order of keys, in portions of the caller's choice."""

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self._waiting: deque[MediaObject] = deque()
        self._last = ""
        self._has_more = True

    async def take(self, below: str | None, most: int) -> list[MediaObject]:
        """The next ones with keys before `below`, at most `most`. Fewer than that are the last of these."""
        taken: list[MediaObject] = []
        while len(taken) < most:
            if not self._waiting and self._has_more:
                self._waiting.extend(await self._originals.list(self._last))
                self._has_more = len(self._waiting) == ROWS
                self._last = self._waiting[-1].key if self._waiting else self._last
            if not self._waiting or (below is not None and self._waiting[0].key >= below):
                break
            taken.append(self._waiting.popleft())
        return taken
