"""MediaService: keeps what people upload, gives the models what they can take, and removes what nobody uses."""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from typing_extensions import TypedDict

from yral_chat import personas
from yral_chat.clients.public_files import PublicFiles
from yral_chat.clients.storage import PUBLIC, StorageService, media_type, owner_prefix
from yral_chat.core.cache import LRUCache
from yral_chat.core.clock import SECOND, now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import Invalid, Overloaded, StorageUnavailable
from yral_chat.core.ids import new_id
from yral_chat.core.objects import Time, is_external
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.db.repositories.media import MediaKind, MediaObject
from yral_chat.services.media.references import References
from yral_chat.services.overload import Admission

if TYPE_CHECKING:
    from yral_chat.services.media.images import ImageFacts

T = TypeVar("T")

REMOVE_JOB = "media.remove"

MEGABYTE = 1024 * 1024
# Of a small copy; one is at most 768 pixels wide or high.
MAX_COPY_BYTES = 2 * MEGABYTE
# Keys in one job: removing them takes seconds at most, so that a lease holds.
KEYS_PER_JOB = 100
EXPIRE_AT_ONCE = 500
# Pictures that wait to be decoded, one after the other: 50 megapixels take most of a second.
MAX_WAITING_PICTURES = 16


class UploadResult(TypedDict):
    """Contract section 12.1."""

    url: str
    storage_key: str
    type: Literal["image", "audio"]
    size: int
    mime_type: str
    duration_seconds: int | None
    uploaded_at: Time


