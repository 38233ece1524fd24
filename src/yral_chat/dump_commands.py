"""`yral-chat backup` and `yral-chat restore` with PostgreSQL: dumps, and what the server says of its archive."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from yral_chat.backup_commands import ask_server
from yral_chat.core.clock import SECOND, from_text, now
from yral_chat.core.config import Settings
from yral_chat.core.sizes import MEBIBYTE
from yral_chat.db.archive import look_at_archive
from yral_chat.db.backends import create_database
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.progress import Bar
from yral_chat.restore_commands import as_time, refuse_file
from yral_chat.services.backups.dump_records import Dump
from yral_chat.services.backups.dumps import DumpFailed, Dumps
from yral_chat.services.backups.kept import has_dumps
from yral_chat.services.backups.proof import load_proof


async def make_dump(settings: Settings) -> list[str]:
    """Lines to print. Raises DumpFailed, DatabaseUnusable."""
    if not has_dumps(settings):
        raise DumpFailed("Dumps are for PostgreSQL. With SQLite, `yral-chat serve --litestream` backs up.")
    dumps = Dumps(settings)
    with Bar() as bar:
        dump = await dumps.make(bar.bytes)
    return [f"Dumped to {dumps.place} in {dump.seconds:.1f} s.", *_facts(dump)]


async def show_status(settings: Settings) -> list[str]:
    """Lines to print. Raises DumpFailed."""
    proof = await asyncio.to_thread(load_proof, settings.data_dir)
    proven_at = proof.proven_at if proof is not None and proof.is_of(settings.backup_url, None) else None
    lines = [
        f"server      {await ask_server(settings)}",
        f"proven      {'never' if proven_at is None else f'the state of {proven_at}'}",
        f"archive     {await asyncio.to_thread(_words_of_archive, settings.resolved_database_url)}",
    ]
    if settings.backup_url is None:
        return [*lines, "dumps       none: BACKUP_URL is not set"]
    dumps = Dumps(settings)
    own, others = await dumps.sort()
    lines.append(f"target      {dumps.place}")
    if others:
        lines.append(f"others      {len(others)} dumps of another database ({others[-1].database_id}): see BACKUP_URL")
    if not own:
        return [*lines, "dumps       none yet"]
    newest = own[-1]
    size = sum(dump.size for dump in own)
    return [
        *lines,
        f"database    {newest.database_id}",
        f"newest      {newest.at}, {(now() - from_text(newest.at)) // SECOND} s ago",
        f"oldest      {own[0].at}",
        f"dumps       {len(own)}, {size / MEBIBYTE:.1f} MiB",
    ]


async def list_dumps(settings: Settings) -> list[str]:
    """Lines to print. Raises DumpFailed."""
    own, others = await Dumps(settings).sort()
    lines = [_line(dump) for dump in own]
    lines += [f"{_line(dump)}  of another database ({dump.database_id})" for dump in others]
    return lines or ["nothing"]


def _line(dump: Dump) -> str:
    return f"{dump.at}  {dump.size / MEBIBYTE:9.1f} MiB  {dump.rows} rows"


async def restore_dump(settings: Settings, *, at: str | None, to: Path | None, is_forced: bool) -> list[str]:
    """Lines to print. Raises DumpFailed, RestoreFailed, DatabaseInUse, DatabaseUnusable."""
    dumps = Dumps(settings)
    dump = await dumps.find(None if at is None else as_time(at))
    if to is not None:
        refuse_file(to, None, is_forced=is_forced)
        with Bar() as bar:
            await dumps.save(dump, to, bar.bytes)
        return [f"{to} is for pg_restore.", *_facts(dump)]
    database = create_database(settings.resolved_database_url)
    database.lock()  # held until this process ends: nobody serves it meanwhile
    with Bar() as bar:
        faults = await dumps.restore(dump, bar.bytes, told=bar.say if is_forced else None)
    return [
        "Restored, and compared with what was dumped: every row is there.",
        *(f"  ✗ {fault.text} So it was when it was dumped." for fault in faults),
        *_facts(dump),
    ]


def _facts(dump: Dump) -> Iterator[str]:
    yield f"  state of  {dump.at}"
    yield f"  database  {dump.database_id}"
    yield f"  rows      {dump.rows}"
    yield f"  size      {dump.size / MEBIBYTE:.1f} MiB, of {dump.database_size / MEBIBYTE:.1f} MiB on the server's disk"


def _words_of_archive(url: str) -> str:
    """One clause on the archive of the write-ahead log."""
    try:
        archive = look_at_archive(url)
    except DatabaseUnusable as error:
        return f"not known. {error}"
    if not archive.is_on:
        return "off: nothing but dumps can be gone back to"
    if archive.is_failing:
        return f"FAILS: {archive.failed} attempts, see the log of the PostgreSQL server"
    if archive.last_age is None:
        return "on, and nothing was archived yet"
    return f"on, last segment {archive.last_age:.0f} s ago"
