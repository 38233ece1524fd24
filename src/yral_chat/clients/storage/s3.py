"""Media in an S3 bucket. obstore signs every request; aiohttp carries it.

obstore's own transfers hold two parts of at least 5 MiB of an upload (16 MB were measured for 20 MB) and tell what
went wrong only in a text for people. A presigned PUT streams any size in 256 KiB, leaves no unfinished multipart
upload behind, and its status and code are in our hands.
"""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec
from yarl import URL

from yral_chat.clients.resilience import Backoff, CircuitBreaker, Reason
from yral_chat.clients.storage.keys import is_key, key_in, media_type
from yral_chat.clients.vendor_http import VendorHttp
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError, MediaNotFound, PayloadTooLarge, StorageFull, StorageUnavailable
from yral_chat.core.logging import log
from yral_chat.core.tracing import outgoing_headers

if TYPE_CHECKING:
    from obstore.store import S3Store

ATTEMPTS: Final = 3
BACKOFF: Final = Backoff(first_seconds=0.1, max_seconds=0.5)
CONNECT_SECONDS: Final = 3.0
# Without a byte in either direction the other side counts as hanging, which is not tried again: people wait.
SILENCE_SECONDS: Final = 5.0
MAX_CONNECTIONS: Final = 64
CHUNK_BYTES: Final = 256 * 1024
MAX_ERROR_BYTES: Final = 64 * 1024
DELETIONS_AT_ONCE: Final = 8
LIST_SECONDS: Final = 30
# Of a URL that is used at once. Clocks may differ by a little.
OWN_URL_SECONDS: Final = 300

Method = Literal["GET", "HEAD", "PUT", "DELETE"]
Chunks = AsyncGenerator[bytes, None]

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and MinIO's and Ceph's words for a full disk
_CODE: Final = re.compile(rb"<Code>(\w{1,100})</Code>")
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})


class Body(msgspec.Struct, frozen=True):
    """What is sent: `chunks` begins anew at each call, because an attempt may have to be repeated."""

    size: int
    mime_type: str
    chunks: Callable[[], Chunks]


class RemoteFile(msgspec.Struct, frozen=True):
    """An object on its way, to be read or closed. `chunks` raises StorageUnavailable when the connection breaks."""

    size: int | None
    etag: str | None
    mime_type: str
    chunks: AsyncGenerator[bytes, None]
    close: Callable[[], None]


class Failure(msgspec.Struct, frozen=True):
    """How one attempt failed. `cause` counts against the circuit, None does not; `is_passing` is worth another
    attempt."""

    reason: str
    cause: Reason | None
    error: type[AppError] = StorageUnavailable
    is_passing: bool = False


