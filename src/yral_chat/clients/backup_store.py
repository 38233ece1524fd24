"""Where backups lie: the objects beside Litestream's, copies of media and dumps, in an S3 bucket or a folder.

obstore holds all of a small object, and one part of 5 MiB of a large one; measured, an upload of 100 MB one part after
the other takes 4 MB. (docs/decisions/0011 is about the service, where every megabyte is one of a thousand requests.)
"""

import asyncio
import atexit
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from datetime import datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from loguru import logger

from yral_chat.core.config import Settings
from yral_chat.core.ids import new_id

if TYPE_CHECKING:
    from obstore.store import LocalStore, S3Store

T = TypeVar("T")

# A bucket that does not answer is told of, not waited for: whoever asks has something better to do.
REQUEST_SECONDS: Final = 10
FAREWELL_SECONDS: Final = 0.1
MAX_OBJECT_BYTES: Final = 4 * 1024 * 1024
# Of what grows with the years, and is read whole all the same: two million erasures are as long.
MAX_LOG_BYTES: Final = 256 * 1024 * 1024
# What S3 takes as a part of an object at least; what is smaller goes in one request.
PART_BYTES: Final = 5 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024
# Objects of more than one part on their way there: each takes some parts of memory.
LARGE_AT_ONCE: Final = 2

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and what MinIO, Ceph and Storj say
_WORDS: Final = (
    (r"NoSuchBucket|InvalidBucketName|bucket does not exist", "there is no such bucket"),
    (r"RequestTimeTooSkewed", "the clock of this machine is wrong"),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken", "the keys are refused"),
    (r"QuotaExceeded|StorageFull|EntityTooLarge|status ?code: 507|InsufficientStorage|No space left", "it is full"),
    (r"AccessDenied|status ?code: 403|Permission denied|Read-only file system", "access is denied"),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|incorrectly configured region",
        "the bucket is in another region",
    ),
)


NO_SERVER: Final = "there is no S3 server at this address, or no such bucket"
# What servers say to a header that they do not know, such as `If-None-Match`.
NOT_IMPLEMENTED: Final = "the server answers 501"
NOT_FOUND: Final = "the server answers 404"


class BackupStoreError(Exception):
    """`reason` is a plain clause that follows "the backup cannot be used: "."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Conflict(Exception):
    """Somebody else has written this object meanwhile."""


class Stored(msgspec.Struct, frozen=True):
    """One object. `version` is what `replace` wants back."""

    data: bytes
    version: str | None


class Target(msgspec.Struct, frozen=True):
    """BACKUP_URL, taken apart. `bucket` is None for a folder; `path` has no slash at its ends, except a folder's."""

    bucket: str | None
    path: str
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return self.path if self.bucket is None else f"s3://{self.bucket}/{self.path}".rstrip("/")


