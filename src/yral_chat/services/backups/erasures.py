"""The log of erasures at the target: without it a restore on another machine would bring erased people back."""

import asyncio
from pathlib import Path

from yral_chat.clients.backup_store import BackupStore
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.errors import ServiceUnavailable
from yral_chat.core.failures import CannotGoOn
from yral_chat.core.words import counted
from yral_chat.services.accounts.erasure_log import Erasure, ErasureLog, parse
from yral_chat.services.backups.catalogue import erasures_key
from yral_chat.services.backups.proof import Finding

NAME = "erasures.jsonl"
# It is sent every few seconds; what is not there after so long is missing.
SENT_SECONDS = 60


class ErasuresNotKnown(CannotGoOn):
    """A restore that would bring erased people back, as a sentence for the operator."""


async def send(store: BackupStore, database_id: str, data_dir: Path, sent: int) -> int:
    """Sends the log when it is not `sent` bytes long; returns its length. Raises BackupStoreError.

    What only the target knows comes here first: a log that was lost here must not be lost there.
    """
    data = await asyncio.to_thread(_read, data_dir / NAME)
    if len(data) != sent and await fetch(store, database_id, data_dir):
        data = await asyncio.to_thread(_read, data_dir / NAME)
    if data and len(data) != sent:
        await store.put(erasures_key(database_id), data)
    return len(data)


async def fetch(store: BackupStore, database_id: str, data_dir: Path) -> int:
    """Adds what the target knows and this folder does not; returns how many. Raises BackupStoreError."""
    lines = await store.read(erasures_key(database_id))
    if lines is None:
        return 0
    return await asyncio.to_thread(ErasureLog(data_dir / NAME).merge, lines)


async def fetch_first(store: BackupStore, database_id: str, data_dir: Path) -> None:
    """Before a restore, on a machine that may be new. Raises BackupStoreError, ErasuresNotKnown, OSError."""
    await asyncio.to_thread(data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
    try:
        await fetch(store, database_id, data_dir)
    except ServiceUnavailable as error:
        raise ErasuresNotKnown(
            f"Who was erased cannot be noted in {data_dir / NAME} ({error.__cause__}). Nothing was changed."
        ) from error


async def read(store: BackupStore, database_id: str) -> list[Erasure]:
    """What the target knows. Raises BackupStoreError."""
    lines = await store.read(erasures_key(database_id))
    return [] if lines is None else await asyncio.to_thread(parse, lines)


async def find_missing(store: BackupStore, database_id: str, data_dir: Path) -> list[Finding]:
    """What this folder knows and the target does not, though there was time. Raises BackupStoreError, OSError."""
    log = await asyncio.to_thread(ErasureLog(data_dir / NAME).read)
    return compare(log, await read(store, database_id))


def compare(log: list[Erasure], there: list[Erasure]) -> list[Finding]:
    """`find_missing`, of what was read."""
    known, settled = set(there), to_text(now() - SENT_SECONDS * SECOND)
    if not (missing := [one for one in log if one not in known and one.at < settled]):
        return []
    erased = counted(len(missing), "erasure is", "erasures are")
    text = f"{erased} not noted at the backup, which would bring people back. A running service sends what is missing."
    return [Finding("erasures", text)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
