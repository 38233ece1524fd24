"""One log line per event: a name and fields, as JSON or as coloured text, through one synchronous sink.

    log.info("turn.finished", turn_id=turn_id, outcome="completed")

The event is a constant name in the manner of `noun.verb`; what varies goes into the fields. Tokens, keys, message
texts and query strings never become fields. Loguru's `enqueue` and `serialize` are not used: a line through this sink
costs 15-20 microseconds, through those 250.
"""

import hashlib
import logging
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
from loguru import logger

from yral_chat.core import clock, tracebacks
from yral_chat.core.trace_context import trace

if TYPE_CHECKING:
    from loguru import Logger, Message, Record

log: "Logger" = logger

# The id of the request, socket or job that is being served; empty outside of one.
correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")

Write = Callable[[bytes], object]
Style = Literal["json", "text"]
# How a line names the person whose request it is: by a keyed hash, plainly, or not at all.
ShownUsers = Literal["hashed", "plain", "none"]

# What these libraries say below the named level would put SQL parameters, frames or noise into the log.
_LIBRARY_LEVELS: Final = {
    "sqlalchemy": logging.WARNING,
    "websockets": logging.WARNING,
    "aiohttp": logging.INFO,
    "asyncio": logging.INFO,
    "alembic": logging.WARNING,
    "psycopg": logging.ERROR,  # it repeats what PostgreSQL says, which quotes rows
    "python_multipart": logging.CRITICAL,  # it warns of every file above 256 KiB, and of what clients do wrong
    "uvicorn": logging.WARNING,
    "urllib3": logging.WARNING,  # what the extras send with
    "opentelemetry": logging.WARNING,
    "PIL": logging.INFO,  # it tells what a picture says of its maker
}
_LOGURU_LEVELS: Final = frozenset({"TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})

# uvicorn logs the whole request target of a WebSocket, HTTP clients log URLs; a token may stand in the query.
_QUERY: Final = re.compile(r"\?[^\s\"']+")

_ARGUMENTS: Final = re.compile(r"\(.*\)")

_COLOURS: Final = {
    "TRACE": "\x1b[34m",
    "DEBUG": "\x1b[36m",
    "INFO": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;31m",
}
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"


_shown_users: ShownUsers = "hashed"
# Of this process alone, until `show_users` brings one that is kept.
_user_key: bytes = secrets.token_bytes(32)


def configure_logging(
    level: str,
    style: Style,
    *,
    write: Write | None = None,
    coloured: bool | None = None,
    with_error_texts: bool = False,
) -> None:
    """Sends every line of this process, the libraries' included, to `write` (default: standard error).

    Replaces what was configured before. `coloured` is for text only; by default it follows the terminal and NO_COLOR.
    `with_error_texts` shows what exceptions of libraries say, which may be what somebody wrote: for developers.
    uvicorn must be started with `log_config=None`, else it installs handlers of its own.
    """
    if coloured is None:
        coloured = write is None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    put = write or _to_standard_error
    render = _json_line if style == "json" else (_coloured_line if coloured else _text_line)

    def sink(message: "Message") -> None:
        caught = message.record["exception"]
        error = None if caught is None else caught.value
        text = "" if error is None else tracebacks.render(error, with_texts=with_error_texts)
        put(render(message.record, text))

    _open_sink(sink, level, with_error_texts)


_sink: Callable[["Message"], None] | None = None
_level = ""
_with_error_texts = False


def _open_sink(sink: Callable[["Message"], None], level: str, with_error_texts: bool) -> None:
    global _sink, _level, _with_error_texts
    _sink, _level, _with_error_texts = sink, level, with_error_texts
    logger.remove()
    # `diagnose` would print the values of variables, and with them message texts and keys.
    logger.add(sink, level=level, format=_nothing, colorize=False, backtrace=False, diagnose=False)
    _intercept_stdlib(level)


def change_level(level: str) -> None:
    """From here on, in all threads; nothing else about the log changes. No effect before `configure_logging`."""
    if _sink is not None:
        _open_sink(_sink, level, _with_error_texts)


def current_level() -> str:
    """The least important lines that are written; "" before `configure_logging`."""
    return _level


def show_users(how: ShownUsers, key: bytes | None = None) -> None:
    """Says how lines name people; `key` makes their hashes the same in the next process."""
    global _shown_users, _user_key
    _shown_users = how
    if key is not None:
        _user_key = hashlib.sha256(key).digest()


def shown_user(user_id: str) -> str | None:
    """What a line shows of a person, as `show_users` says."""
    if _shown_users == "hashed":
        return hashed(user_id)
    return user_id if _shown_users == "plain" else None


def hashed(identifier: str) -> str:
    """A short stable stand-in for an identifier of a person: lines can be joined, the person is not named.

    Keyed: ids of people are often known or can be guessed, and who has only the log must not be able to try them.
    """
    text = identifier.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=_user_key, digest_size=8).hexdigest()


def _to_standard_error(line: bytes) -> None:
    stream = sys.stderr.buffer
    stream.write(line)
    stream.flush()


def _nothing(_: "Record") -> str:
    """The format for Loguru: what it would make of a record is not used."""
    return ""


def _json_line(record: "Record", traceback: str) -> bytes:
    line: dict[str, Any] = {
        "time": clock.to_text(clock.now()),
        "level": record["level"].name,
        "event": record["message"],
        "correlation_id": correlation_id.get(),
    }
    if (place := trace.get()) is not None:
        line["trace_id"] = place.trace_id
    if traceback:
        line["exception"] = traceback
    for name, value in record["extra"].items():
        line.setdefault(name, value)
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except (
        TypeError
    ):  # an unpaired surrogate, a huge integer, a key that is no string: rare, and no reason to lose the line
        return orjson.dumps({name: _encodable(value) for name, value in line.items()}, default=str) + b"\n"


def _encodable(value: object) -> object:
    if value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def _text_line(record: "Record", traceback: str, colours: Mapping[str, str] | None = None) -> bytes:
    level = record["level"].name
    fields = dict(record["extra"])
    if correlation_id.get():
        fields["correlation_id"] = correlation_id.get()
    if (place := trace.get()) is not None:
        fields["trace_id"] = place.trace_id
    shown = "".join(f" {name}={_readable(value)}" for name, value in fields.items())
    time_of_day = record["time"].strftime("%H:%M:%S.%f")[:-3]
    # An event of ours is one word; a library's sentence keeps its spaces but may not forge a second line.
    event = _one_line(record["message"])
    if colours is None:
        line = f"{time_of_day} {level:<8} {event}{shown}"
    else:
        line = f"{_DIM}{time_of_day}{_RESET} {colours.get(level, '')}{level:<8} {event}{_RESET}{_DIM}{shown}{_RESET}"
    return f"{line}\n{traceback}".encode("utf-8", "backslashreplace")


def _coloured_line(record: "Record", traceback: str) -> bytes:
    return _text_line(record, traceback, _COLOURS)


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _readable(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else ascii(text)


class _StdlibHandler(logging.Handler):
    """Hands the records of the standard library's loggers to the one sink."""

    def emit(self, record: logging.LogRecord) -> None:
        message = _QUERY.sub("?[redacted]", record.getMessage())
        if record.name == "asyncio" and not _with_error_texts:
            # Behind its first line it shows tasks, their results and the texts of exceptions; in it, arguments.
            message = _ARGUMENTS.sub("(…)", message.partition("\n")[0])
        level = record.levelname if record.levelname in _LOGURU_LEVELS else record.levelno
        exception = record.exc_info if record.exc_info and record.exc_info[0] else None
        # No arguments follow the message, so its braces are safe from formatting.
        logger.bind(logger=record.name).opt(exception=exception).log(level, message)


def _intercept_stdlib(level: str) -> None:
    number = logger.level(level).no  # Loguru's numbers are those of the standard library, and TRACE is 5
    logging.basicConfig(handlers=[_StdlibHandler()], level=number, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        # Ours is the access log; uvicorn looks for handlers and saves the work when it finds none.
        logging.getLogger(name).propagate = name != "uvicorn.access"
    for name, floor in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(floor, number))
