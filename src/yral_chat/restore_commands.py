"""`yral-chat restore`: a whole database out of the backup, into its place or into a file; or from before an upgrade."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from yral_chat.clients.litestream import LitestreamError, wait_for_orphan
from yral_chat.core.clock import SECOND, from_text, now, to_text
from yral_chat.core.config import Settings
from yral_chat.db.backends import create_database
from yral_chat.db.migrations import HEAD
from yral_chat.db.urls import database_path
from yral_chat.db.verification import UNASKED
from yral_chat.progress import Bar
from yral_chat.services.backups.before_upgrade import go_back
from yral_chat.services.backups.restoring import RestoreFailed
from yral_chat.services.backups.whole import Outcome, Restores, put_in_place

# What SQLite keeps beside a database: https://www.sqlite.org/tempfiles.html
COMPANIONS: Final = ("-wal", "-shm", "-journal")
# By so much the clock of whoever names a time may be before ours.
AHEAD: Final = 60 * SECOND


def as_time(text: str) -> str:
    """RFC 3339 as Litestream wants it, of a time that has been. Raises RestoreFailed."""
    try:
        at = from_text(text)
        written = to_text(at)
    except (ValueError, OverflowError) as error:
        raise RestoreFailed(f"{text} is not a time: write it as 2026-11-27T10:00:00Z, or with an offset.") from error
    if at > now() + AHEAD:
        raise RestoreFailed("That time is still to come. For the newest state say --latest.")
    return written


async def restore(settings: Settings, *, at: str | None, to: Path | None, is_forced: bool) -> list[str]:
    """Lines to print. Raises RestoreFailed, DatabaseInUse, DatabaseUnusable."""
    backups = Restores(settings)
    at = None if at is None else as_time(at)
    if to is not None:
        refuse_file(to, database_path(settings.resolved_database_url), is_forced=is_forced)
        with Bar() as bar:
            return [*_lines(await backups.restore_to(to, at, bar.bytes, bar.say, is_forced=is_forced))]
    await _take_database(settings)
    with Bar() as bar:
        outcome = await backups.restore_in_place(at, bar.bytes, bar.say, is_forced=is_forced)
    return [*_lines(outcome), "Start the service: it begins a new generation of the backup."]


def restore_before_upgrade(settings: Settings, *, is_forced: bool) -> list[str]:
    """Lines to print. Raises RestoreFailed, DatabaseInUse, DatabaseUnusable."""
    asyncio.run(_take_database(settings))
    back = go_back(settings, is_forced=is_forced)
    return [
        f"Went back to {back.copy.path.name}, copied at {to_text(back.copy.made_at)}.",
        f"  revision      {back.revision} of the tables",
        f"  state of      {back.contents.newest_text}",
        f"  conversations {back.contents.conversations}",
        f"  messages      {back.contents.messages}",
        *([f"  before        kept as {back.kept}"] if back.kept is not None else []),
        f"Start the version that you came from: this one would upgrade to {HEAD} again.",
    ]


def put_back(settings: Settings, file: Path, *, is_forced: bool) -> list[str]:
    """Lines to print. Raises RestoreFailed, DatabaseInUse, DatabaseUnusable."""
    asyncio.run(_take_database(settings))
    contents, kept = put_in_place(settings, file, is_forced=is_forced)
    return [
        f"{file} is the database now.",
        f"  state of      {contents.newest_text}",
        f"  conversations {contents.conversations}",
        f"  messages      {contents.messages}",
        *([f"  before        kept as {kept}"] if kept is not None else []),
    ]


async def _take_database(settings: Settings) -> None:
    """Until this process ends nobody serves it, nor has a Litestream it open that a killed service has left.

    Raises RestoreFailed, DatabaseInUse.
    """
    create_database(settings.resolved_database_url).lock()
    try:
        await wait_for_orphan(settings.data_dir)
    except LitestreamError as error:
        raise RestoreFailed(f"{error}. Nothing was changed.") from error


def refuse_file(to: Path, database: Path | None, *, is_forced: bool) -> None:
    """Raises RestoreFailed."""
    its_files = () if database is None else (f"{database.resolve()}{suffix}" for suffix in ("", *COMPANIONS))
    if str(to.resolve()) in its_files:
        raise RestoreFailed(f"{to} is the database: leave --to away to restore into its place.")
    if to.exists() and not to.is_file():
        raise RestoreFailed(f"{to} is not a file.")
    if any(Path(f"{to}{suffix}").exists() for suffix in COMPANIONS):
        raise RestoreFailed(f"{to} is a database that somebody has open. Choose another file.")
    if to.exists() and to.stat().st_size and not is_forced:
        raise RestoreFailed(f"{to} is there already. Choose another file, or say --force to write over it.")


def _lines(outcome: Outcome) -> Iterator[str]:
    contents = outcome.contents
    found, faults = outcome.found, outcome.found.faults
    checked = "checked in part" if found.is_partial else "checked"
    checked += ": sound" if not faults else f": {len(faults)} of the checks found something"
    yield f"Restored {outcome.path} in {outcome.duration_ms / 1000:.1f} s, {checked}."
    yield from (f"  ✗ {fault.sentence} Not so in {fault.count} places: {fault.example}" for fault in faults)
    yield f"  state of      {contents.newest_text} (transaction {outcome.txid} of generation {outcome.generation.id})"
    yield f"  conversations {contents.conversations}"
    yield f"  messages      {contents.messages}"
    if found.is_partial:
        yield f"  revision      {found.revision} of the tables, of another version: {UNASKED}"
    if outcome.kept is not None:
        yield f"  before        kept as {outcome.kept}"
