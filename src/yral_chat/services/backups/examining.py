"""What `yral-chat doctor` says of the backup: is there one, is its place good, are its programs and libraries there."""

import asyncio
from pathlib import Path
from typing import Literal

import msgspec

from yral_chat.clients.backup_store import BackupStore, BackupStoreError, target_of
from yral_chat.clients.litestream import LitestreamError, check_socket_path, find_litestream
from yral_chat.clients.ltx import check_libraries
from yral_chat.clients.postgres_tools import PostgresToolError, find_tool
from yral_chat.core.config import Settings
from yral_chat.services.backups.catalogue import Catalogue
from yral_chat.services.backups.dumps import DumpFailed, Dumps


class Advice(msgspec.Struct, frozen=True):
    """`text` is a fact; `to_do` is empty where all is well."""

    text: str
    to_do: str = ""
    is_bad: bool = False


async def examine_backup(settings: Settings) -> list[Advice]:
    """Reads only."""
    shared = [*_shared_fate(settings, "BACKUP_URL"), *_shared_fate(settings, "MEDIA_BACKUP_URL")]
    if settings.backup_url is None:
        is_worth_a_word = not settings.is_local and settings.resolved_database_url.startswith("sqlite")
        return [*([Advice("the database is on this machine alone", NOWHERE)] if is_worth_a_word else []), *shared]
    if not settings.resolved_database_url.startswith("sqlite"):
        return [await _look_at_dumps(settings), *shared, *_tools()]
    return [await _look(BackupStore(target_of(settings, settings.backup_url))), *shared, *_program(settings)]


NOWHERE = "set BACKUP_URL, and start with --litestream (docs/operations/backups.md)"
ELSEWHERE = "to a bucket, or to a folder on another disk"


def _shared_fate(settings: Settings, name: Literal["BACKUP_URL", "MEDIA_BACKUP_URL"]) -> list[Advice]:
    """Of a folder that whoever deletes or loses DATA_DIR deletes or loses with it."""
    url = settings.backup_url if name == "BACKUP_URL" else settings.media_backup_url
    if url is None:
        return []
    target = target_of(settings, url)
    if target.bucket is not None or not Path(target.path).resolve().is_relative_to(settings.data_dir.resolve()):
        return []
    return [Advice(f"{target.name} lies in DATA_DIR and is lost with it", f"set {name} {ELSEWHERE}")]


async def _look(store: BackupStore) -> Advice:
    if store.target.bucket is None and not await asyncio.to_thread(Path(store.target.path).exists):
        return Advice(f"{store.target.name}, which the first start makes")
    try:
        entry = await Catalogue(store).read()
    except BackupStoreError as error:
        return Advice(f"{store.target.name}: {error.reason}", "see BACKUP_URL and the settings beside it", is_bad=True)
    return Advice(f"{store.target.name}, {'nothing yet' if entry is None else 'with a backup'}")


async def _look_at_dumps(settings: Settings) -> Advice:
    dumps = Dumps(settings)
    try:
        own, others = await dumps.sort()
    except DumpFailed as error:
        return Advice(str(error), "see BACKUP_URL and the settings beside it", is_bad=True)
    newest = f"newest dump {own[-1].at}" if own else "no dump yet"
    if others:
        fact = f"{dumps.place}, {newest}, and dumps of another database ({others[-1].database_id})"
        return Advice(fact, "give this one a BACKUP_URL of its own", is_bad=True)
    return Advice(f"{dumps.place}, {newest}")


def _tools() -> list[Advice]:
    try:
        return [Advice(f"{find_tool('pg_dump')}, {find_tool('pg_restore')}")]
    except PostgresToolError as error:
        fact, _, advice = str(error).partition(". ")
        return [Advice(fact, advice.rstrip("."), is_bad=True)]


def _program(settings: Settings) -> list[Advice]:
    try:
        program = find_litestream(settings.litestream_path)
        check_socket_path(settings.data_dir)
        check_libraries()
    except LitestreamError as error:
        fact, _, advice = str(error).partition(". ")
        return [Advice(fact, advice.rstrip("."), is_bad=settings.litestream_enabled)]
    if settings.litestream_enabled:
        return [Advice(program)]
    return [Advice(f"{program}, not started by the service", "start it with --litestream, or look after it yourself")]
