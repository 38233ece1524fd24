"""`yral-chat restore --before-upgrade`: back to the copy from before the tables were upgraded (docs/decisions/0019)."""

from pathlib import Path

import msgspec

from yral_chat.core.config import Settings
from yral_chat.db import copies
from yral_chat.db.contents import Contents, look_at_contents
from yral_chat.db.copies import Copy
from yral_chat.db.inspection import inspect_database
from yral_chat.db.urls import backend_of, database_path, file_url
from yral_chat.services.backups.local import replacing
from yral_chat.services.backups.restoring import RestoreFailed
from yral_chat.services.backups.whole import refuse_newer


class WentBack(msgspec.Struct, frozen=True):
    """What is the database now, and where the one is that was."""

    path: Path
    copy: Copy
    revision: str
    contents: Contents
    kept: Path | None


def go_back(settings: Settings, *, is_forced: bool) -> WentBack:
    """The caller holds the serve lock. Refuses when the database has something newer, unless `is_forced`.

    Raises RestoreFailed, DatabaseUnusable; then nothing was changed.
    """
    url = settings.resolved_database_url
    if backend_of(url) != "sqlite":
        raise RestoreFailed("Copies from before an upgrade are made of SQLite; of PostgreSQL restore your own.")
    path = database_path(url)
    found = copies.list_copies(path)
    if not found:
        raise RestoreFailed(f"Beside {path} there is no copy from before an upgrade.")
    copy = found[-1]
    state = inspect_database(file_url(copy.path))
    if state.damage or state.revision is None:
        damage = (state.damage or "it has no tables").splitlines()[-1]
        raise RestoreFailed(f"{copy.path} is damaged ({damage}); nothing was changed.")
    contents = look_at_contents(copy.path)
    if not is_forced:
        refuse_newer(path, contents)
    with replacing(settings.data_dir, path):
        kept = copies.put_back(copy.path, path)
    return WentBack(path, copy, state.revision, contents, kept)
