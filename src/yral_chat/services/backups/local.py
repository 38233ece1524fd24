"""`DATA_DIR/backup.json`: which backup the database of this folder belongs to; and which folder this is."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from yral_chat.clients.litestream import state_folder
from yral_chat.core.decoding import decode
from yral_chat.core.files import write_whole
from yral_chat.db.failures import DatabaseInUse, DatabaseUnusable
from yral_chat.services.backups import restoring
from yral_chat.services.backups.starting import End, LocalState

NAME: Final = "backup.json"


def owner_of(data_dir: Path) -> str:
    """Tells this data folder from others, also from its copies: those have the text, but not the file's times.

    The number of the device is not in it, which a start of the machine may change.
    """
    path = data_dir / "backup-owner"
    with suppress(FileExistsError), path.open("x") as file:
        file.write(secrets.token_hex(16))
    at = path.stat()
    return f"{path.read_text()}-{at.st_ino}-{at.st_ctime_ns}-{socket.gethostname()}"


def load_state(data_dir: Path) -> LocalState | None:
    """None where there is none, or one that cannot be read: then nothing is taken for granted."""
    try:
        return decode((data_dir / NAME).read_bytes(), LocalState)
    except (OSError, msgspec.DecodeError):
        return None


def save_state(data_dir: Path, state: LocalState) -> None:
    write_whole(data_dir / NAME, msgspec.json.encode(state))


def put_back_state(data_dir: Path, former: LocalState | None) -> None:
    """What `load_state` has said before."""
    if former is None:
        (data_dir / NAME).unlink(missing_ok=True)
    else:
        save_state(data_dir, former)


@contextmanager
def replacing(data_dir: Path, database: Path, state: LocalState | None = None) -> Iterator[None]:
    """Around what puts another file in the place of `database`. Afterwards `state` holds, or that a hand has done it.

    What Litestream keeps beside it goes first: after a kill in between, the next start refuses what it finds.
    """
    state = state or _by_hand(load_state(data_dir), database)
    folder = state_folder(database)
    aside = folder.with_name(f"{folder.name}.old")
    restoring.remove_folder(aside)
    if folder.exists():
        folder.rename(aside)
    try:
        yield
    except (DatabaseInUse, DatabaseUnusable):  # nothing was changed
        if aside.exists():
            aside.rename(folder)
        raise
    if state is not None:
        save_state(data_dir, state)
    restoring.remove_folder(aside)


def _by_hand(state: LocalState | None, database: Path) -> LocalState | None:
    if state is None or state.generation is None:
        return state
    end = End(state.generation, restoring.last_local_txid(database) or 0)
    return msgspec.structs.replace(state, generation=None, replaces=end)
