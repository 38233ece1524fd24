"""What MediaService does with its threads and files; what it does for clients is proved through HTTP."""

import asyncio
import io
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from tests.waiting import there, until
from yral_chat.clients.public_files import PublicFiles
from yral_chat.clients.storage import StorageService
from yral_chat.clients.storage.local import LocalFolder
from yral_chat.core.cache import LRUCache
from yral_chat.core.config import Settings
from yral_chat.core.errors import StorageUnavailable
from yral_chat.db.database import Database
from yral_chat.services.accounts import erasing
from yral_chat.services.media import MediaService
from yral_chat.services.media.images import clean_image
from yral_chat.services.overload import Admission


@pytest.fixture
async def media(database: Database, tmp_path: Path) -> AsyncIterator[MediaService]:
    settings = Settings(_env_file=None, environment="test", data_dir=tmp_path)
    files, storage = PublicFiles(), StorageService(settings, b"")
    admission = Admission(settings, database, lambda: 0, observe_lateness=lambda _: None)
    yield MediaService(settings, database, storage, files, LRUCache(), admission=admission, wake_jobs=lambda: None)
    await files.close()


def is_decoding() -> bool:
    """Whether a thread is at work on a picture."""
    stacks = (traceback.walk_stack(frame) for frame in sys._current_frames().values())
    return any(frame.f_code is clean_image.__code__ for stack in stacks for frame, _ in stack)


def stored(folder: Path) -> list[str]:
    return [path.name for path in (folder / "media").rglob("*") if path.is_file()]


async def test_a_file_whose_owner_is_erased_while_it_is_stored_does_not_stay(
    media: MediaService, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job of the erasure has been there before it."""
    put_file = LocalFolder.put_file

    async def slowly(folder: LocalFolder, key: str, path: Path) -> None:
        await put_file(folder, key, path)
        assert stored(tmp_path)
        await database.write(erasing.drop_files, "somebody")

    monkeypatch.setattr(LocalFolder, "put_file", slowly)
    with pytest.raises(StorageUnavailable):
        await media.keep_picture("somebody", picture())
    assert stored(tmp_path) == []


async def test_nothing_is_left_of_a_picture_whose_turn_is_stopped_while_it_is_written(
    media: MediaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes, begun, may_go_on = Path.write_bytes, threading.Event(), threading.Event()

    def slowly(path: Path, data: bytes) -> int:
        begun.set()
        may_go_on.wait(30)
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", slowly)
    keeping = asyncio.create_task(media.keep_picture("somebody", picture()))
    await asyncio.to_thread(begun.wait, 30)
    keeping.cancel()
    asyncio.get_running_loop().call_later(0.1, may_go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert list(media.incoming.iterdir()) == []


async def test_nothing_is_stored_any_more_once_a_turn_was_stopped(
    media: MediaService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file, begun, may_go_on = LocalFolder.put_file, asyncio.Event(), asyncio.Event()

    async def slowly(folder: LocalFolder, key: str, path: Path) -> None:
        begun.set()
        await may_go_on.wait()
        await put_file(folder, key, path)

    monkeypatch.setattr(LocalFolder, "put_file", slowly)
    keeping = asyncio.create_task(media.keep_picture("somebody", picture()))
    await begun.wait()
    keeping.cancel()
    asyncio.get_running_loop().call_later(0.1, may_go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await keeping
    there_then = stored(tmp_path)
    await asyncio.sleep(0.1)
    assert stored(tmp_path) == there_then != []


def picture() -> bytes:
    small = io.BytesIO()
    Image.new("RGB", (70, 70), "teal").save(small, "PNG")
    return small.getvalue()


async def test_a_picture_that_nobody_wants_any_more_is_not_decoded_beside_the_next(media: MediaService) -> None:
    large = io.BytesIO()
    Image.new("RGB", (7000, 7000), "teal").save(large, "PNG", compress_level=1)
    keeping = asyncio.create_task(media.keep_picture("somebody", large.getvalue()))
    await until(there(is_decoding), what="it is being decoded")
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert not is_decoding()
    assert list(media.incoming.iterdir()) == []