class S3Bucket:
    """One bucket, path-style or virtual-host. Raises StorageUnavailable quickly when it is down, StorageFull."""

    def __init__(
        self, settings: Settings, breaker: CircuitBreaker, *, silence_seconds: float = SILENCE_SECONDS
    ) -> None:
        self._settings = settings
        self._breaker = breaker
        self._silence = silence_seconds
        self._lifetime = timedelta(seconds=settings.media_url_expires_seconds)
        self._http = VendorHttp(max_connections=MAX_CONNECTIONS)
        self._endpoint = settings.s3_endpoint_url or f"https://s3.{settings.s3_region}.amazonaws.com"

    async def put_file(self, key: str, path: Path, mime_type: str) -> None:
        size = (await asyncio.to_thread(path.stat)).st_size
        await self._ask("PUT", key, Body(size, mime_type, lambda: _chunks_of(path)))

    async def put(self, key: str, data: bytes, mime_type: str) -> None:
        await self._ask("PUT", key, Body(len(data), mime_type, lambda: _pieces(data)))

    async def open(self, key: str) -> RemoteFile:
        if not is_key(key):
            raise MediaNotFound
        response = await self._ask("GET", key)
        return RemoteFile(
            size=response.content_length,
            etag=response.headers.get("ETag"),
            mime_type=media_type(key),
            chunks=self._chunks(response),
            close=response.close,
        )

    async def get(self, key: str, max_bytes: int) -> bytes:
        file = await self.open(key)
        data = bytearray()
        async with aclosing(file.chunks) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > max_bytes:
                    raise PayloadTooLarge("The file is too large", details={"limit": max_bytes, "unit": "bytes"})
        return bytes(data)

    async def size_of(self, key: str) -> int | None:
        if not is_key(key):
            return None
        try:
            answer = await self._ask("HEAD", key)
        except MediaNotFound:
            return None
        answer.close()
        return answer.content_length

    async def list(self) -> AsyncGenerator[tuple[str, int], None]:
        """(key, bytes) of every file, a thousand to a request; nothing where the access key may not list.

        obstore asks, outside of the circuit breaker and with threads of its own: this is for commands.
        """
        import obstore
        from obstore.exceptions import BaseError

        stream = obstore.list(self._store)
        while True:
            try:
                page = await anext(stream)
            except StopAsyncIteration:
                return
            except (BaseError, OSError) as error:
                if "<Code>AccessDenied</Code>" in str(error):
                    return
                log.warning("storage.failed", method="LIST", error=type(error).__name__)
                raise self._unavailable() from error
            for entry in page:
                if is_key(entry["path"]):
                    yield entry["path"], entry["size"]

    async def delete(self, keys: Sequence[str]) -> None:
        """One request each: not every S3 has the one that deletes many. All are tried before one failure is raised."""
        places = asyncio.Semaphore(DELETIONS_AT_ONCE)

        async def delete(key: str) -> None:
            async with places:
                with suppress(MediaNotFound):  # S3 does not mind; some that speak S3 do
                    await self._ask("DELETE", key)

        results = await asyncio.gather(*(delete(key) for key in keys if is_key(key)), return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def find_fault(self) -> str | None:
        """Why the bucket cannot be read, found out with one request that changes nothing; None when it can."""
        answer = await self._attempt("GET", "public/probe.png", None)
        if not isinstance(answer, Failure):
            answer.close()
            return None
        return None if answer.error is MediaNotFound else answer.reason

    def url(self, key: str) -> str:
        """A presigned URL, in 15 µs; safe in any thread."""
        return self._sign("GET", self._public_store, key, self._lifetime)

    def key_of(self, url: str) -> str | None:
        return next((key for prefix in self._prefixes if (key := key_in(url, prefix))), None)

    async def close(self) -> None:
        await self._http.close()

    # --- signing

    @cached_property
    def _store(self) -> "S3Store":
        return self._store_at(self._endpoint)

    @cached_property
    def _public_store(self) -> "S3Store":
        """Signs for the address that clients use: the host is part of what is signed."""
        return self._store_at(self._settings.s3_public_url_base) if self._settings.s3_public_url_base else self._store

    @cached_property
    def _prefixes(self) -> tuple[str, ...]:
        """What stands before the key in our URLs, as obstore writes it: it leaves out default ports, for one."""
        probe = "x/x.png"
        signed = (
            self._sign("GET", store, probe, self._lifetime).split("?")[0] for store in (self._public_store, self._store)
        )
        return tuple({url.removesuffix(probe): None for url in signed})

    def _store_at(self, base: str) -> "S3Store":
        # Here, because most processes keep media in a folder and need not load 15 MB of it.
        from obstore.store import S3Store

        settings = self._settings
        # Settings without these are refused with MEDIA_BACKEND=s3.
        assert settings.s3_bucket is not None  # noqa: S101 - as said
        assert settings.aws_access_key_id is not None  # noqa: S101 - as said
        assert settings.aws_secret_access_key is not None  # noqa: S101 - as said
        is_virtual = settings.s3_addressing == "virtual"
        endpoint = _with_bucket(base, settings.s3_bucket) if is_virtual else base.rstrip("/")
        return S3Store(
            settings.s3_bucket,
            region=settings.s3_region,
            endpoint=endpoint,
            # The same once more: it would be read from the environment, and win.
            aws_endpoint_url_s3=endpoint,
            access_key_id=settings.aws_access_key_id.get_secret_value(),
            secret_access_key=settings.aws_secret_access_key.get_secret_value(),
            virtual_hosted_style_request=is_virtual,
            skip_signature=False,
            client_options={"allow_http": endpoint.startswith("http:")},
            # Of a list, the only thing that obstore asks for.
            retry_config={"max_retries": ATTEMPTS - 1, "retry_timeout": timedelta(seconds=LIST_SECONDS)},
        )

    @staticmethod
    def _sign(method: Method, store: "S3Store", key: str, lifetime: timedelta) -> str:
        import obstore

        return obstore.sign(store, method, key, lifetime)

    # --- asking

    async def _ask(self, method: Method, key: str, body: Body | None = None) -> aiohttp.ClientResponse:
        """The good answer to one request, tried at most three times. A GET's body is still to be read."""
        admission = self._breaker.admit()
        if admission is None:
            raise self._unavailable()
        with admission:
            answer = await self._attempt(method, key, body)
            for attempt in range(ATTEMPTS - 1):
                if not isinstance(answer, Failure) or not answer.is_passing:
                    break
                await asyncio.sleep(BACKOFF.delay(attempt))
                answer = await self._attempt(method, key, body)
            if not isinstance(answer, Failure):
                admission.succeed()
                return answer
            if answer.cause is not None:
                admission.fail(answer.cause)
            elif answer.error is MediaNotFound:
                admission.succeed()
        if answer.error is not StorageUnavailable:
            raise answer.error
        log.warning("storage.failed", method=method, error=answer.reason)
        raise self._unavailable()

    async def _attempt(self, method: Method, key: str, body: Body | None) -> aiohttp.ClientResponse | Failure:
        url = URL(self._sign(method, self._store, key, timedelta(seconds=OWN_URL_SECONDS)), encoded=True)
        headers = {
            "Accept-Encoding": "identity",
            **outgoing_headers(),
        }  # of headers, the signature covers the host alone
        if body is not None:
            headers |= {"Content-Type": body.mime_type, "Content-Length": str(body.size)}
        try:
            async with asyncio.timeout(self._silence) as limit:
                response = await self._http.session.request(
                    method,
                    url,
                    headers=headers,
                    data=self._moving(body, limit) if body is not None else None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_SECONDS, self._silence)),
                )
                if method == "GET" and response.status == 200:
                    return response
                async with response:
                    text = await response.content.read(MAX_ERROR_BYTES)
            if (method, response.status) == ("HEAD", 403):
                return await self._attempt("GET", key, None)  # its answer has a body, which says why
            return _failure_of(response.status, method, text) or response
        except TimeoutError:  # some of aiohttp's errors are this, too
            return Failure("no answer in time", "timeout")
        except aiohttp.ClientError as error:  # its text has the URL in it
            return Failure(type(error).__name__, "unreachable", is_passing=True)

    async def _moving(self, body: Body, limit: asyncio.Timeout) -> Chunks:
        """The body; each piece that the other side takes gives it more time."""
        now = asyncio.get_running_loop().time
        async for chunk in body.chunks():
            limit.reschedule(now() + self._silence)
            yield chunk
        limit.reschedule(now() + self._silence)

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                async with asyncio.timeout(self._silence):
                    chunk = await response.content.readany()
                if not chunk:
                    return
                yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("storage.failed", method="GET", error=type(error).__name__)
            raise self._unavailable() from error
        finally:
            response.close()

    def _unavailable(self) -> StorageUnavailable:
        wait = math.ceil(self._breaker.retry_after)
        return StorageUnavailable(details={"service": "storage"}, retry_after=wait or None)


def _failure_of(status: int, method: Method, text: bytes) -> Failure | None:
    if 200 <= status < 300:
        return None
    found = _CODE.search(text)
    code = found[1].decode() if found else ""
    reason = f"{status} {code}".rstrip()
    if status == 507 or code in _FULL:
        return Failure(reason, None, StorageFull)
    if status == 404 and code != "NoSuchBucket" and method != "PUT":
        return Failure(reason, None, MediaNotFound)
    if (status, code, method) == (403, "AccessDenied", "GET"):
        # Also the answer for a missing object to keys that may not list the bucket.
        log.warning("storage.denied", method=method)
        return Failure(reason, None, MediaNotFound)
    if status == 429 or status >= 500:
        return Failure(reason, "overloaded", is_passing=True)
    # Wrong keys, another region, no such bucket: nothing works until somebody sets it right.
    return Failure(reason, "rejected" if status in (401, 403, 404) or status < 400 else None)


def _with_bucket(base: str, bucket: str) -> str:
    parts = urlsplit(base.rstrip("/"))
    return parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl()


async def _chunks_of(path: Path) -> Chunks:
    with await asyncio.to_thread(path.open, "rb", buffering=0) as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


async def _pieces(data: bytes) -> Chunks:
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])
