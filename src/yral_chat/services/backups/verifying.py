"""Whether the objects of a backup are those that were written: all there, and all readable.

Without SQLAlchemy, as restoring.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from yral_chat.clients.backup_store import BackupStore, BackupStoreError
from yral_chat.clients.litestream import Litestream, LitestreamError, LtxFile, newest
from yral_chat.clients.ltx import HEADER_BYTES, LtxDamaged, LtxHeader, LtxReader, read_header
from yral_chat.core.clock import DAY, from_text
from yral_chat.core.config import Settings
from yral_chat.services.backups.histories import SNAPSHOTS, find_gaps, first, last, name
from yral_chat.services.backups.proof import Finding
from yral_chat.services.backups.seen import find_vanished, load_seen, save_seen

MOST_FINDINGS: Final = 50
AGAIN_SECONDS: Final = 2.0
# So long the changes may be on their way that a snapshot already has.
SENT_SECONDS: Final = 10.0
# So Litestream calls an object of a folder while it writes it, and what is left of that after a kill.
UNFINISHED: Final = ".ltx.tmp"

Told = Callable[[int], None]  # how many objects have been read


class Verifier:
    """One generation. `place` is where its objects lie in the store. Raises BackupStoreError, LitestreamError.

    `is_noting`: what is found whole is noted, so that the next look misses what has gone since. There is one such note.
    """

    def __init__(
        self, store: BackupStore, litestream: Litestream, place: str, settings: Settings, *, is_noting: bool = True
    ) -> None:
        self._store = store
        self._litestream = litestream
        self._place = place
        self._is_noting = is_noting
        self._data_dir = settings.data_dir
        self._retention = settings.backup_retention_days * DAY

    async def look(
        self, expected: int = 0, *, read: Callable[[LtxFile], bool] = lambda _: True, told: Told = lambda _: None
    ) -> list[Finding]:
        """Names, times and, of those that `read` wants, every byte. For `expected` see `find_gaps`."""
        files, findings = await self._list(expected)
        if findings:  # a listing while Litestream writes may miss what has just come; what is missing stays so
            await asyncio.sleep(AGAIN_SECONDS)
            with suppress(LitestreamError):  # nobody serves
                await self._litestream.wait_replicated(SENT_SECONDS)
            files, findings = await self._list(expected)
        findings += await self._strangers(files)
        findings += [finding async for finding in self._read_all(filter(read, files), told)]
        if self._is_noting and not findings:
            await asyncio.to_thread(save_seen, self._data_dir, self._store.target.name, self._place, files)
        return findings[:MOST_FINDINGS]

    async def _list(self, expected: int) -> tuple[list[LtxFile], list[Finding]]:
        seen = await asyncio.to_thread(load_seen, self._data_dir, self._store.target.name, self._place)
        files = await self._litestream.files()
        return files, [*find_gaps(files, expected), *find_vanished(seen, files, self._retention)]

    async def bytes_then(self, at: str | None = None) -> int:
        """The size of the newest state, or of that of a time (RFC 3339), in bytes; 0 when that cannot be read."""
        files = await self._litestream.files()
        latest = newest([file for file in files if at is None or file.at <= from_text(at)])
        return 0 if latest is None else await self.bytes_at(latest)

    async def bytes_at(self, file: LtxFile) -> int:
        """The size of the database after it, in bytes; 0 when that cannot be read."""
        stream = await self._store.open(self._key(file))
        if stream is None:
            return 0
        begun = bytearray()
        async for piece in stream:
            begun += piece
            if len(begun) >= HEADER_BYTES:
                break
        await stream.aclose()
        with suppress(LtxDamaged):
            header = read_header(begun)
            return header.pages * header.page_size
        return 0

    async def points(self) -> list[LtxFile]:
        """The last object of every day and of every level, and every snapshot: oldest first."""
        files = await self._litestream.files()
        days = {file.at // DAY: file for file in sorted(files, key=last)}
        levels = {file.level: file for file in sorted(files, key=last)}
        found = {last(file): file for file in (*days.values(), *levels.values())}
        found |= {last(file): file for file in files if file.level == SNAPSHOTS}
        return [found[txid] for txid in sorted(found)]

    def _key(self, file: LtxFile) -> str:
        return f"{self._place}/{self._litestream.key(file)}"

    async def _strangers(self, files: Sequence[LtxFile]) -> list[Finding]:
        """Objects that Litestream does not know, neither before nor after: it writes meanwhile."""
        found = {key async for key, _, _ in self._store.list(self._place)}
        known = {self._key(file) for file in (*files, *await self._litestream.files())}
        return [
            Finding(key.removeprefix(f"{self._place}/"), "Litestream does not know this object.")
            for key in sorted(found - known)
            if not key.endswith(UNFINISHED)
        ]

    async def _read_all(self, files: Iterable[LtxFile], told: Told) -> AsyncIterator[Finding]:
        gone: list[LtxFile] = []
        for number, file in enumerate(files, 1):
            text = await self._read(file)
            told(number)
            if text == "":
                gone.append(file)
            elif text is not None:
                yield Finding(name(file), text)
        if gone:  # it may have been compacted and tidied away while we read
            left = set(await self._litestream.files())
            for file in gone:
                if file in left:
                    yield Finding(name(file), "It is listed, and cannot be read.")

    async def _read(self, file: LtxFile) -> str | None:
        """What is wrong with it; the empty text when it is not there, None when it is well."""
        try:
            stream = await self._store.open(self._key(file))
            if stream is None:
                return ""
            reader, size = LtxReader(), 0
            async for piece in stream:
                size += len(piece)
                await asyncio.to_thread(reader.feed, piece)
            header = await asyncio.to_thread(reader.finish)
        except BackupStoreError as error:
            return f"It cannot be read: {error.reason}."
        except LtxDamaged as error:
            return f"It is damaged: {error}."
        return _difference(file, header, size)


def _difference(file: LtxFile, header: LtxHeader, size: int) -> str | None:
    if (header.min_txid, header.max_txid) != (first(file), last(file)):
        return "It is not the object of its name."
    return None if size == file.size else f"It has {size} bytes and not {file.size}."
