"""yral-chat restore."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from yral_chat.cli.running import operating, run, stop
from yral_chat.core.config import Settings


def restore(
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="The state of this time: 2026-11-27T10:00:00Z, or an offset.")
    ] = None,
    latest: Annotated[bool, typer.Option("--latest", help="The newest state of the backup.")] = False,
    file: Annotated[
        Path | None, typer.Option(help="A SQLite file: one that a restore has kept aside, or a copy of your own.")
    ] = None,
    before_upgrade: Annotated[
        bool, typer.Option("--before-upgrade", help="SQLite: the copy from before an upgrade; no backup is needed.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option(help="Into this new file, and nothing else (PostgreSQL: a dump for pg_restore).")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also over a newer database, which is kept aside; over the file of --to; a part of another database; "
            "where it is not known any more who was erased.",
        ),
    ] = False,
    conversation: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this conversation, into the database as it is now.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this person; with --conversation their side of it.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(metavar="NAME", help="PostgreSQL, for a part: from this database on the same server.")
    ] = None,
) -> None:
    """Bring the whole database back, or a part of it. Say of which state.

    The whole: stop the service first, unless you say --to. The database that is
    there is kept aside. With PostgreSQL an empty database is filled.

    A part, by --conversation or --user: the service goes on, what is there stays,
    and nobody else is touched.

    docs/operations/restore.md is the runbook.
    """
    from yral_chat.restore_part_commands import Copy, Wanted, restore_part

    is_part = conversation is not None or user is not None
    if (at is not None) + latest + before_upgrade + (file is not None) + (is_part and database is not None) != 1:
        stop("Say which state: --latest, --at TIME, --before-upgrade, or --file FILE.")
    if to is not None and is_part:
        stop("--to takes a whole database: a part goes into the one that is in use. Leave --to away.")
    if to is not None and (before_upgrade or file is not None):
        stop("--to goes with --latest or --at.")
    if is_part and before_upgrade:
        stop("--conversation and --user go with --latest, --at, --file or --database.")
    if database is not None and not is_part:
        stop("--database goes with --conversation or --user.")
    with operating() as settings:
        _refuse_file(settings, file)
        if is_part:
            copy = None if at is not None or latest else Copy(file, database)
            run(restore_part(settings, copy, at, Wanted(conversation, user, force), typer.echo))
            return
        for line in _restore_whole(settings, at, file, to, is_forced=force, is_before_upgrade=before_upgrade):
            typer.echo(line)


def _refuse_file(settings: Settings, file: Path | None) -> None:
    from yral_chat.services.backups.kept import has_dumps

    if file is not None and has_dumps(settings):
        stop("A file is a copy of SQLite. A dump of PostgreSQL is for pg_restore (docs/operations/postgres.md).")


def _restore_whole(
    settings: Settings, at: str | None, file: Path | None, to: Path | None, *, is_forced: bool, is_before_upgrade: bool
) -> list[str]:
    """Lines to print."""
    from yral_chat.dump_commands import restore_dump
    from yral_chat.restore_commands import put_back, restore, restore_before_upgrade
    from yral_chat.services.backups.kept import has_dumps

    if file is not None:
        return put_back(settings, file, is_forced=is_forced)
    if is_before_upgrade:
        return restore_before_upgrade(settings, is_forced=is_forced)
    bring = restore_dump if has_dumps(settings) else restore
    return asyncio.run(bring(settings, at=at, to=to, is_forced=is_forced))
