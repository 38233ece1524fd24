"""yral-chat backup: status, list, dump, drill, verify, media."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from yral_chat.cli.running import operating, stop
from yral_chat.core.config import Settings

app = typer.Typer(
    help="What there is of backups, and whether they restore. `yral-chat restore` brings one back.",
    no_args_is_help=True,
)


@app.command()
def status() -> None:
    """Show where the backup lies, how new it is, and what the running server says of it. Changes nothing."""

    def show(settings: Settings) -> Coroutine[Any, Any, list[str]]:
        from yral_chat.services.backups.kept import has_dumps

        if has_dumps(settings):
            from yral_chat.dump_commands import show_status
        else:
            from yral_chat.backup_commands import show_status
        return show_status(settings)

    _say(show)


@app.command("list")
def list_() -> None:
    """Show what can be restored: generations, the times that they cover, and snapshots; with PostgreSQL dumps."""

    def show(settings: Settings) -> Coroutine[Any, Any, list[str]]:
        from yral_chat.services.backups.kept import has_dumps

        if has_dumps(settings):
            from yral_chat.dump_commands import list_dumps as list_kept
        else:
            from yral_chat.backup_commands import list_backups as list_kept
        return list_kept(settings)

    _say(show)


@app.command()
def dump() -> None:
    """Dump a PostgreSQL database to BACKUP_URL, and delete dumps that are older than BACKUP_RETENTION_DAYS."""
    from yral_chat.dump_commands import make_dump

    _say(make_dump)


@app.command()
def drill() -> None:
    """Restore the newest state aside, look at all of it, and throw it away.

    Beside a running server it is compared with what that has. It takes room for the
    whole database: in DATA_DIR, or with PostgreSQL on the database server.
    """
    from yral_chat.proof_commands import run_drill

    _prove(run_drill)


@app.command()
def verify(
    all_: Annotated[
        bool,
        typer.Option(
            "--all", help="Also older generations, every snapshot, and the last state of every day and level."
        ),
    ] = False,
) -> None:
    """Read every object of the newest generation, see that none is missing, and restore the newest state aside.

    With PostgreSQL: read every dump. Erasures that only this machine knows are named, too. The service may run, and
    nothing is changed.
    """
    from yral_chat.proof_commands import verify

    _prove(lambda settings: verify(settings, is_all=all_))


@app.command()
def media(
    verify: Annotated[bool, typer.Option("--verify", help="Read the whole copy again, too.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="The other way: bring back what is missing.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin a new copy where there was one before.")] = False,
) -> None:
    """Copy media to MEDIA_BACKUP_URL: what is new goes there, what people have deleted goes away in time."""
    from yral_chat.media_commands import copy_media, restore_media

    if restore and (verify or new):
        stop("--restore goes alone.")
    try:
        _prove(restore_media if restore else lambda settings: copy_media(settings, is_verified=verify, is_new=new))
    except KeyboardInterrupt:
        stop("Stopped. The next run goes on.")


def _say(command: Callable[[Settings], Coroutine[Any, Any, list[str]]]) -> None:
    with operating() as settings:
        for line in asyncio.run(command(settings)):
            typer.echo(line)


def _prove(command: Callable[[Settings], Coroutine[Any, Any, bool]]) -> None:
    """The status is 1 when `command` returns that something is wrong."""
    with operating() as settings:
        if not asyncio.run(command(settings)):
            raise typer.Exit(1)
