"""`yral-chat backup status | list`: what lies at the target, read from there; no server need run."""

from collections.abc import Iterator
from contextlib import suppress

from yral_chat.clients.chat_api import ChatApi, ChatApiError
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.sizes import MEBIBYTE
from yral_chat.services.backups.catalogue import missing_text
from yral_chat.services.backups.kept import Backups, Kept
from yral_chat.services.backups.restoring import RestoreFailed

SNAPSHOT_LEVEL = 9


async def show_status(settings: Settings) -> list[str]:
    """Lines to print. Raises RestoreFailed."""
    backups = Backups(settings)
    kept = await backups.list()
    lines = [f"target      {backups.name}", *(f"✗           {found.text}" for found in await backups.find_damage())]
    known = [one for one in kept if one.files or one.generation.has_arrived]
    if not known:
        return [*lines, "backup      none yet"]
    present = known[-1]
    if not present.files:
        raise RestoreFailed(missing_text(backups.name, present.generation))
    oldest = min(one.oldest for one in known if one.files and one.database_id == present.database_id)
    lines += [
        f"database    {present.database_id}",
        f"generation  {present.generation.id} ({present.generation.reason}, since {present.generation.begun_at})",
        f"newest      {to_text(present.newest)}, {(now() - present.newest) // SECOND} s ago",
        f"oldest      {to_text(oldest)}",
        f"size        {present.bytes / MEBIBYTE:.1f} MiB in {len(present.files)} objects",
    ]
    if kept[-1] is not present:
        lines += [f"next        generation {kept[-1].generation.id}, of which nothing has arrived yet"]
    return [*lines, f"server      {await ask_server(settings)}"]


async def list_backups(settings: Settings) -> list[str]:
    """Lines to print: what can be restored, and what is gone. Raises RestoreFailed."""
    kept = [one for one in await Backups(settings).list() if one.files or one.generation.has_arrived]
    return [line for one in kept for line in _lines(one)] or ["nothing"]


def _lines(kept: Kept) -> Iterator[str]:
    generation = kept.generation
    yield f"{generation.id}  database {kept.database_id}  ({generation.reason})"
    if not kept.files:
        yield "  nothing of it is there now"
        return
    yield f"  from {to_text(kept.oldest)} to {to_text(kept.newest)}, {kept.bytes / MEBIBYTE:.1f} MiB"
    fine = [file.at for file in kept.files if file.level == 0]
    if fine:
        yield f"  to the second since {to_text(min(fine))}"
    snapshots = [file for file in kept.files if file.level == SNAPSHOT_LEVEL]
    for snapshot in snapshots:
        yield f"  snapshot {to_text(snapshot.at)}, {snapshot.size / MEBIBYTE:.1f} MiB"


async def ask_server(settings: Settings) -> str:
    """What the running one says of its backup."""
    from yral_chat.serving import find_server  # lazily: it brings the whole service with it

    with suppress(ChatApiError):
        async with ChatApi(find_server(settings)) as api:
            found = (await api.health())["services"]["backup"]
            return f"{found['status']}: {found['error']}" if found["error"] else str(found["status"])
    return "does not run"
