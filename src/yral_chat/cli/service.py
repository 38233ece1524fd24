"""yral-chat serve, migrate, doctor, log-level: the service and its operator."""

import asyncio
import gc
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from yral_chat.cli.running import load_settings, operating, run, saying_why, stop
from yral_chat.core.config import Settings

if TYPE_CHECKING:
    from yral_chat.resources import Resources

HostOption = Annotated[str | None, typer.Option(help="Address to listen on (HOST).")]
LitestreamOption = Annotated[
    bool | None, typer.Option("--litestream", help="Back up to BACKUP_URL as it is written; restore where nothing is.")
]
NewBackupOption = Annotated[
    bool, typer.Option("--new", help="With --litestream: begin a new backup, and leave what is there alone.")
]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on (PORT); 0 takes a free one.")]


def serve(
    host: HostOption = None,
    port: PortOption = None,
    litestream: LitestreamOption = None,
    new: NewBackupOption = False,
) -> None:
    """Serve the API and the chat page. Ctrl-C lets running replies end, then stops."""
    gc.disable()  # a thousand modules make no garbage worth the fifth of the start that looking for it takes
    from yral_chat.core.crashes import catch_the_rest
    from yral_chat.core.logging import configure_logging
    from yral_chat.resources import Resources
    from yral_chat.serving import bind, serve

    settings = load_settings(host=host, port=port, litestream_enabled=litestream)
    if new and not settings.litestream_enabled:
        stop("--new begins a new backup: it goes with --litestream.")
    configure_logging(
        settings.log_level, settings.resolved_log_format, with_error_texts=settings.environment == "development"
    )
    catch_the_rest()
    try:
        listener, settings = bind(settings)
    except OSError as error:
        stop(f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}). Choose another with PORT=….")
    with saying_why(settings, ValueError):
        build = partial(Resources, is_new_backup=new)
        run(serve(settings, listener, lambda resources: announce(settings, resources), build))


def announce(settings: Settings, resources: "Resources") -> None:
    """What somebody who has just started it wants to know."""
    models = [f"{provider} ({', '.join(circuits)})" for provider, circuits in resources.model.circuits().items()]
    is_offline = list(resources.model.circuits()) == ["offline"]
    model = (
        "offline demo persona. For real replies set GEMINI_API_KEY, or OPENAI_BASE_URL and OPENAI_MODELS"
        if is_offline
        else ", then ".join(models)
    )
    database = settings.resolved_database_url
    where = (
        settings.data_dir.resolve() if database.startswith("sqlite") else f"PostgreSQL, files in {settings.data_dir}"
    )
    lines = [
        "",
        "  Yral AI Chat is running",
        f"  open    {settings.base_url}",
        f"  model   {model}",
        f"  data    {where}",
        *([f"  backup  {_backup(settings, resources)}"] if settings.litestream_enabled else []),
        "  stop    Ctrl-C",
        "",
    ]
    typer.echo("\n".join(lines))
    sys.stdout.flush()


def _backup(settings: Settings, resources: "Resources") -> str:
    is_first = resources.backup is not None and resources.backup.is_first
    return f"{settings.backup_url}" + (" (new: there was none at this place)" if is_first else "")


def migrate(
    without_copy: Annotated[
        bool, typer.Option("--without-copy", help="Do not copy a SQLite database first: you have a copy elsewhere.")
    ] = False,
) -> None:
    """Create or upgrade the tables. Refused while a server uses the database: it migrates by itself at its start."""
    from yral_chat.core.logging import configure_logging
    from yral_chat.db.backends import create_database
    from yral_chat.db.migrations import HEAD
    from yral_chat.db.migrations import migrate as upgrade

    settings = load_settings()
    configure_logging("WARNING", "text")
    with saying_why(settings):
        database = create_database(settings.resolved_database_url)
        database.lock()  # held for as long as this object lives
        has_changed = upgrade(settings.resolved_database_url, has_copy=not without_copy)
    typer.echo(f"Tables brought to revision {HEAD}." if has_changed else f"Tables are at revision {HEAD} already.")


def doctor() -> None:
    """Check settings, database, SQLite, model, storage and disk; say what to do about each finding."""
    from yral_chat.doctor import examine

    with operating() as settings:
        findings = examine(settings)
    for finding in findings:
        typer.echo(finding.render())
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)


def log_level(
    level: Annotated[
        str | None, typer.Argument(help="TRACE, DEBUG, INFO, WARNING, ERROR, or RESET for that of the settings.")
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="Only for so long: 90s, 10m, 2h. Without it until the next change.")
    ] = None,
) -> None:
    """Show or change the level of the running server's log. Needs ADMIN_API_KEY."""
    from yral_chat.log_commands import ask_log_level

    with operating() as settings:
        typer.echo(asyncio.run(ask_log_level(settings, level, for_)))