def target_of(settings: Settings, url: str) -> Target:
    """`url` with the access that the settings give. Settings have refused what is neither s3:// nor file://."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Target(None, unquote(parts.path))
    key = settings.backup_access_key_id or settings.aws_access_key_id
    secret = settings.backup_secret_access_key or settings.aws_secret_access_key
    return Target(
        parts.netloc,
        unquote(parts.path).strip("/"),
        endpoint=settings.backup_endpoint_url or settings.s3_endpoint_url,
        region=settings.backup_region or settings.s3_region,
        access_key_id=key.get_secret_value() if key else "",
        secret_access_key=secret.get_secret_value() if secret else "",
    )


class BackupStore:
    """The objects below one target. Keys are relative to it. Methods raise BackupStoreError.

    `request_seconds` is what one request may take: of large objects a part of 5 MiB on its way there, or the next piece
    on its way back. A large one on its way into a folder has no limit.
    """

    def __init__(self, target: Target, *, request_seconds: float = REQUEST_SECONDS) -> None:
        self.target = target
        self._request_seconds = request_seconds
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def get(self, key: str) -> Stored | None:
        """The object, or None when there is none."""
        import obstore

        if self._is_absent:
            return None

        async def read() -> Stored:
            answer = await obstore.get_async(self._store, key)
            if answer.meta["size"] > MAX_OBJECT_BYTES:
                raise BackupStoreError(f"{key} is too large to be ours")
            return Stored(bytes(await answer.bytes_async()), answer.meta.get("e_tag"))

        try:
            return await self._ask(read())
        except FileNotFoundError:  # obstore's word for it
            return None

    async def put(self, key: str, data: bytes) -> str | None:
        """Writes over whatever is there; returns the new version."""
        return await self._put(key, data, "overwrite")

    async def create(self, key: str, data: bytes) -> str | None:
        """Raises Conflict when it is there already, wherever the bucket honours conditions."""
        return await self._put(key, data, "create")

    async def replace(self, key: str, data: bytes, version: str | None) -> str | None:
        """Raises Conflict when it is not the version that was read."""
        return await self._put(key, data, {"e_tag": version})

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, size: int | None = None) -> None:
        """Writes over whatever is there, whole or not at all. Raises what `chunks` raises, too.

        `size` is what there will be, in bytes, where that is known: a large one that waits for others holds nothing.
        """
        import obstore

        head = bytearray()
        if size is None or size <= PART_BYTES:
            async for chunk in chunks:
                head += chunk
                if len(head) > PART_BYTES:
                    break
            else:
                await self._put(key, bytes(head), "overwrite")
                return
        rest = _Remembering(bytes(head), chunks)
        del head
        try:
            async with self._large:
                await self._ask(
                    obstore.put_async(self._store, key, rest.read(), chunk_size=PART_BYTES, max_concurrency=1),
                    is_bounded=False,
                )
        except BackupStoreError:
            if rest.error is not None:
                raise rest.error from None
            raise
        except FileNotFoundError as error:
            raise BackupStoreError(NO_SERVER) from error

    async def open(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """The object piece by piece, or None when there is none."""
        import obstore

        if self._is_absent:
            return None
        try:
            answer = await self._ask(self._soon(obstore.get_async(self._patient_store, key)))
        except FileNotFoundError:  # obstore's word for it
            return None
        return self._pieces(answer.stream(CHUNK_BYTES))

    async def read(self, key: str) -> bytes | None:
        """The whole of an object that may be longer than the small ones, or None when there is none."""
        chunks = await self.open(key)
        if chunks is None:
            return None
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > MAX_LOG_BYTES:
                raise BackupStoreError(f"{key} is too large to be ours")
        return bytes(data)

    async def size_of(self, key: str) -> int | None:
        """In bytes; None when there is no such object."""
        import obstore

        if self._is_absent:
            return None
        try:
            return (await self._ask(obstore.head_async(self._store, key)))["size"]
        except FileNotFoundError:  # obstore's word for it
            return None

    async def delete(self, key: str) -> None:
        import obstore

        if self._is_absent:
            return
        try:
            await self._ask(obstore.delete_async(self._store, key))
        except FileNotFoundError:  # obstore's word for it
            return

    async def list(self, prefix: str = "") -> AsyncIterator[tuple[str, int, datetime]]:
        """(key, bytes, time) of what begins with the folder `prefix`."""
        import obstore

        if self._is_absent:
            return
        stream = obstore.list(self._store, prefix or None)
        while True:
            try:
                page = await self._ask(anext(stream))
            except StopAsyncIteration:
                return
            except BackupStoreError as error:
                if error.reason == NOT_FOUND:  # S3 has an answer also where there is nothing
                    raise BackupStoreError(NO_SERVER) from error
                raise
            for entry in page:
                yield entry["path"], entry["size"], entry["last_modified"]

    async def folders(self, prefix: str) -> Sequence[str]:
        """The names of those in the folder `prefix`; of all there is when it is empty."""
        import obstore

        if self._is_absent:
            return ()
        found = await self._ask(obstore.list_with_delimiter_async(self._store, prefix or None))
        return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]

    async def is_empty(self, prefix: str = "") -> bool:
        async for _ in self.list(prefix):
            return False
        return True

    async def delete_all(self, prefix: str) -> int:
        """Deletes what is below the folder `prefix`; returns how many objects that were."""
        keys = [key async for key, _, _ in self.list(prefix)]
        for key in keys:
            await self.delete(key)
        return len(keys)

    def remove_leftovers(self) -> None:
        """Of a folder: what a process that was killed was writing. obstore writes beside the file, with a number."""
        if self.target.bucket is None:
            for path in Path(self.target.path).rglob("*#*"):
                if re.fullmatch(r".+#\d+", path.name):
                    path.unlink(missing_ok=True)

    async def honours_conditions(self) -> bool:
        """Tried out: some servers that speak S3 take `If-None-Match` and `If-Match` and write all the same."""
        key = f"probe-{new_id()}"
        try:
            first = await self.create(key, b"1")
            try:
                await self.create(key, b"2")
            except Conflict:
                pass
            else:
                return False
            await self.replace(key, b"3", first)
            try:
                await self.replace(key, b"4", first)
            except Conflict:
                return True
            return False
        except (Conflict, NotImplementedError):
            return False
        finally:
            await self.delete(key)

    async def _put(self, key: str, data: bytes, mode: object) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        try:
            answer = await self._ask(obstore.put_async(self._store, key, data, mode=mode))  # type: ignore[arg-type]
        except (AlreadyExistsError, PreconditionError) as error:
            raise Conflict from error
        except NotSupportedError as error:
            raise NotImplementedError from error
        except FileNotFoundError as error:  # of something that is written: a web server that knows no buckets
            raise BackupStoreError(NO_SERVER) from error
        except BackupStoreError as error:
            if mode != "overwrite" and error.reason == NOT_IMPLEMENTED:
                raise NotImplementedError from error
            raise
        return answer["e_tag"]

    async def _pieces(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                piece = await self._ask(self._soon(anext(stream)))
            except StopAsyncIteration:
                return
            yield bytes(piece)

    async def _soon(self, request: Awaitable[T]) -> T:
        async with asyncio.timeout(self._request_seconds):
            return await request

    async def _ask(self, request: Awaitable[T], *, is_bounded: bool = True) -> T:
        from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError

        # Of a network disk that is away. The client of S3 has a limit of its own.
        limit = self._request_seconds if is_bounded and self.target.bucket is None else None
        try:
            async with asyncio.timeout(limit):
                return await request
        except (AlreadyExistsError, NotSupportedError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise BackupStoreError("there is no such bucket") from error
            raise
        except (BaseError, OSError) as error:
            raise BackupStoreError(reason_of(str(error))) from error

    @property
    def _is_absent(self) -> bool:
        """Whether it is a folder that is not there: to open it would make it. Raises BackupStoreError.

        Once it is open obstore says so, in threads of its own: a network disk that is away would stop the event loop.
        """
        try:
            return self.target.bucket is None and "_store" not in self.__dict__ and not Path(self.target.path).exists()
        except OSError as error:  # of a disk that is broken, or a server that is away
            raise BackupStoreError(reason_of(str(error))) from error

    @cached_property
    def _store(self) -> "S3Store | LocalStore":
        return self._open(timedelta(seconds=self._request_seconds))

    @cached_property
    def _patient_store(self) -> "S3Store | LocalStore":
        """For answers of any length: obstore's limit is for the whole of one, ours for each piece. For a folder it has
        none.
        """
        return self._store if self.target.bucket is None else self._open(timedelta(days=30))

    def _open(self, request_time: timedelta) -> "S3Store | LocalStore":
        # Here, because most processes do without and need not load 15 MB of it.
        from obstore.exceptions import BaseError
        from obstore.store import LocalStore, S3Store

        _let_threads_end()
        target = self.target
        if target.bucket is None:
            try:
                Path(target.path).mkdir(mode=0o700, parents=True, exist_ok=True)
                return LocalStore(target.path, automatic_cleanup=True)
            except (BaseError, OSError) as error:
                raise BackupStoreError(reason_of(str(error))) from error
        endpoint = target.endpoint or f"https://s3.{target.region}.amazonaws.com"
        return S3Store(
            target.bucket,
            prefix=target.path or None,
            region=target.region,
            endpoint=endpoint.rstrip("/"),
            # The same once more: it would be read from the environment, and win.
            aws_endpoint_url_s3=endpoint.rstrip("/"),
            access_key_id=target.access_key_id,
            secret_access_key=target.secret_access_key,
            virtual_hosted_style_request=False,
            skip_signature=False,
            client_options={
                "allow_http": endpoint.startswith("http:"),
                "timeout": request_time,
                "connect_timeout": timedelta(seconds=3),
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=2 * self._request_seconds)},
        )


class _Remembering:
    """A stream that keeps what went wrong in it: obstore tells only that something did."""

    def __init__(self, head: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._head = [head] if head else []
        self._chunks = chunks
        self.error: Exception | None = None

    async def read(self) -> AsyncGenerator[bytes, None]:
        try:
            while self._head:
                yield self._head.pop()
            async for chunk in self._chunks:
                yield chunk
        except Exception as error:
            self.error = error
            raise


@cache
def _let_threads_end() -> None:
    """obstore's threads let go of what they were given only after our answer is there. One that does so while the
    interpreter is being taken down aborts the process."""
    atexit.register(time.sleep, FAREWELL_SECONDS)


def reason_of(text: str) -> str:
    """What an error of obstore or Litestream comes down to: their texts have URLs and the server's words in them."""
    for pattern, reason in _WORDS:
        if re.search(pattern, text, re.IGNORECASE):
            return reason
    # Neither URLs nor the server's words: obstore shows everything that it knows after these.
    logger.debug("backup.unknown_error", text=re.sub(r"https?://\S+", "(address)", text.partition("\n\n")[0])[:500])
    if status := re.search(r"status ?code: ([345]\d\d)", text, re.IGNORECASE):
        # rclone and others have no other word for a disk of theirs that is full.
        return f"the server answers {status[1]}" + (", as a full one may" if status[1] == "500" else "")
    return "it does not answer"
