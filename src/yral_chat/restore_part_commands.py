"""`yral-chat restore --conversation` and `--user`: out of the backup, or a copy, into the database that lives.

Through the running server, which alone writes it, or without one here, while nobody else can start.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from yral_chat.clients.admin_api import AdminApiError, stream_admin_api
from yral_chat.clients.storage import StorageService
from yral_chat.core.clock import to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.failures import CannotGoOn
from yral_chat.core.ids import new_id
from yral_chat.core.words import counted
from yral_chat.db.backends import beside, create_database
from yral_chat.db.failures import DatabaseInUse, DatabaseUnusable
from yral_chat.db.inspection import inspect_database, is_served_at
from yral_chat.db.migrations import HEAD, migrate
from yral_chat.db.urls import file_url
from yral_chat.db.viewing import viewing
from yral_chat.progress import Bar
from yral_chat.realtime.hub import Hub
from yral_chat.restore_commands import as_time
from yral_chat.services.backups.alone import only_one
from yral_chat.services.backups.dumps import Dumps
from yral_chat.services.backups.kept import has_dumps
from yral_chat.services.backups.restoring import Say
from yral_chat.services.backups.scratch_databases import scratch, scratch_name
from yral_chat.services.backups.whole import Restores
from yral_chat.services.restores import PutBack, RestoreService, Wanted
from yral_chat.services.restores.records import Found
from yral_chat.services.restores.surveying import survey

PATH = "/api/v1/admin/restores"
NEEDS_KEY = "A server uses the database, and takes orders only with ADMIN_API_KEY: set it for both."

OnDone = Callable[[int], None]


class RestoreCommandFailed(CannotGoOn):
    """A sentence for the operator."""


class Copy(msgspec.Struct, frozen=True):
    """A copy of the database: a SQLite file, or a database of this name on the server of DATABASE_URL."""

    file: Path | None = None
    database: str | None = None

    def url(self, settings: Settings) -> str:
        """Raises DatabaseUnusable."""
        if self.database is not None:
            return beside(settings.resolved_database_url, self.database)
        assert self.file is not None  # noqa: S101 - one of the two
        return file_url(self.file)


def check_database(settings: Settings) -> None:
    """There has to be one, and the list of who was erased. Raises RestoreCommandFailed, DatabaseUnusable."""
    with viewing(settings.resolved_database_url):
        pass
    if not settings.data_dir.is_dir():
        raise RestoreCommandFailed(f"There is no folder {settings.data_dir} (DATA_DIR): it tells who was erased.")


def check_access(settings: Settings) -> None:
    """Whether what comes back can be put back, before it comes back. Raises RestoreCommandFailed."""
    if settings.admin_api_key is None and is_served_at(settings.resolved_database_url):
        raise RestoreCommandFailed(NEEDS_KEY)


def check_copy(settings: Settings, copy: Copy) -> None:
    """Reads all of a file once. Raises RestoreCommandFailed, DatabaseUnusable."""
    found = inspect_database(copy.url(settings))
    if not found.is_there:
        raise RestoreCommandFailed(f"There is no file {copy.file}.")
    if not found.is_open_to_view:
        raise RestoreCommandFailed(f"{copy.file} has a write-ahead log: a copy is one file. Restore it anew.")
    if found.damage:
        raise RestoreCommandFailed(f"The copy is damaged ({found.damage}). Nothing was put back; take another one.")
    if found.revision != HEAD:
        raise RestoreCommandFailed(
            f"The copy has the tables of another version ({found.revision or 'none'}, and not {HEAD}). "
            "Run yral-chat migrate with DATABASE_URL set to the copy."
        )


async def restore_part(settings: Settings, copy: Copy | None, at: str | None, wanted: Wanted, say: Say) -> None:
    """`copy` None: out of the backup, the newest state or that of the time `at`.

    Raises RestoreFailed, DumpFailed, RestoreCommandFailed, DatabaseUnusable, OSError.
    """
    check_database(settings)
    check_access(settings)
    if copy is None:
        source = _from_dump if has_dumps(settings) else _from_backup
        refusal = RestoreCommandFailed("Another restore of a part runs. Wait for its end.")
        with only_one(settings.data_dir / "restore-part.lock", refusal):
            async with source(settings, at, say, is_forced=wanted.is_forced) as restored:
                await _put_back(settings, restored, wanted, say)
    else:
        check_copy(settings, copy)
        await _put_back(settings, copy, wanted, say)


@asynccontextmanager
async def _from_backup(settings: Settings, at: str | None, say: Say, *, is_forced: bool) -> AsyncIterator[Copy]:
    """A file for as long as the block runs, where the server finds it; what a killed command has left goes first."""
    time = None if at is None else as_time(at)
    folder = settings.data_dir / "restores"
    path = folder / f"{new_id()}.db"
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    backups = Restores(settings)
    try:
        # This folder may never have heard of them.
        await backups.fetch_erasures(time, told=say if is_forced else None)
        with Bar() as bar:
            outcome = await backups.restore_to(path, time, bar.bytes, bar.say)
        await asyncio.to_thread(migrate, file_url(path))  # it may be of an earlier version
        say(f"state of  {outcome.contents.newest_text}")
        for fault in outcome.found.faults:
            say(f"✗ {fault.sentence} Not so in {fault.count} places: {fault.example}")
        yield Copy(path)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@asynccontextmanager
async def _from_dump(settings: Settings, at: str | None, say: Say, *, is_forced: bool) -> AsyncIterator[Copy]:
    """A database beside the one in use for as long as the block runs."""
    dumps = Dumps(settings)
    dump = await dumps.find(None if at is None else as_time(at))
    await dumps.fetch_erasures(dump, told=say if is_forced else None)  # this folder may never have heard of them
    name = scratch_name("restore", dump.database_id)
    async with scratch(settings.resolved_database_url, name) as url:
        with Bar() as bar:
            differences, _ = await dumps.bring(dump, url, bar.bytes)
        if differences:
            raise RestoreCommandFailed(
                f"{dump.name}.dump is not what it was: {differences[0].text} Nothing was put back."
            )
        await asyncio.to_thread(migrate, url)  # it may be of an earlier version
        say(f"state of  {dump.at}")
        yield Copy(database=name)


async def _put_back(settings: Settings, copy: Copy, wanted: Wanted, say: Say) -> None:
    found = await look(settings, copy, wanted)
    for line in describe(found):
        say(line)
    with Bar() as bar:
        result = await put_back(settings, copy, wanted, lambda done: bar.count("messages", done, found["messages"]))
    for line in conclude(result):
        say(line)


async def look(settings: Settings, copy: Copy, wanted: Wanted) -> Found:
    """What the copy has of it. Raises RestoreCommandFailed, DatabaseUnusable."""
    storage = StorageService(settings, b"nothing is signed here")

    async def has_file(key: str) -> bool:
        return await storage.size_of(key) is not None

    try:
        return await survey(settings, copy.url(settings), wanted, has_file)
    except AppError as error:
        raise RestoreCommandFailed(_sentence(error)) from error
    finally:
        await storage.close()


def describe(found: Found) -> Iterator[str]:
    """Lines to print."""
    messages = f"{found['messages']:,} in {counted(found['conversations'], 'conversation', 'conversations')}"
    if found["first_at"] is not None and found["last_at"] is not None:
        messages += f", from {to_text(found['first_at'])} to {to_text(found['last_at'])}"
    yield f"messages  {messages}"
    yield f"memories  {found['memories']:,}"
    yield f"files     {found['files']:,}{_missing(found)}"
    for key in found["missing_keys"]:
        yield f"          {key}"


def _missing(found: Found) -> str:
    if not found["files"]:
        return ""
    if found["missing"] is None:
        return ", and the storage does not answer: whether they are still there is not known"
    return f", {found['missing']:,} of them not there any more" if found["missing"] else ", all there"


async def put_back(settings: Settings, copy: Copy, wanted: Wanted, on_done: OnDone) -> PutBack:
    """`on_done` is told how many messages of the copy were looked at. Raises RestoreCommandFailed, DatabaseUnusable."""
    database = create_database(settings.resolved_database_url)
    try:
        database.lock()
    except DatabaseInUse:
        return await _follow(_ask_server(settings, copy, wanted), on_done)
    restores = RestoreService(
        settings,
        database,
        Hub(max_sockets_per_user=1),  # nobody listens here
        forget_influencers=lambda _: None,
        wake_jobs=lambda: None,
    )
    try:
        await database.open()
        return await _follow(restores.put_back(copy.url(settings), wanted), on_done)
    except AppError as error:
        raise RestoreCommandFailed(_sentence(error)) from error
    finally:
        await database.close()


async def _ask_server(settings: Settings, copy: Copy, wanted: Wanted) -> AsyncGenerator[dict[str, Any], None]:
    from yral_chat.serving import find_server  # lazily: it brings the whole service with it

    if settings.admin_api_key is None:
        raise RestoreCommandFailed(NEEDS_KEY)
    body = {
        "file": None if copy.file is None else str(copy.file.resolve()),
        "database": copy.database,
        "conversation_id": wanted.conversation_id,
        "user_id": wanted.user_id,
        "force": wanted.is_forced,
    }
    steps = stream_admin_api(find_server(settings), settings.admin_api_key.get_secret_value(), PATH, body)
    try:
        async with aclosing(steps):
            async for step in steps:
                yield step
    except AdminApiError as error:
        raise RestoreCommandFailed(str(error)) from error


async def _follow(steps: AsyncGenerator[Any, None], on_done: OnDone) -> PutBack:
    async with aclosing(steps):
        async for step in steps:
            if "result" in step:
                result: PutBack = step["result"]
                return result
            on_done(step["done"])
    raise RestoreCommandFailed("The server has ended in the middle. Do it again: nothing is doubled.")


def conclude(result: PutBack) -> Iterator[str]:
    """Lines to print."""
    parts = (
        counted(result["messages"], "message", "messages"),
        counted(result["conversations"], "deleted conversation", "deleted conversations"),
        counted(result["memories"], "memory", "memories"),
        counted(result["influencers"], "persona", "personas"),
    )
    yield f"Put back: {', '.join(parts)}. What was there stayed as it is."
    for left in result["left_out"]:
        yield f"Left out: conversation {left['conversation_id']}: {left['reason']}."


def _sentence(error: AppError) -> str:
    problems = [problem["msg"] for problem in error.details.get("errors", [])]
    return ". ".join([error.message, *problems]) + "."


__all__ = ["Copy", "DatabaseUnusable", "RestoreCommandFailed", "Wanted", "restore_part"]
