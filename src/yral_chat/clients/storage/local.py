"""Media in a folder: whole files or none, nothing outside of the folder."""

import asyncio
import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from yral_chat.clients.storage.keys import is_key, media_type
from yral_chat.core.errors import MediaNotFound, PayloadTooLarge, StorageFull, StorageUnavailable
from yral_chat.core.logging import log

COPY_BYTES: Final = 256 * 1024
# Only a process that was killed leaves unfinished files, and nothing takes a day to write.
LEFTOVER_SECONDS: Final = 24 * 3600.0
# Beside the owners' folders, whose names never begin with a dot.
INCOMING: Final = ".incoming"

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class LocalFile(msgspec.Struct, frozen=True):
    """A file that is there, and what the file system says of it."""

    path: Path
    status: os.stat_result
    mime_type: str


class LocalFolder:
    """Files under `root`, which is made when it is first needed. Every method but `find` runs in a thread."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._incoming = self._root / INCOMING
        self._is_swept = False

    async def put_file(self, key: str, path: Path) -> None:
        await asyncio.to_thread(self._copy, key, path)

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._write, key, lambda target: target.write(data))

    async def get(self, key: str, max_bytes: int) -> bytes:
        return await asyncio.to_thread(self._read, key, max_bytes)

    async def size_of(self, key: str) -> int | None:
        try:
            return (await asyncio.to_thread(self.find, key)).status.st_size
        except MediaNotFound:
            return None

    async def open(self, key: str) -> AsyncGenerator[bytes, None]:
        path = (await asyncio.to_thread(self.find, key)).path
        try:
            return _chunks_of(await asyncio.to_thread(path.open, "rb", buffering=0))
        except FileNotFoundError as error:  # deleted a moment ago
            raise MediaNotFound from error
        except OSError as error:
            raise _failure(error) from error

    async def delete(self, keys: Sequence[str]) -> None:
        await asyncio.to_thread(self._delete, keys)

    def find(self, key: str) -> LocalFile:
        """Raises MediaNotFound, also for what is no key, no file, or a link that leads out of the folder."""
        if not is_key(key):
            raise MediaNotFound
        try:
            path = (self._root / key).resolve(strict=True)
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise MediaNotFound from error
        except OSError as error:
            raise _failure(error) from error
        if not path.is_relative_to(self._root) or not stat.S_ISREG(status.st_mode):
            raise MediaNotFound
        return LocalFile(path, status, media_type(key))

    def _read(self, key: str, max_bytes: int) -> bytes:
        try:
            with self.find(key).path.open("rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError as error:  # deleted a moment ago
            raise MediaNotFound from error
        except OSError as error:
            raise _failure(error) from error
        if len(data) > max_bytes:
            raise PayloadTooLarge("The file is too large", details={"limit": max_bytes, "unit": "bytes"})
        return data

    def _copy(self, key: str, path: Path) -> None:
        with path.open("rb", buffering=0) as source:
            self._write(key, lambda target: shutil.copyfileobj(source, target, COPY_BYTES))

    def _write(self, key: str, write: Callable[[BinaryIO], object]) -> None:
        aside = self._incoming / secrets.token_hex(16)
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._sweep()
            try:
                with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                self._move(aside, self._root / key)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise _failure(error) from error

    def _move(self, aside: Path, target: Path) -> None:
        """Into place, for good. Again when a deletion took the owner's empty folder away in between."""
        for is_last in (False, False, True):
            target.parent.mkdir(exist_ok=True)
            if target.parent.resolve() != target.parent:
                raise PermissionError(errno.EPERM, "the owner's folder is a link")
            try:
                aside.replace(target)
                break
            except FileNotFoundError:
                if is_last:
                    raise
        for folder in (target.parent, self._root):
            _sync(folder)

    def _delete(self, keys: Sequence[str]) -> None:
        for path in (self._root / key for key in keys if is_key(key)):
            try:
                if path.parent.resolve() == path.parent:
                    path.unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise _failure(error) from error
            with suppress(OSError):  # not empty, or gone already
                path.parent.rmdir()

    def _sweep(self) -> None:
        if self._is_swept:
            return
        self._is_swept = True
        oldest = time.time() - LEFTOVER_SECONDS
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # another process, or finished meanwhile
                if path.stat().st_mtime < oldest:
                    path.unlink()


async def _chunks_of(file: FileIO) -> AsyncGenerator[bytes, None]:
    try:
        while chunk := await asyncio.to_thread(file.read, COPY_BYTES):
            yield chunk
    except OSError as error:
        raise _failure(error) from error
    finally:
        file.close()


def _sync(folder: Path) -> None:
    """A name is only as durable as the folder that holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(error: OSError) -> StorageFull | StorageUnavailable:
    if error.errno in _FULL:
        return StorageFull()
    log.warning("storage.failed", error=errno.errorcode.get(error.errno or 0, type(error).__name__))
    return StorageUnavailable(details={"service": "storage"})
