"""What every command does: it reads the settings, runs, and says in a sentence why it cannot go on."""

import asyncio
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from yral_chat.core.config import Settings
from yral_chat.core.failures import CannotGoOn


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


@contextmanager
def saying_why(settings: Settings, *more: type[Exception]) -> Iterator[None]:
    """What ends the block is said in a sentence; so is what is of the types `more`."""
    told: tuple[type[Exception], ...] = (CannotGoOn, *more)
    try:
        yield
    except told as error:
        stop(_sentence(error, settings))
    except OSError as error:
        stop(f"{error.filename or settings.data_dir}: {error.strerror or error}")


def _sentence(error: Exception, settings: Settings) -> str:
    """With what to do in it."""
    from yral_chat.db.failures import DatabaseDamaged

    if not isinstance(error, DatabaseDamaged):
        return str(error)
    command = "yral-chat restore --latest" if settings.backup_url is not None else "yral-chat restore --file COPY"
    return f"{error} and was left as it is: run `{command}`, which keeps it aside, and start again."


@contextmanager
def operating() -> Iterator[Settings]:
    """For a command that says itself what it finds: nothing is logged beside that."""
    from yral_chat.core.logging import configure_logging

    settings = load_settings()
    configure_logging("CRITICAL", "text")
    with saying_why(settings):
        yield settings


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
