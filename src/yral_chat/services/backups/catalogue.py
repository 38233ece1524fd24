"""What lies where at the target of the backups, and which of it is the present.

    lease.json                         who backs up here (lease.py)
    current.json                       which database this is the backup of: the marker
    DATABASE/database.json             its generations, oldest first
    DATABASE/erasures.jsonl            which accounts were erased (docs/decisions/0014)
    DATABASE/GENERATION/ltx/…          what Litestream writes

A generation is one unbroken history. After every restore a new one begins, so that what was written before and after it
never mixes, and every point in time of either can still be restored.

What the two files say can be read off the folders, too: the newest generation is that of the present database. So one
that is damaged keeps nobody from a backup that is whole.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Final, Literal, TypeVar

import msgspec

from yral_chat.clients.backup_store import BackupStore, BackupStoreError
from yral_chat.clients.litestream import Litestream, newest, txid_text
from yral_chat.core.clock import from_text, now, to_text
from yral_chat.core.decoding import decode
from yral_chat.core.ids import made_at, new_id
from yral_chat.core.logging import log
from yral_chat.core.objects import Time
from yral_chat.services.backups.histories import last

T = TypeVar("T")

CURRENT: Final = "current.json"
LEASE: Final = "lease.json"
BEGINNING: Final = f"{txid_text(1)}-"  # so the name of what a restore can begin with begins

# Why a generation began: the first of a database; after a restore; in a copy of the data folder; or as asked. "found":
# that is lost, and its folder was found.
Reason = Literal["first", "restored", "moved", "asked", "found"]


class CatalogueDamaged(BackupStoreError):
    """One of these files is not what was written. Unlike a target that does not answer, that says something of it."""


class Generation(msgspec.Struct, frozen=True):
    """One unbroken history. `has_arrived`: something of it was seen at the target, so that it is never empty again."""

    id: str
    begun_at: Time
    reason: Reason
    has_arrived: bool = False


class Marker(msgspec.Struct, frozen=True):
    """`current.json`."""

    database_id: str
    changed_at: Time


class Entry(msgspec.Struct, frozen=True):
    """`database.json`. `erasures`: so many its log of them has had; 0 where nobody knows."""

    database_id: str
    generations: tuple[Generation, ...]
    erasures: int = 0


class Catalogue:
    """Reads and writes these files. Only the holder of the lease writes. Raises BackupStoreError."""

    def __init__(self, store: BackupStore) -> None:
        self._store = store
        self._one_changes = asyncio.Lock()  # an entry that was read and is to be written
        self._known: dict[str, Entry] = {}  # by database, as it was read or written last

    async def read(self) -> Entry | None:
        """The database whose backup this is, as both files say; None without a marker. Raises CatalogueDamaged."""
        stored = await self._store.get(CURRENT)
        if stored is None:
            return None
        marker = _decode(stored.data, Marker, CURRENT)
        entry = await self.entry(marker.database_id)
        if entry is None:
            raise CatalogueDamaged(f"{CURRENT} names a database whose {entry_key(marker.database_id)} is missing")
        return entry

    async def current(self) -> Entry | None:
        """The same, also where a file is damaged. Raises CatalogueDamaged where no folder says it either.

        A marker that is whole is believed: where its database is gone, an older one is not the answer.
        """
        try:
            return await self.read()
        except CatalogueDamaged:
            marker = await self._marked()
            if isinstance(marker, Marker):
                found = await self._recover(marker.database_id)
            else:
                pairs = by_time(await self.list_recovered())
                found = pairs[-1][0] if pairs else None
            if found is None:
                raise
            return found

    async def entry(self, database_id: str) -> Entry | None:
        """What its file says. Raises CatalogueDamaged."""
        key = entry_key(database_id)
        stored = await self._store.get(key)
        if stored is None:
            return None
        entry = _decode(stored.data, Entry, key)
        if entry.database_id != database_id:
            raise CatalogueDamaged(f"{key} is damaged")
        return entry

    async def list_recovered(self) -> list[Entry]:
        """As `list_databases`, also those whose file is damaged or gone, as far as their folders tell."""
        names = [one for one in sorted(await self._store.folders("")) if made_at(one) is not None]
        return [entry for one in names if (entry := await self._recover(one)) is not None]

    async def _recover(self, database_id: str) -> Entry | None:
        found = await self._entry_or_damage(database_id)
        if isinstance(found, Entry):
            return found
        times = {one: made_at(one) for one in sorted(await self._store.folders(database_id))}
        generations = [
            Generation(one, to_text(at), "found", has_arrived=True)
            for one, at in times.items()
            if at is not None and await self._has_changes(place(database_id, one))
        ]
        return Entry(database_id, tuple(generations)) if generations else None

    async def keep(self, database_id: str, generation: Generation) -> bool:
        """Whether this is the place where that generation lies. Of the two files that say so one that is damaged or
        gone is written anew, by what the other says and what was here when we last looked; not where the generation's
        beginning, which had arrived, is gone, too.

        Raises CatalogueDamaged where neither says it.
        """
        async with self._one_changes:
            marker, entry = await self._marked(), await self._entry_or_damage(database_id)
            if (marker is None) != (entry is None):  # perhaps the place went away, or came, between the two
                marker, entry = await self._marked(), await self._entry_or_damage(database_id)
            if marker is None and entry is None:
                return False
            is_marked = isinstance(marker, Marker) and marker.database_id == database_id
            if isinstance(entry, Entry):
                if not any(one.id == generation.id for one in entry.generations):
                    return False
                self._known[database_id] = entry
                if is_marked:
                    return True
            # What is whole and of something else is not ours to change.
            if isinstance(marker, Marker) and not is_marked and not await self._store.is_empty(marker.database_id):
                return False
            if not await self._is_begun(database_id, generation):
                return False
            if not is_marked and entry is None:  # nothing says that it is this database's place
                raise CatalogueDamaged(f"{CURRENT} is damaged, and {entry_key(database_id)} is gone")
            if not isinstance(entry, Entry):
                await self._mend(database_id, generation)
            if not is_marked:
                log.error("backup.catalogue_mended", key=CURRENT)
                await self._mark(database_id)
            return True

    async def _mend(self, database_id: str, generation: Generation) -> None:
        log.error("backup.catalogue_mended", key=entry_key(database_id))
        known = self._known.get(database_id) or await self._recover(database_id) or Entry(database_id, ())
        is_known = any(one.id == generation.id for one in known.generations)
        await self._put(known, known.generations if is_known else (*known.generations, generation))

    async def _marked(self) -> "Marker | CatalogueDamaged | None":
        stored = await self._store.get(CURRENT)
        try:
            return None if stored is None else _decode(stored.data, Marker, CURRENT)
        except CatalogueDamaged as error:
            return error

    async def _entry_or_damage(self, database_id: str) -> "Entry | CatalogueDamaged | None":
        try:
            return await self.entry(database_id)
        except CatalogueDamaged as error:
            return error

    async def _is_begun(self, database_id: str, generation: Generation) -> bool:
        """Whether its beginning is there, or had not arrived yet when we last looked."""
        known = self._known.get(database_id) or Entry(database_id, (generation,))
        arrived = generation.has_arrived or any(one.has_arrived for one in known.generations if one.id == generation.id)
        return not arrived or await self._has_changes(place(database_id, generation.id), BEGINNING)

    async def has_objects(self) -> bool:
        """Whether there is anything but a lease and probes: a backup whose marker is gone, or somebody else's files."""
        async for key, _, _ in self._store.list():
            if key != LEASE and not key.startswith("probe-"):
                return True
        return False

    async def begin(self, database_id: str, reason: Reason) -> Generation:
        """A new generation of this database, which becomes the present one."""
        generation = Generation(new_id(), to_text(now()), reason)
        async with self._one_changes:
            entry = await self._recover(database_id) or Entry(database_id, ())
            await self._put(entry, (*entry.generations, generation))
        await self._mark(database_id)
        return generation

    async def _mark(self, database_id: str) -> None:
        await self._store.put(CURRENT, msgspec.json.encode(Marker(database_id, to_text(now()))))

    async def note_arrived(self, database_id: str, generation_id: str) -> bool:
        """Writes down that something of this generation is there; False while nothing is, or nothing to write into."""
        if not await self._has_changes(place(database_id, generation_id)):
            return False
        async with self._one_changes:
            if (entry := await self.entry(database_id)) is None:
                return False
            await self._put(entry, (_arrived(one, generation_id) for one in entry.generations))
        return True

    async def note_erasures(self, database_id: str, count: int, *, is_restored: bool = False) -> bool:
        """Writes down how many its log of erasures has; fewer only where a restore by hand came before.

        False where the database is not there.
        """
        async with self._one_changes:
            entry = await self.entry(database_id)
            if entry is not None and (count > entry.erasures or (is_restored and count < entry.erasures)):
                await self._put(msgspec.structs.replace(entry, erasures=count), entry.generations)
            return entry is not None

    async def _has_changes(self, prefix: str, name: str = "") -> bool:
        """`name` is what the object's begins with."""
        async for key, _, _ in self._store.list(prefix):
            if key.endswith(".ltx") and key.rpartition("/")[2].startswith(name):
                return True
        return False

    async def _put(self, entry: Entry, generations: Iterable[Generation]) -> None:
        changed = msgspec.structs.replace(entry, generations=tuple(generations))
        await self._store.put(entry_key(entry.database_id), msgspec.json.encode(changed))
        self._known[entry.database_id] = changed

    async def forget_before(self, oldest: int, present: str) -> list[str]:
        """Deletes generations of every database that were followed by another one before `oldest` (microseconds since
        the epoch), never that with the id `present`; returns their ids.
        """
        # One that never had anything in it follows nothing: its start was cut.
        found = [
            (entry, generation)
            for entry, generation in by_time(await self.list_databases())
            if generation.id == present
            or generation.has_arrived
            or not await self._store.is_empty(place(entry.database_id, generation.id))
        ]
        over = [
            (entry.database_id, generation.id)
            for (entry, generation), (_, follower) in pairwise(found)
            if generation.id != present and from_text(follower.begun_at) < oldest
        ]
        for database_id, generation_id in over:
            await self._forget(database_id, generation_id)
        return [generation_id for _, generation_id in over]

    async def _forget(self, database_id: str, generation_id: str) -> None:
        """Its objects go first: what is cut in between is repeated."""
        await self._store.delete_all(place(database_id, generation_id))
        async with self._one_changes:
            if (entry := await self.entry(database_id)) is None:  # just now: nobody knows what else it has
                return
            left = [one for one in entry.generations if one.id != generation_id]
            if left:
                await self._put(entry, left)
            else:
                await self._store.delete_all(database_id)

    async def list_databases(self) -> list[Entry]:
        """All that have ever been backed up here, the newest last, but those whose file is damaged."""
        entries = [await self._entry_or_damage(name) for name in sorted(await self._store.folders(""))]
        return [entry for entry in entries if isinstance(entry, Entry)]