class MediaService:
    """See the module. Raises UnsupportedMedia, PayloadTooLarge, Invalid, StorageUnavailable, StorageFull."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        storage: StorageService,
        public_files: PublicFiles,
        cache: LRUCache,
        admission: Admission,
        wake_jobs: Callable[[], None],
    ) -> None:
        self._admission = admission
        self._settings = settings
        self._database = database
        self._storage = storage
        self._public_files = public_files
        self._cache = cache
        self._wake_jobs = wake_jobs
        self.incoming = settings.data_dir.resolve() / "incoming"
        self._references = References(storage.key_of, settings.media_allowed_hosts)
        # A large picture takes hundreds of megabytes while it is decoded: one at a time.
        self._decoder = asyncio.Semaphore(1)
        self._undecoded = 0  # pictures that wait for it, or are there

    def limit_of(self, kind: str | None) -> int:
        """The most bytes that an upload of this kind may have; of the larger kind while it is unknown."""
        limits = {"image": self._settings.max_image_size_mb, "audio": self._settings.max_audio_size_mb}
        return limits.get(kind or "", max(limits.values())) * MEGABYTE

    def reduce(self, reference: str, place: list[str | int]) -> str:
        """See References."""
        return self._references.reduce(reference, place)

    async def upload(self, owner_id: str, kind: MediaKind, path: Path) -> UploadResult:
        """Recognises, cleans and keeps the file at `path`, which stays the caller's. Raises Overloaded too."""
        self._admission.check()
        if kind == "image" and self._undecoded > MAX_WAITING_PICTURES:
            raise Overloaded("pictures")
        stored = await (self._keep_image(owner_id, path) if kind == "image" else self._keep_audio(owner_id, path))
        return {
            "url": self._storage.url(stored.key),
            "storage_key": stored.key,
            "type": stored.kind,
            "size": stored.size,
            "mime_type": stored.mime_type,
            "duration_seconds": stored.duration_seconds,
            "uploaded_at": to_text(stored.created_at),
        }

    async def keep_picture(self, owner_id: str, data: bytes) -> str:
        """Keeps a picture that was made for `owner_id`; returns its key. Raises as for an upload."""
        async with self._written(data) as path:
            return (await self._keep_image(owner_id, path)).key

    async def keep_avatar(self, owner_id: str, data: bytes) -> str:
        """Keeps a picture for everybody to see; returns its permanent address. Raises as for an upload."""
        async with self._written(data) as path:
            media = await self._keep_image(owner_id, path, folder=PUBLIC)
        # Nobody says when an avatar is used: it goes with its owner, and not before.
        await self._database.write(lambda uow: uow.media.set_used(media.key))
        return self._storage.public_url(media.key.removeprefix(f"{PUBLIC}/"))

    async def small_copy(self, reference: str) -> tuple[str, bytes]:
        """(mime type, bytes) of an image as models are shown it. Raises MediaNotFound too."""
        if not is_external(reference):
            return "image/jpeg", await self._storage.get(copy_key(reference), max_bytes=MAX_COPY_BYTES)

        async def load() -> tuple[bytes, int]:
            data = await self._public_files.get(reference, max_bytes=self.limit_of("image"))
            copy = await self._copy_of(data)
            return copy, len(copy)

        load_copy: Callable[[], Awaitable[tuple[bytes, int]]] = load
        return "image/jpeg", await self._cache.get(f"media:{reference}", load_copy)

    async def recording(self, reference: str) -> tuple[bytes, str]:
        """(bytes, mime type) of a recording. Raises MediaNotFound too."""
        limit = self.limit_of("audio")
        if is_external(reference):
            data = await self._public_files.get(reference, max_bytes=limit)
        else:
            data = await self._storage.get(reference, max_bytes=limit)
        return data, await asyncio.to_thread(self._mime_type_of_audio, data)

    async def own_avatar(self, avatar_url: str) -> tuple[str, bytes] | None:
        """(mime type, bytes) of a persona's picture that this service has; None for one from elsewhere."""
        path, name = personas.PICTURES_DIR, avatar_url.rpartition("/")[2]
        if avatar_url.startswith(personas.PICTURES_PATH) and (path / name).is_file():
            return media_type(name), await asyncio.to_thread((path / name).read_bytes)
        key = self._storage.key_of(avatar_url)
        if key is None:
            return None
        return media_type(key), await self._storage.get(key, max_bytes=self.limit_of("image"))

    async def remove(self, jobs: list[Job]) -> None:
        """The job `media.remove`: files whose rows are gone."""
        for job in jobs:
            keys: list[str] = job.payload["keys"]
            await self._storage.delete([*keys, *(copy_key(key) for key in keys)])
            await self._database.write(lambda uow, job_id=job.id: uow.jobs.delete(job_id))  # type: ignore[misc]

    async def expire(self) -> None:
        """Removes uploads that no message has used in time."""
        before = now() - round(self._settings.upload_retention_hours * 3600 * SECOND)
        while await self._database.write(_expire, before):
            self._wake_jobs()

    def clear_incoming(self) -> None:
        """At the start: what an earlier process was receiving will not come any more."""
        import shutil

        shutil.rmtree(self.incoming, ignore_errors=True)

    async def _keep_image(self, owner_id: str, path: Path, folder: str | None = None) -> MediaObject:
        clean, copy = path.with_name(f"{path.name}.clean"), path.with_name(f"{path.name}.copy")
        try:
            facts = await self._clean(path, clean, copy)
            size = await asyncio.to_thread(_size, clean)
            media = _media(owner_id, "image", facts.mime_type, facts.extension, size, folder=folder)
            await self._store(media, clean, copy)
        finally:
            clean.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)
        return media

    async def _keep_audio(self, owner_id: str, path: Path) -> MediaObject:
        from yral_chat.services.media.audio import measure_audio

        facts = await asyncio.to_thread(measure_audio, path)
        limit = self._settings.max_audio_duration_seconds
        if facts.duration_seconds > limit:
            raise Invalid.field(["body", "file"], f"The recording is longer than {limit} seconds", "audio_too_long")
        seconds = max(1, math.ceil(facts.duration_seconds))
        size = await asyncio.to_thread(_size, path)
        media = _media(owner_id, "audio", facts.mime_type, facts.extension, size, seconds)
        await self._store(media, path, None)
        return media

    async def _store(self, media: MediaObject, path: Path, copy: Path | None) -> None:
        """The row comes first: a file without one would never be found again."""
        await self._database.write(lambda uow: uow.media.add(media))
        if copy is not None:
            await _to_its_end(self._storage.put_file(copy_key(media.key), copy, "image/jpeg"))
        await _to_its_end(self._storage.put_file(media.key, path, media.mime_type))
        if not await self._database.write(lambda uow: uow.media.set_stored(media.key)):
            # The owner's account was erased meanwhile, and what was to delete this has found nothing yet.
            await self._storage.delete([media.key, copy_key(media.key)])
            raise StorageUnavailable(details={"service": "storage"})

    async def _copy_of(self, data: bytes) -> bytes:
        async with self._written(data) as path:
            clean, copy = path.with_name(f"{path.name}.clean"), path.with_name(f"{path.name}.copy")
            try:
                await self._clean(path, clean, copy)
                return await asyncio.to_thread(copy.read_bytes)
            finally:
                clean.unlink(missing_ok=True)
                copy.unlink(missing_ok=True)

    async def _clean(self, path: Path, clean: Path, copy: Path) -> "ImageFacts":
        from yral_chat.services.media.images import clean_image  # Pillow is a tenth of a second of a start

        max_pixels = self._settings.max_image_megapixels * 1_000_000
        self._undecoded += 1
        try:
            async with self._decoder:
                return await _to_its_end(asyncio.to_thread(clean_image, path, clean, copy, max_pixels=max_pixels))
        finally:
            self._undecoded -= 1

    def _mime_type_of_audio(self, data: bytes) -> str:
        from yral_chat.services.media.audio import measure_audio

        path = self.incoming / new_id()
        try:
            self._write(path, data)
            return measure_audio(path).mime_type
        finally:
            path.unlink(missing_ok=True)

    @asynccontextmanager
    async def _written(self, data: bytes) -> AsyncIterator[Path]:
        """`data` as a file, as long as the block lasts."""
        path = self.incoming / new_id()
        try:
            await _to_its_end(asyncio.to_thread(self._write, path, data))
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            self.incoming.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise StorageUnavailable(details={"service": "storage"}) from error


