"""Dumps of a PostgreSQL database at BACKUP_URL: made by pg_dump, each with a record of what is in it.

dumps.json                      which database's dumps these are: the marker
<database>/dumps/<time>.dump    pg_dump's custom format
<database>/dumps/<time>.json    its size, its SHA-256, and rows and checksum of every table, as of the same snapshot;
                                written last: without it a dump does not count
<database>/erasures.jsonl       who had their account erased
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.clients import postgres_tools
from yral_chat.clients.backup_store import BackupStore, BackupStoreError, Conflict, target_of
from yral_chat.clients.postgres_tools import PostgresToolError
from yral_chat.core.clock import DAY, SECOND, from_text, now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.decoding import decode
from yral_chat.core.errors import AppError
from yral_chat.core.failures import CannotGoOn
from yral_chat.db.exports import Snapshot, exported, newest_change
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.scratch import is_empty
from yral_chat.db.verification import compare, examine
from yral_chat.services.backups import erasures
from yral_chat.services.backups.alone import only_one
from yral_chat.services.backups.dump_records import MARKER, Dump, Marker, dump_name, folder_of, time_of
from yral_chat.services.backups.half_written import read_settled
from yral_chat.services.backups.judging import as_difference, as_finding
from yral_chat.services.backups.lease import SETTLE_SECONDS
from yral_chat.services.backups.proof import Finding
from yral_chat.services.backups.restoring import Say
from yral_chat.services.backups.threads import in_thread

# A part of 5 MiB on a line of 1 MBit/s.
REQUEST_SECONDS: Final = 60
# Until it is so old, a dump without a record may be one that is being made.
UNFINISHED: Final = DAY
# A dump of later than this is of a clock that was wrong: it is none until then.
AHEAD: Final = 3600 * SECOND

Progress = Callable[[int], None]  # is told how many bytes have passed


class DumpFailed(CannotGoOn):
    """A sentence for the operator."""


class Dumps:
    """Those of one target. Raises DumpFailed, DatabaseUnusable; needs BACKUP_URL."""

    def __init__(self, settings: Settings) -> None:
        if settings.backup_url is None:
            raise DumpFailed("BACKUP_URL is not set: nothing says where backups are to lie.")
        self._settings = settings
        self._url = settings.resolved_database_url
        self.store = BackupStore(target_of(settings, settings.backup_url), request_seconds=REQUEST_SECONDS)

    @property
    def place(self) -> str:
        return self.store.target.name

    async def make(self, progress: Progress) -> Dump:
        """Dumps the database, then deletes what is too old. Needs no disk, and memory does not grow with it."""
        lock = self._settings.data_dir / "dump.lock"
        with only_one(lock, DumpFailed("Another `yral-chat backup dump` is at work. Let it end.")), self._named():
            began, at = time.monotonic(), to_text(now())
            async with in_thread(exported(self._url)) as snapshot:
                await self._claim(snapshot.database_id)
                name = dump_name(snapshot.database_id, at)
                size, sha256 = await self._send(f"{name}.dump", snapshot, progress)
            erased = await self._count_erasures(snapshot.database_id)
            dump = Dump(
                snapshot.database_id, at, snapshot.revision, snapshot.server_version, size, sha256, snapshot.size,
                round(time.monotonic() - began, 3), snapshot.tables, erased,
            )  # fmt: skip
            await self.store.put(f"{name}.json", msgspec.json.encode(dump))
            try:
                await self._send_erasures(dump.database_id)
            finally:
                await self._prune(dump.database_id)
        return dump

    async def list_all(self) -> list[Dump]:
        """All that are whole, the oldest first."""
        with self._named():
            return [record for record in await self._records() if isinstance(record, Dump)]

    async def sort(self) -> tuple[list[Dump], list[Dump]]:
        """Those of the database in use, and those of others; while it is away or empty, nobody knows of others."""
        own_id, found = await self.own_id(), await self.list_all()
        own = [dump for dump in found if own_id in (None, dump.database_id)]
        return own, [dump for dump in found if own_id not in (None, dump.database_id)]

    async def own_id(self) -> str | None:
        """The id of the database in use; None when it is away, or has no tables yet."""
        with suppress(DatabaseUnusable):
            return (await asyncio.to_thread(newest_change, self._url)).database_id
        return None

    async def find(self, at: str | None = None, of: str | None = None) -> Dump:
        """The newest, or the newest of the time `at` (RFC 3339) or before; of the database `of`, or of any."""
        latest = now() + AHEAD if at is None else from_text(at)
        found = [dump for dump in await self.list_all() if from_text(dump.at) <= latest]
        own = [dump for dump in found if of in (None, dump.database_id)]
        if found and not own:
            raise DumpFailed(
                f"{self.place} holds no dump of the database in use, but of another ({found[-1].database_id}): "
                "look at BACKUP_URL."
            )
        if not own:
            raise DumpFailed(f"{self.place} holds no dump{' of that time or before' if at else ''}.")
        return own[-1]

    async def newest_at(self, database_id: str) -> int | None:
        """When the newest of that database was made, in microseconds since the epoch; looks at names only."""
        with self._named():
            keys = [key async for key, _, _ in self.store.list(folder_of(database_id)) if key.endswith(".json")]
        times = [at for at in map(time_of, keys) if at is not None]
        return max((at for at in times if at <= now() + AHEAD), default=None)

    async def verify(self, progress: Progress) -> AsyncIterator[str]:
        """Reads all of them again; a sentence for each that is not what was written."""
        with self._named():
            for record in await self._records():
                if isinstance(record, str):
                    yield f"{record}: the record cannot be read"
                elif from_text(record.at) > now() + AHEAD:
                    yield f"{record.name}.json: of a time to come; it counts as a dump once that is there"
                elif (wrong := await self._check(record, progress)) is not None:
                    yield wrong
            for key in await self._alone():
                yield f"{key}: its record is missing; it does not count"

    async def restore(self, dump: Dump, progress: Progress, *, told: Say | None = None) -> list[Finding]:
        """Brings all of `dump`, or nothing, into the database, which has to be empty; compares it with the record.
        `told` as of `fetch_erasures`.

        Returns what was wrong with the database already when it was dumped.
        """
        with self._named():
            if not await asyncio.to_thread(is_empty, self._url):
                raise DumpFailed(
                    "The database has tables: nothing was changed. Make a new one, with CREATE DATABASE … TEMPLATE "
                    "template0, set DATABASE_URL to it, and restore into that; or --to FILE."
                )
            if (wrong := await self._check(dump, lambda _: None)) is not None:
                raise DumpFailed(f"{wrong}. Nothing was changed. `yral-chat backup list` shows others: --at TIME.")
            # First: whoever starts the service with what came, in whatever state, must not serve the erased again.
            await self.fetch_erasures(dump, told=told)
            differences, faults = await self.bring(dump, self._url, progress)
            if differences:
                raise DumpFailed(f"{dump.name}.dump was restored, and is not what it was: {differences[0].text}")
            return faults

    async def fetch_erasures(self, dump: Dump, *, told: Say | None) -> None:
        """Adds to the list here who was erased from the database of `dump`. Raises ErasuresNotKnown, too; `told`
        instead, where not all of them can be known.
        """
        newest = await self.find(of=dump.database_id)  # an older one does not know how many there are by now
        with self._named():
            data_dir = self._settings.data_dir
            await erasures.fetch_first(self.store, dump.database_id, data_dir, noted=newest.erasures, told=told)

    async def find_missing_erasures(self, dump: Dump) -> list[Finding]:
        """Those that this machine knows and the target does not. Raises DumpFailed, OSError."""
        with self._named():
            return await erasures.find_missing(self.store, dump.database_id, self._settings.data_dir, dump.erasures)

    async def bring(self, dump: Dump, url: str, progress: Progress) -> tuple[list[Finding], list[Finding]]:
        """Into the empty database at `url`: where what came differs from the record, and what is wrong with it."""
        digest = hashlib.sha256()
        with self._named():
            async with aclosing(self._read(dump, digest, progress)) as chunks:
                await postgres_tools.restore(url, chunks)
        found = await asyncio.to_thread(examine, url)
        differences = [as_difference(difference) for difference in compare(dump.tables, found.tables)]
        if not _is_whole(dump, digest):
            differences.append(Finding(f"{dump.name}.dump", "It is damaged, and could be restored all the same."))
        return differences, [as_finding(fault) for fault in found.faults]

    async def save(self, dump: Dump, to: Path, progress: Progress) -> None:
        """As a file for pg_restore."""
        digest = hashlib.sha256()
        aside = to.with_name(f"{to.name}.restoring")
        with self._named():
            try:
                async with aclosing(self._read(dump, digest, progress)) as chunks:
                    await asyncio.to_thread(aside.touch, 0o600)
                    with aside.open("wb", buffering=0) as file:
                        async for chunk in chunks:
                            file.write(chunk)
                if not _is_whole(dump, digest):
                    raise DumpFailed(f"{dump.name}.dump: damaged")
                aside.replace(to)
            finally:
                aside.unlink(missing_ok=True)

    async def _send(self, key: str, snapshot: Snapshot, progress: Progress) -> tuple[int, str]:
        """Returns size and SHA-256."""
        digest, size = hashlib.sha256(), 0

        async def passing() -> AsyncGenerator[bytes, None]:
            nonlocal size
            async with aclosing(postgres_tools.dump(self._url, snapshot.id)) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    progress(size)
                    yield chunk

        async with aclosing(passing()) as chunks:
            await self.store.put_stream(key, chunks)
        return size, digest.hexdigest()

    async def _count_erasures(self, database_id: str) -> int:
        try:
            return await erasures.count(self.store, database_id, self._settings.data_dir)
        except OSError:  # to send them will tell it; as many as there were, so that none of them goes unmissed
            there = len(set((await erasures.read(self.store, database_id)).whole))
            return max(there, *(dump.erasures for dump in await self.list_all() if dump.database_id == database_id), 0)

    async def _send_erasures(self, database_id: str) -> None:
        try:
            await erasures.send(self.store, database_id, self._settings.data_dir)
        except (BackupStoreError, AppError, OSError) as error:
            why = error if isinstance(error, BackupStoreError) else error.__cause__ or error
            raise DumpFailed(f"The dump is made and counts; but who was erased could not be noted ({why}).") from error

    async def _read(self, dump: Dump, digest: "hashlib._Hash", progress: Progress) -> AsyncGenerator[bytes, None]:
        chunks = await self.store.open(f"{dump.name}.dump")
        if chunks is None:
            raise DumpFailed(f"{dump.name}.dump: missing")
        size = 0
        async with aclosing(chunks):
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                progress(size)
                yield chunk

    async def _check(self, dump: Dump, progress: Progress) -> str | None:
        """What is wrong with its bytes."""
        digest = hashlib.sha256()
        try:
            async for _ in self._read(dump, digest, progress):
                pass
        except DumpFailed as error:
            return str(error)
        return None if _is_whole(dump, digest) else f"{dump.name}.dump: damaged"

    async def _records(self, folder: str = "") -> list[Dump | str]:
        """Each, or its key where it cannot be read."""
        found = [key async for key, _, _ in self.store.list(folder) if key.endswith(".json")]
        keys = sorted(filter(time_of, found), key=lambda key: key.rpartition("/")[2])
        records: list[Dump | str] = []
        for key in keys:
            stored = await self.store.get(key)
            try:
                records.append(key if stored is None else decode(stored.data, Dump))
            except msgspec.DecodeError:
                records.append(key)
        # One that is not what its name says was copied by hand, or is damaged.
        named = zip(keys, records, strict=True)
        return [record if isinstance(record, Dump) and f"{record.name}.json" == key else key for key, record in named]

    async def _claim(self, database_id: str) -> None:
        """Makes this the place of that database. Raises DumpFailed when it is another's: nothing is mixed."""
        owner = await self._marked_for()
        if owner is None:  # nobody has dumped here yet, or somebody has deleted the marker
            dumps = await self.list_all()
            owner = dumps[-1].database_id if dumps else await self._mark(database_id)
        if owner != database_id:
            raise DumpFailed(
                f"{self.place} is for the dumps of another database ({owner}; this one is {database_id}). "
                "Nothing was written. Give this one a BACKUP_URL of its own."
            )

    async def _mark(self, database_id: str) -> str | None:
        """Whose place it is then: of two who come at the same moment, the first one's."""
        record = msgspec.json.encode(Marker(database_id, to_text(now())))
        with suppress(Conflict):
            await self.store.create(MARKER, record)
            await self.store.create(MARKER, record)
            # This bucket ignores conditions. The last one has it, once whoever is on the way has arrived.
            await asyncio.sleep(SETTLE_SECONDS)
        return await self._marked_for()

    async def _marked_for(self) -> str | None:
        try:
            return await read_settled(self._read_marker, msgspec.DecodeError)
        except msgspec.DecodeError as error:
            raise DumpFailed(
                f"{MARKER} at {self.place} cannot be read. Nothing was written. Delete it: the next dump makes it anew."
            ) from error

    async def _read_marker(self) -> str | None:
        stored = await self.store.get(MARKER)
        return None if stored is None else decode(stored.data, Marker).database_id

    async def _alone(self) -> list[str]:
        """Dumps without a record, and none of them is being made."""
        found = {key async for key, _, _ in self.store.list() if time_of(key)}
        dumps = sorted(key for key in found if key.endswith(".dump"))
        alone = [key for key in dumps if f"{key.removesuffix('.dump')}.json" not in found]
        return [key for key in alone if (time_of(key) or 0) < now() - UNFINISHED]

    async def _prune(self, database_id: str) -> None:
        """What is too old; of what is younger, a dump whose record was lost can still be restored by hand."""
        oldest = now() - self._settings.backup_retention_days * DAY
        found = [key async for key, _, _ in self.store.list(folder_of(database_id))]
        for key in sorted(found, reverse=True):  # the record goes before its dump
            if (time_of(key) or oldest) < oldest:
                await self.store.delete(key)
        self.store.remove_leftovers()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BackupStoreError as error:
            raise DumpFailed(f"The backup at {self.place} cannot be used: {error.reason}.") from error
        except PostgresToolError as error:
            raise DumpFailed(str(error)) from error


def _is_whole(dump: Dump, digest: "hashlib._Hash") -> bool:
    found = digest.hexdigest()
    return found == dump.sha256