def by_time(entries: Iterable[Entry]) -> list[tuple[Entry, Generation]]:
    """All their generations, in the order of their beginnings."""
    pairs = [(entry, generation) for entry in entries for generation in entry.generations]
    return sorted(pairs, key=lambda pair: pair[1].begun_at)


async def find_newest(
    entry: Entry, litestream: Callable[[str, Generation], Litestream]
) -> tuple[Generation, int] | None:
    """The last generation of a database that has, or had, anything in it, and its last transaction; 0: that is missing.

    Raises LitestreamError.
    """
    for generation in reversed(entry.generations):
        found = newest(await litestream(entry.database_id, generation).files())
        if found is not None or generation.has_arrived:
            return generation, 0 if found is None else last(found)
    return None


def unmoved_since(generation: Generation, earlier: Sequence[Generation]) -> Time:
    """When it began, or that of the `earlier` ones which was only moved since: a container whose host has a new name at
    each start is another folder each time.
    """
    for before in reversed([one for one in earlier if one.id != generation.id]):
        if generation.reason != "moved":
            break
        generation = before
    return generation.begun_at


def missing_text(name: str, generation: Generation) -> str:
    """What to say of a generation whose objects are gone from the target of this name."""
    return (
        f"{name} had generation {generation.id} of the database, begun {generation.begun_at}, and nothing of it is "
        "there now. Bring its objects back; or `yral-chat restore --at TIME` brings a state of before that; or start "
        "with --new to begin anew."
    )


