"""The log of erasures at the target: without it a restore on another machine would bring erased people back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from yral_chat.clients.backup_store import BackupStore
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.errors import ServiceUnavailable
from yral_chat.core.failures import CannotGoOn
from yral_chat.core.logging import log
from yral_chat.core.words import counted
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog, Lines, parse, read_lines, write_lines
from yral_chat.services.backups.catalogue import erasures_key
from yral_chat.services.backups.proof import Finding
from yral_chat.services.backups.restoring import Say

NAME = "erasures.jsonl"
# It is sent every few seconds; what is not there after so long is missing.
SENT_SECONDS = 60
# What is there may be damaged or deleted, and is then written anew.
LOOK_SECONDS = 600.0
# After a look that came to nothing: what has grown is sent at every turn all the same.
AGAIN_SECONDS = 60.0


class ErasuresNotKnown(CannotGoOn):
    """A restore that would bring erased people back, as a sentence for the operator."""


Note = Callable[[int], Awaitable[None]]  # is told how many erasures there are


class Sender:
    """Sends the log of one folder whenever it has grown, and looks now and then whether it is still there."""

    def __init__(self, store: BackupStore, data_dir: Path) -> None:
        self._store = store
        self._data_dir = data_dir
        self._sent = -1
        self._due_at = 0.0  # of time.monotonic

    def forget(self) -> None:
        """The next turn looks at what is there."""
        self._due_at = 0.0

    async def send(self, database_id: str, note: Note | None = None) -> None:
        """Raises BackupStoreError, ServiceUnavailable, OSError."""
        is_due = (began := time.monotonic()) >= self._due_at
        if is_due:
            self._due_at = began + LOOK_SECONDS
        try:
            self._sent = await send(self._store, database_id, self._data_dir, -1 if is_due else self._sent, note)
        except BaseException:
            self._due_at = min(self._due_at, began + AGAIN_SECONDS)
            raise


async def send(store: BackupStore, database_id: str, data_dir: Path, sent: int = -1, note: Note | None = None) -> int:
    """Sends the log when it is not `sent` bytes long; returns its length. Raises as `Sender.send`.

    What only the target knows comes here first: a log that was lost here must not be lost there. What is damaged there
    is written anew with it. `note` is told afterwards.
    """
    data = await asyncio.to_thread(_read, data_dir / NAME)
    if len(data) == sent:
        return sent
    lines = await store.read(erasures_key(database_id)) or b""
    if await asyncio.to_thread(ErasureLog(data_dir / NAME).merge, lines):
        data = await asyncio.to_thread(_read, data_dir / NAME)
    # Not the file as it is: a line that a crash has cut off here is none, and would be taken for damage there.
    known = await asyncio.to_thread(_distinct, data)
    there = await asyncio.to_thread(read_lines, lines)
    if there.damaged:
        log.error("backup.erasures_mended", lines=there.damaged)
    if there.damaged or set(there.whole) != set(known):  # another sender may have them in another order
        await store.put(erasures_key(database_id), await asyncio.to_thread(write_lines, known))
    if note is not None:
        await note(len(known))
    return len(data)


async def fetch_first(
    store: BackupStore, database_id: str, data_dir: Path, *, noted: int = 0, told: Say | None = None
) -> None:
    """Before a restore, on a machine that may be new: adds what the target knows and this folder does not. `noted` is
    how many there have been.

    Where it cannot be known who they were, that is refused; or `told`, where the operator forces it.
    Raises BackupStoreError, ErasuresNotKnown, OSError.
    """
    await asyncio.to_thread(data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
    lines = await store.read(erasures_key(database_id)) or b""
    here = await asyncio.to_thread(ErasureLog(data_dir / NAME).read)
    if doubt := _doubt(here, await asyncio.to_thread(read_lines, lines), noted):
        if told is None:
            raise ErasuresNotKnown(
                f"{doubt}, and {data_dir / NAME} does not know whom that leaves out, so that erased people would come "
                f"back. Nothing was changed. Put the {NAME} of the machine that was lost in its place; or restore all "
                "the same with --force, as in `yral-chat restore --latest --force`."
            )
        told(f"{doubt}: erased people may come back.")
    try:
        await asyncio.to_thread(ErasureLog(data_dir / NAME).merge, lines)
    except ServiceUnavailable as error:
        raise ErasuresNotKnown(
            f"Who was erased cannot be noted in {data_dir / NAME} ({error.__cause__}). Nothing was changed."
        ) from error


async def count(store: BackupStore, database_id: str, data_dir: Path) -> int:
    """How many this folder and the target know. Raises BackupStoreError, OSError."""
    here = await asyncio.to_thread(ErasureLog(data_dir / NAME).read)
    return len({*here, *(await read(store, database_id)).whole})


async def read(store: BackupStore, database_id: str) -> Lines:
    """What the target knows. Raises BackupStoreError."""
    return await asyncio.to_thread(read_lines, await store.read(erasures_key(database_id)) or b"")


async def find_missing(store: BackupStore, database_id: str, data_dir: Path, noted: int = 0) -> list[Finding]:
    """Where the target does not know who was erased: what is damaged there; what neither it nor this folder has of
    those that were `noted`; what this folder knows alone, though there was time. Raises BackupStoreError, OSError.
    """
    log = await asyncio.to_thread(ErasureLog(data_dir / NAME).read)
    return compare(log, await read(store, database_id), noted)


def compare(log: list[Erasure], there: Lines, noted: int = 0) -> list[Finding]:
    """`find_missing`, of what was read."""
    known, settled = set(there.whole), to_text(now() - SENT_SECONDS * SECOND)
    texts = []
    if there.damaged:
        texts.append(
            f"{_damaged(there)}: a restore on another machine would bring people back. A running service writes anew "
            f"what its own {NAME} knows."
        )
    if (lost := noted - len(known.union(log))) > 0:
        texts.append(f"{_lost(lost)}: a restore would bring people back. Put a copy of it that has them there.")
    if missing := [one for one in log if one not in known and one.at < settled]:
        erased = counted(len(missing), "erasure is", "erasures are")
        texts.append(
            f"{erased} not noted at the backup, which would bring people back. A running service sends what is missing."
        )
    return [Finding("erasures", text) for text in texts]


def _doubt(log: list[Erasure], there: Lines, noted: int) -> str | None:
    """Why it cannot be known here who was erased, as the beginning of a sentence.

    Nobody can tell whom a damaged line names: only a folder that has as many as there are lines, and all that are whole
    among them, has those, too.
    """
    here, whole = set(log), set(there.whole)
    if there.damaged and not (whole <= here and len(here) >= len(whole) + there.damaged):
        return f"{_damaged(there)} at the backup"
    lost = noted - len(here | whole)
    return _lost(lost) if lost > 0 else None


def _damaged(there: Lines) -> str:
    return f"{counted(there.damaged, f'line of {NAME} is', f'lines of {NAME} are')} damaged"


def _lost(lost: int) -> str:
    return f"{counted(lost, 'erasure is', 'erasures are')} missing in {NAME} at the backup"


def _distinct(data: bytes) -> list[Erasure]:
    return list(dict.fromkeys(parse(data)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
