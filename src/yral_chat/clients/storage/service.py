"""StorageService: where media are kept, in a local folder or in an S3 bucket, and the URLs that lead to them."""

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from yral_chat.clients.circuits import build_breaker
from yral_chat.clients.kept_secrets import load_kept_secret
from yral_chat.clients.storage.keys import PUBLIC, is_key, key_in, quoted
from yral_chat.clients.storage.local import LocalFile, LocalFolder
from yral_chat.clients.storage.s3 import SILENCE_SECONDS, RemoteFile, S3Bucket
from yral_chat.clients.storage.signatures import UrlSigner
from yral_chat.core.config import Settings
from yral_chat.core.errors import BadSignature, MediaNotFound

Clock = Callable[[], float]


class StorageService:
    """Keeps files under keys (see keys.py). Nothing is opened before it is needed.

    Every method that asks a bucket goes through `breaker` and raises StorageUnavailable (503) within seconds when the
    bucket is down, StorageFull when it takes no more. Keys that the service could not have made are ValueErrors when
    something is to be stored, and not found otherwise.
    """

    def __init__(
        self,
        settings: Settings,
        signing_key: bytes,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        now: Clock = time.time,
    ) -> None:
        self.breaker = build_breaker(settings, "storage")
        self._base = f"{settings.base_url}/media/"
        self._signer = UrlSigner(signing_key)
        self._lifetime = settings.media_url_expires_seconds
        self._now = now
        self._bucket: S3Bucket | None = None
        if settings.media_backend == "s3":
            self._bucket = S3Bucket(settings, self.breaker, silence_seconds=silence_seconds)
        self._folder = LocalFolder(settings.data_dir / "media")

    @property
    def is_local(self) -> bool:
        """Whether files are in a folder and served by this process."""
        return self._bucket is None

    async def put_file(self, key: str, path: Path, mime_type: str) -> None:
        """Stores a copy of the file at `path`, whole or not at all, with less than 1 MB of memory."""
        _check(key)
        if self._bucket is not None:
            await self._bucket.put_file(key, path, mime_type)
        else:
            await self._folder.put_file(key, path)

    async def put(self, key: str, data: bytes, mime_type: str) -> None:
        """Stores `data`, whole or not at all."""
        _check(key)
        if self._bucket is not None:
            await self._bucket.put(key, data, mime_type)
        else:
            await self._folder.put(key, data)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """The content. Raises MediaNotFound, and PayloadTooLarge for more than `max_bytes`."""
        return await (self._bucket or self._folder).get(key, max_bytes)

    async def size_of(self, key: str) -> int | None:
        """In bytes; None when it is not there."""
        return await (self._bucket or self._folder).size_of(key)

    async def open(self, key: str) -> AsyncGenerator[bytes, None]:
        """The content piece by piece, wherever it is. Raises MediaNotFound."""
        return (await self._bucket.open(key)).chunks if self._bucket is not None else await self._folder.open(key)

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes what is there of `keys`."""
        await (self._bucket or self._folder).delete(keys)

    def find_file(self, key: str) -> LocalFile:
        """Where a file of the local folder is. Raises MediaNotFound. Asks the file system: not for the event loop."""
        return self._folder.find(key)

    async def open_remote(self, key: str) -> RemoteFile:
        """A file of the bucket as a stream. Raises MediaNotFound, with a local folder always."""
        if self._bucket is None:
            raise MediaNotFound
        return await self._bucket.open(key)

    async def list_remote(self) -> AsyncGenerator[tuple[str, int], None]:
        """(key, bytes) of every file in the bucket; nothing with a local folder, or where the access key may not list.

        Not for the service: see S3Bucket.list.
        """
        if self._bucket is not None:
            async for entry in self._bucket.list():
                yield entry

    def url(self, key: str) -> str:
        """An absolute URL that anybody can read the file with for MEDIA_URL_EXPIRES_SECONDS. Safe in any thread."""
        if self._bucket is not None:
            return self._bucket.url(key)
        expires = str(int(self._now()) + self._lifetime)
        return f"{self._base}{quoted(key)}?exp={expires}&sig={self._signer.sign(key, expires)}"

    def public_url(self, key: str) -> str:
        """The permanent URL of what is stored under `public/<key>`."""
        return f"{self._base}{PUBLIC}/{quoted(key)}"

    def key_of(self, url: str) -> str | None:
        """The key in a URL that this service issued, whatever its signature and age; None for every other text."""
        key = key_in(url, self._base)
        if key is None and self._bucket is not None:
            key = self._bucket.key_of(url)
        return key

    def verify(self, key: str, expires: str | None, signature: str | None) -> int:
        """The seconds, at least 1, that a local URL with this key, `exp` and `sig` still works. Raises BadSignature."""
        if not self.is_local:
            raise BadSignature
        return self._signer.verify(key, expires, signature, self._now())

    async def find_fault(self) -> str | None:
        """Why the bucket cannot be read, in a few words for operators; None when it can, and for a local folder."""
        return None if self._bucket is None else await self._bucket.find_fault()

    async def close(self) -> None:
        if self._bucket is not None:
            await self._bucket.close()


def _check(key: str) -> None:
    if not is_key(key):
        raise ValueError("not a storage key")


def load_signing_key(settings: Settings) -> bytes:
    """What local URLs are signed with: the setting, or `<DATA_DIR>/media-signing-key`, made at the first start.

    Raises ValueError when the file holds something else, and OSError.
    """
    if settings.media_signing_key is not None:
        return settings.media_signing_key.get_secret_value().encode()
    if settings.media_backend == "s3":
        return secrets.token_bytes(32)  # nothing is signed with it, so nothing is kept
    return load_kept_secret(settings.data_dir / "media-signing-key")