def beginning_missing_text(name: str, generation: Generation) -> str:
    """Of one of which there are objects, but none that a restore could begin with."""
    return (
        f"The beginning of generation {generation.id}, begun {generation.begun_at}, is missing at {name}, so that "
        "nothing of it can be restored. Bring its objects back; or restore with --at a time before that."
    )


def unusable_text(name: str, error: Exception) -> str:
    """What to say of the target of this name, and what to do about a catalogue that is damaged."""
    text = f"The backup at {name} cannot be used: {error}."
    if not isinstance(error, CatalogueDamaged):
        return text
    return (
        f"{text} `yral-chat backup list` shows what is there, and `yral-chat restore --at TIME` brings it back. Then, "
        "or to go on with what is here, start with --new: what is there stays."
    )


def _arrived(generation: Generation, generation_id: str) -> Generation:
    return msgspec.structs.replace(generation, has_arrived=generation.has_arrived or generation.id == generation_id)


def place(database_id: str, generation_id: str) -> str:
    """Where Litestream writes a generation."""
    return f"{database_id}/{generation_id}"


def entry_key(database_id: str) -> str:
    return f"{database_id}/database.json"


def erasures_key(database_id: str) -> str:
    return f"{database_id}/erasures.jsonl"


def _decode(data: bytes, kind: type[T], key: str) -> T:
    try:
        return decode(data, kind)
    except msgspec.DecodeError as error:
        raise CatalogueDamaged(f"{key} is damaged") from error
