"""yral-chat: serve, migrate, token, chat, doctor, jobs, log-level."""

import asyncio
import gc
import re
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from yral_chat.core.config import Settings

if TYPE_CHECKING:
    from yral_chat.resources import Resources

app = typer.Typer(
    help="Yral AI Chat: conversations with AI personas.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they show source code to people who want to know what to do
)

jobs = typer.Typer(help="Background jobs: what waits, and what was tried too often.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

HostOption = Annotated[str | None, typer.Option(help="Address to listen on (HOST).")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on (PORT); 0 takes a free one.")]


def load_settings(**changes: object) -> Settings:
    """The settings, or a clear message and exit status 2."""
    try:
        return Settings(**{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]).upper()
            text = problem["msg"].removeprefix("Value error, ")
            typer.echo(f"{name}: {text}" if name else text, err=True)
        raise typer.Exit(2) from None
    except SettingsError as error:  # a value that is not even JSON where it has to be
        found = re.search(r'field "(\w+)"', str(error))
        typer.echo(f"{found[1].upper() if found else 'settings'}: not valid JSON (docs/configuration.md)", err=True)
        raise typer.Exit(2) from None
    except UnicodeDecodeError:
        typer.echo("The file .env cannot be read: it is not UTF-8. Save it as UTF-8 text.", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"The file .env cannot be read: {error.strerror}.", err=True)
        raise typer.Exit(2) from None


def stop(message: str) -> NoReturn:
    """Says why, on standard error, and ends with status 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


@app.command()
def serve(host: HostOption = None, port: PortOption = None) -> None:
    """Serve the API and the chat page. Ctrl-C lets running replies end, then stops."""
    gc.disable()  # a thousand modules make no garbage worth the fifth of the start that looking for it takes
    from yral_chat.core.crashes import catch_the_rest
    from yral_chat.core.logging import configure_logging
    from yral_chat.db.database import DatabaseInUse, DatabaseUnusable
    from yral_chat.serving import bind, serve

    settings = load_settings(host=host, port=port)
    configure_logging(
        settings.log_level, settings.resolved_log_format, with_error_texts=settings.environment == "development"
    )
    catch_the_rest()
    try:
        listener, settings = bind(settings)
    except OSError as error:
        stop(f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}). Choose another with PORT=….")
    try:
        run(serve(settings, listener, lambda resources: announce(settings, resources)))
    except (DatabaseInUse, DatabaseUnusable, ValueError) as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or settings.data_dir}: {error.strerror or error}")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


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
        "  stop    Ctrl-C",
        "",
    ]
    typer.echo("\n".join(lines))
    sys.stdout.flush()


@app.command()
def migrate() -> None:
    """Create or upgrade the tables. Refused while a server uses the database: it migrates by itself at its start."""
    from yral_chat.core.logging import configure_logging
    from yral_chat.db.backends import create_database
    from yral_chat.db.database import DatabaseInUse, DatabaseUnusable
    from yral_chat.db.migrations import HEAD
    from yral_chat.db.migrations import migrate as upgrade

    settings = load_settings()
    configure_logging("WARNING", "text")
    try:
        database = create_database(settings.resolved_database_url)
        database.lock()  # held for as long as this object lives
        has_changed = upgrade(settings.resolved_database_url)
    except (DatabaseInUse, DatabaseUnusable) as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or settings.data_dir}: {error.strerror or error}")
    typer.echo(f"Tables brought to revision {HEAD}." if has_changed else f"Tables are at revision {HEAD} already.")


@app.command()
def token(
    user_id: Annotated[str, typer.Argument(help="Whose token: any name.")] = "me",
    ttl_seconds: Annotated[int, typer.Option(min=1, max=86400, help="How long it is good.")] = 3600,
    anonymous: Annotated[bool, typer.Option(help="Mark the user as anonymous.")] = False,
) -> None:
    """Print a token of the development issuer (development and test only)."""
    from yral_chat.clients.identity import MAX_SUBJECT_CHARACTERS, issue_dev_token, load_dev_secret

    settings = load_settings()
    if not 1 <= len(user_id.strip()) <= MAX_SUBJECT_CHARACTERS:
        stop(f"A user id has 1 to {MAX_SUBJECT_CHARACTERS} characters.")
    try:
        secret = load_dev_secret(settings)
    except ValueError as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or settings.data_dir}: {error.strerror or error}")
    if secret is None:
        stop(f"In {settings.environment} tokens come from AUTH_ISSUERS; this command is for development and test.")
    typer.echo(issue_dev_token(secret, settings.auth_dev_issuer, user_id, ttl_seconds, anonymous)[0])


@app.command()
def chat(
    persona: Annotated[str | None, typer.Argument(help="Name or id of a persona; asked for when absent.")] = None,
    url: Annotated[str | None, typer.Option(help="A running server; by default the configured address.")] = None,
    user_id: Annotated[str, typer.Option("--user", help="Who talks.")] = "me",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Say this, print the reply, end.")] = None,
    given_token: Annotated[
        str | None, typer.Option("--token", envvar="YRAL_CHAT_TOKEN", help="A token to use.")
    ] = None,
) -> None:
    """Talk to a persona in the terminal: with a running server, or without one by itself."""
    from yral_chat.core.logging import configure_logging
    from yral_chat.terminal import ChatFailed, talk

    settings = load_settings()
    configure_logging("CRITICAL", "text")  # the conversation says what goes wrong
    try:
        run(talk(settings, persona=persona, url=url, user_id=user_id, message=message, token=given_token))
    except ChatFailed as error:
        stop(str(error))
    except KeyboardInterrupt:
        typer.echo()


@app.command()
def doctor() -> None:
    """Check settings, database, SQLite, model, storage and disk; say what to do about each finding."""
    from yral_chat.core.logging import configure_logging
    from yral_chat.doctor import examine

    settings = load_settings()
    configure_logging("CRITICAL", "text")  # the findings say what is wrong
    findings = examine(settings)
    for finding in findings:
        typer.echo(finding.render())
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)


@app.command("log-level")
def log_level(
    level: Annotated[
        str | None, typer.Argument(help="TRACE, DEBUG, INFO, WARNING, ERROR, or RESET for that of the settings.")
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="Only for so long: 90s, 10m, 2h. Without it until the next change.")
    ] = None,
) -> None:
    """Show or change the level of the running server's log. Needs ADMIN_API_KEY."""
    from yral_chat.core.logging import configure_logging
    from yral_chat.log_commands import LogCommandFailed, ask_log_level

    settings = load_settings()
    configure_logging("CRITICAL", "text")
    try:
        typer.echo(asyncio.run(ask_log_level(settings, level, for_)))
    except LogCommandFailed as error:
        stop(str(error))


@jobs.command("list")
def list_jobs(
    dead: Annotated[bool, typer.Option("--dead", help="Only those that were tried too often.")] = False,
) -> None:
    """Show the oldest jobs. Changes nothing, and may run beside a server."""
    from yral_chat.core.logging import configure_logging
    from yral_chat.job_commands import DatabaseUnusable
    from yral_chat.job_commands import list_jobs as lines

    settings = load_settings()
    configure_logging("CRITICAL", "text")
    try:
        for line in lines(settings, is_dead=dead):
            typer.echo(line)
    except DatabaseUnusable as error:
        stop(str(error))


@jobs.command("retry")
def retry_jobs(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="One dead job.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Let dead jobs begin anew: through the running server, or without one at its next start."""
    if (job_id is None) != all_:
        stop("Say which: yral-chat jobs retry ID, or --all.")
    count = _change_jobs("retry", job_id)
    if job_id is not None and not count:
        stop(f"There is no dead job {job_id}.")
    typer.echo(f"{count} to be done again.")


@jobs.command("purge")
def purge_jobs(
    dead: Annotated[bool, typer.Option("--dead", help="Required: only dead ones can be purged.")] = False,
) -> None:
    """Forget dead jobs."""
    if not dead:
        stop("Say --dead: what waits is never thrown away.")
    typer.echo(f"{_change_jobs('purge', None)} forgotten.")


def _change_jobs(change: Literal["retry", "purge"], job_id: str | None) -> int:
    from yral_chat.core.logging import configure_logging
    from yral_chat.job_commands import DatabaseUnusable, JobCommandFailed, change_jobs

    settings = load_settings()
    configure_logging("CRITICAL", "text")
    try:
        return asyncio.run(change_jobs(settings, change, job_id))
    except (DatabaseUnusable, JobCommandFailed) as error:
        stop(str(error))
    except OSError as error:
        stop(f"{error.filename or settings.data_dir}: {error.strerror or error}")


if __name__ == "__main__":
    app()
