"""What the copy holds, written down beside it: every file with its size and SHA-256, in the order of keys.

    manifest.json            whose copy it is, and the list of segments
    manifest/<name>.jsonl    a segment: some hundred lines, one per file; named by what is in it, never changed
    objects/<key>            the files themselves
    doing.json               keys that were being copied: of a run that was killed, they may be there and in no segment

A run reads one segment at a time and writes those anew in which something has changed, so that memory does not grow
with the number of files, and what one run has written another can go on with.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

import msgspec

from yral_chat.clients.backup_store import BackupStore
from yral_chat.core.clock import now, to_text
from yral_chat.core.decoding import decode
from yral_chat.core.objects import Time
from yral_chat.services.backups.media.failures import MediaBackupFailed
from yral_chat.services.media.service import copy_key

INDEX: Final = "manifest.json"
DOING: Final = "doing.json"
SEGMENTS: Final = "manifest"
OBJECTS: Final = "objects"
# Of one segment. An entry has less than 1 KiB (keys have some 250 characters at most), and BackupStore reads 4 MiB.
MOST_ENTRIES: Final = 1000


class Copy(msgspec.Struct, frozen=True):
    """One object: its bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file, with the small copy that images have. `owner` only where the key does not begin with it."""

    key: str
    file: Copy
    small: Copy | None = None
    owner: str | None = None
    gone_at: Time | None = None  # since when the database does not have it any more

    @property
    def objects(self) -> tuple[tuple[str, Copy], ...]:
        """(storage key, what it has to be) of each."""
        own = (self.key, self.file)
        return (own,) if self.small is None else (own, (copy_key(self.key), self.small))

    @property
    def bytes(self) -> int:
        return sum(copy.size for _, copy in self.objects)


_ENTRIES: Final = msgspec.json.Decoder(Entry)


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Entries from the key `first` on, up to the next segment's. What stands before `first` in it does not count."""

    first: str
    name: str

    @property
    def key(self) -> str:
        return f"{SEGMENTS}/{self.name}.jsonl"


class Index(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`manifest.json`. `completed_at`: the end of the last run that came to one.

    Of files that have left, it alone knows. So a flipped bit must not make it say something else: no field may be lost
    for its name, and `sha256` is that of the JSON of all others, where those with their default are left out.
    """

    database_id: str
    segments: tuple[Segment, ...] = ()
    completed_at: Time | None = None
    files: int = 0
    bytes: int = 0
    sha256: str = ""

    def sealed(self) -> "Index":
        """With its hash."""
        data = msgspec.json.encode(msgspec.structs.replace(self, sha256=""))
        return msgspec.structs.replace(self, sha256=hashlib.sha256(data).hexdigest())


def object_key(key: str) -> str:
    return f"{OBJECTS}/{key}"


def every_object(keys: Iterable[str]) -> Iterator[str]:
    """What may be there of files of which only the keys are known."""
    for key in keys:
        yield from (object_key(key), object_key(copy_key(key)))


class SegmentDamaged(Exception):
    """It is not what its name says, or not there."""


class Manifest:
    """Reads and writes these objects. Raises BackupStoreError, and MediaBackupFailed for what is damaged."""

    def __init__(self, store: BackupStore) -> None:
        self._store = store

    async def find_index(self) -> Index | None:
        stored = await self._store.get(INDEX)
        if stored is None:
            return None
        refusal = MediaBackupFailed(
            f"{INDEX} in {self._store.target.name} is damaged. Move it away: `--new` copies everything anew."
        )
        try:
            index = decode(stored.data, Index)
        except msgspec.DecodeError as error:
            raise refusal from error
        if index != index.sealed():
            raise refusal
        return index

    async def save_index(self, index: Index) -> None:
        await self._store.put(INDEX, msgspec.json.encode(index.sealed()))

    async def load(self, segment: Segment) -> list[Entry]:
        """In the order of keys. Raises SegmentDamaged."""
        stored = await self._store.get(segment.key)
        if stored is None or _name_of(stored.data) != segment.name:
            raise SegmentDamaged
        return [entry for entry in _ENTRIES.decode_lines(stored.data) if entry.key >= segment.first]

    async def save(self, entries: list[Entry]) -> list[Segment]:
        """Writes `entries`, at least one and in the order of keys, into as few segments of equal size as they take."""
        pieces = -(-len(entries) // MOST_ENTRIES)
        bounds = [len(entries) * number // pieces for number in range(pieces + 1)]
        return [await self._save(entries[start:end]) for start, end in pairwise(bounds)]

    async def _save(self, entries: list[Entry]) -> Segment:
        data = msgspec.json.Encoder().encode_lines(entries)
        segment = Segment(entries[0].key, _name_of(data))
        await self._store.put(segment.key, data)
        return segment

    async def sweep(self, index: Index) -> None:
        """Deletes segments that `index` does not name."""
        named = {segment.key for segment in index.segments}
        for key in [key async for key, _, _ in self._store.list(SEGMENTS) if key not in named]:
            await self._store.delete(key)

    async def load_doing(self) -> frozenset[str]:
        """The keys that a run was copying when it was killed."""
        stored = await self._store.get(DOING)
        try:
            return frozenset() if stored is None else decode(stored.data, frozenset[str])
        except msgspec.DecodeError as error:
            raise MediaBackupFailed(
                f"{DOING} in {self._store.target.name} is damaged. Delete it: the next run copies again what it named. "
                f"What --verify finds foreign under {OBJECTS}/ after that is of files that are gone: delete that, too."
            ) from error

    async def save_doing(self, keys: frozenset[str]) -> None:
        if keys:
            await self._store.put(DOING, msgspec.json.encode(sorted(keys)))
        else:
            await self._store.delete(DOING)


def present() -> str:
    return to_text(now())


def _name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
