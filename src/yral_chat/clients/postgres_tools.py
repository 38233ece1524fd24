"""pg_dump and pg_restore: a database as a stream of bytes, and back; and a command that restores a whole server aside.

https://www.postgresql.org/docs/15/app-pgdump.html; the custom format is compressed, and read by every later version.
Passwords reach them by the environment, never by a command line.
"""

import asyncio
import os
import re
import shlex
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from yral_chat.clients.programs import NOTHING, PIPE, Program

CHUNK_BYTES: Final = 256 * 1024
MAX_ERROR_BYTES: Final = 64 * 1024
MAX_ERROR_CHARACTERS: Final = 300
END_SECONDS: Final = 10.0
# What stopping and removing a server may take.
ASIDE_SECONDS: Final = 120.0

_PREFIX: Final = re.compile(r"^pg_(?:dump|restore): (?:error: )?(?:could not execute query: )?(?:ERROR:\s+)?")


class PostgresToolError(Exception):
    """A program is not there, or said no; the text is its own, without passwords."""


class PostgresToolMissing(PostgresToolError):
    """It could not even be started."""


def find_tool(name: str) -> str:
    """The program on PATH. Raises PostgresToolMissing."""
    found = shutil.which(name)
    if found is None:
        raise PostgresToolMissing(f"{name} is not on PATH. Install PostgreSQL's client programs (postgresql-client).")
    return found


async def dump(url: str, snapshot: str) -> AsyncGenerator[bytes, None]:
    """The database at `url` as `snapshot` sees it, in pg_dump's custom format.

    Whoever stops reading ends it. Raises PostgresToolError, at the end at the latest: only without it it is a dump.
    """
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
    process = await _start("pg_dump", url, *options, stdout=True)
    assert process.stdout is not None  # noqa: S101 - it was asked for
    errors = asyncio.create_task(_errors_of(process))
    try:
        while chunk := await process.stdout.read(CHUNK_BYTES):
            yield chunk
        await _end(process, errors)
    finally:
        await _cut(process, errors)


async def restore(url: str, chunks: AsyncIterator[bytes]) -> None:
    """Brings such a dump into the empty database at `url`, all of it or nothing. Raises PostgresToolError."""
    options = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    process = await _start("pg_restore", url, *options, stdin=True)
    assert process.stdin is not None  # noqa: S101 - it was asked for
    errors = asyncio.create_task(_errors_of(process))
    try:
        with suppress(ConnectionError):  # it ended before it read all: it says why
            async for chunk in chunks:
                process.stdin.write(chunk)
                await process.stdin.drain()
            process.stdin.close()
        await _end(process, errors)
    finally:
        await _cut(process, errors)


@asynccontextmanager
async def restored_aside(command: str, url: str) -> AsyncIterator[str]:
    """The URL of the database of `url` on the server that `command` has restored and runs meanwhile.

    The command gets no arguments. Once its server takes connections it prints the folder of the socket as a line, and
    waits until its input ends; then it stops the server and removes it. Raises PostgresToolError.
    """
    try:
        process = await Program.start(*shlex.split(command), stdin=PIPE, stdout=PIPE, stderr=PIPE)
    except (OSError, ValueError) as error:
        raise PostgresToolMissing(f"BACKUP_DRILL_COMMAND cannot be run: {error}") from error
    assert process.stdin is not None  # noqa: S101 - it was asked for
    errors = asyncio.create_task(_errors_of(process))
    try:
        yield _at_socket(url, await _folder_from(process, errors))
    finally:
        process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), ASIDE_SECONDS)
        await _cut(process, errors)


async def _folder_from(process: Program, errors: "asyncio.Task[bytes]") -> str:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    async for line in process.stdout:
        if line.startswith(b"/"):
            return line.decode().strip()
    lines = [line.strip() for line in (await errors).decode("utf-8", "replace").splitlines() if line.strip()]
    # What comes behind the first error explains it, to those who know the program.
    said = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "it ended without a word")
    raise PostgresToolError(f"BACKUP_DRILL_COMMAND: {said[:MAX_ERROR_CHARACTERS]}")


def _at_socket(url: str, folder: str) -> str:
    """The same user and database, behind a socket; whoever may open it needs no password."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    return urlunsplit(("postgresql", f"{user}@" if user else "", parts.path, f"host={quote(folder)}&port=5432", ""))


async def _start(name: str, url: str, *options: str, stdin: bool = False, stdout: bool = False) -> Program:
    address, password = split_password(url)
    environment = {**os.environ, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"}
    if password is not None:
        environment["PGPASSWORD"] = password
    return await Program.start(
        find_tool(name),
        "--no-password",
        f"--dbname={address}",
        *options,
        stdin=PIPE if stdin else NOTHING,
        stdout=PIPE if stdout else NOTHING,
        stderr=PIPE,
        env=environment,
    )


def split_password(url: str) -> tuple[str, str | None]:
    """A URL as libpq takes it, without its password, and the password."""
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    options = parse_qsl(parts.query, keep_blank_values=True)
    rest = urlencode([(name, value) for name, value in options if name != "password"], quote_via=quote)
    address = urlunsplit(parts._replace(scheme="postgresql", netloc=f"{user}{at}{place}", query=rest))
    return address, dict(options).get("password", unquote(password) if colon else None)


async def _errors_of(process: Program) -> bytes:
    """Reads them all, so that the program never waits, and keeps the last."""
    assert process.stderr is not None  # noqa: S101 - it was asked for
    kept = b""
    while chunk := await process.stderr.read(CHUNK_BYTES):
        kept = (kept + chunk)[-MAX_ERROR_BYTES:]
    return kept


async def _end(process: Program, errors: "asyncio.Task[bytes]") -> None:
    text = (await errors).decode("utf-8", "replace")
    if await process.wait() != 0:
        raise PostgresToolError(_reason_in(text))


async def _cut(process: Program, errors: "asyncio.Task[bytes]") -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
    errors.cancel()
    await asyncio.gather(errors, return_exceptions=True)
    process.close()


def _reason_in(text: str) -> str:
    """The first line that is no warning, without the program's name."""
    lines = [line for line in text.splitlines() if line.strip() and "warning:" not in line]
    reason = _PREFIX.sub("", lines[0]) if lines else "it ended without a word"
    return reason[:MAX_ERROR_CHARACTERS]
