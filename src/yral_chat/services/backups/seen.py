"""`DATA_DIR/backup-seen.json`: which objects were there when the backup was last looked at and found whole.

What lies at the target cannot say of itself that something is gone that nothing else points to: one of several
snapshots, or the newest object of a level.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.clients.litestream import LtxFile
from yral_chat.core.clock import now
from yral_chat.core.decoding import decode
from yral_chat.core.files import write_whole
from yral_chat.services.backups.histories import SNAPSHOTS, last, name
from yral_chat.services.backups.proof import Finding

NAME: Final = "backup-seen.json"


class Seen(msgspec.Struct, frozen=True):
    """`place` is the generation's. Level 0 is not in it: it goes after an hour, and its gaps show by themselves."""

    target: str
    place: str
    files: tuple[LtxFile, ...]


def load_seen(data_dir: Path, target: str, place: str) -> tuple[LtxFile, ...]:
    """Nothing where nobody has looked at this generation."""
    try:
        seen = decode((data_dir / NAME).read_bytes(), Seen)
    except (OSError, msgspec.DecodeError):
        return ()
    return seen.files if (seen.target, seen.place) == (target, place) else ()


def save_seen(data_dir: Path, target: str, place: str, files: Iterable[LtxFile]) -> None:
    """Without room for it the next look knows of the one before this."""
    compacted = tuple(file for file in files if file.level > 0)
    with suppress(OSError):
        write_whole(data_dir / NAME, msgspec.json.encode(Seen(target, place, compacted)))


def find_vanished(seen: Sequence[LtxFile], files: Sequence[LtxFile], retention_micros: int) -> Iterator[Finding]:
    """Those that Litestream has no reason yet to delete: it deletes snapshots after `retention_micros`, and of the
    compacted levels what ends before the oldest snapshot; the last of each level it keeps, so that of what was at the
    end of one, the last at least was not deleted by it.
    """
    since = now() - retention_micros
    snapshots = {file for file in (*seen, *files) if file.level == SNAPSHOTS and file.at > since}
    oldest = min(map(last, snapshots), default=0)
    there = set(map(name, files))
    ends = {file.level: last(file) for file in sorted(files, key=last)}
    lasts = {file.level: file for file in sorted(seen, key=last)}
    for file in seen:
        is_wanted = file in snapshots or (file.level < SNAPSHOTS and snapshots and last(file) >= oldest)
        is_last = file == lasts[file.level] and last(file) > ends.get(file.level, 0)
        if (is_wanted or is_last) and name(file) not in there:
            yield Finding(name(file), "It was there when the backup was last looked at, and is missing.")