async def _to_its_end(doing: Coroutine[Any, Any, T]) -> T:
    """Waits for it also when its turn is stopped: a thread goes on then, and nothing may come behind that."""
    work = asyncio.create_task(doing)
    try:
        return await asyncio.shield(work)
    finally:
        await asyncio.wait([work])


def _size(path: Path) -> int:
    return path.stat().st_size


def copy_key(key: str) -> str:
    """Where the small copy of an image lies, beside it."""
    return f"{key.rpartition('.')[0]}-small.jpg"


def remove_files(uow: UnitOfWork, keys: list[str]) -> None:
    """Queues the removal of files that no row speaks of any more, with the unit that removed the rows."""
    for start in range(0, len(keys), KEYS_PER_JOB):
        uow.jobs.add(REMOVE_JOB, {"keys": keys[start : start + KEYS_PER_JOB]})


def _media(
    owner_id: str,
    kind: MediaKind,
    mime_type: str,
    extension: str,
    size: int,
    seconds: int | None = None,
    folder: str | None = None,
) -> MediaObject:
    # What lies in the open is found by its name alone: that has nothing of the time in it.
    name = new_id() if folder is None else str(uuid.uuid4())
    return MediaObject(
        key=f"{folder or owner_prefix(owner_id)}/{name}{extension}",
        owner_id=owner_id,
        kind=kind,
        mime_type=mime_type,
        size=size,
        duration_seconds=seconds,
        created_at=now(),
    )


def _expire(uow: UnitOfWork, before: int) -> bool:
    """Whether there was something to remove."""
    keys = uow.media.delete_unused(uow.media.list_old_unused(before, EXPIRE_AT_ONCE))
    remove_files(uow, keys)
    return bool(keys)
