"""Media of the local folder under signed URLs, and avatars of both backends under permanent ones (contract 12.2, 12.3).

HEAD is answered for both: the middleware asks for them with GET. What a browser opens from here runs nothing.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from yral_chat.api.deps import Services
from yral_chat.api.errors import ErrorBody, errors
from yral_chat.core.errors import MediaNotFound
from yral_chat.resources import Resources

router = APIRouter(tags=["media"])

FOREVER: Final = "public, max-age=31536000, immutable"
# They are shown by pages and players. Opened as a document, a file is nothing but a picture or a player.
SAFE_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; sandbox", "Content-Disposition": "inline"}

# One range (RFC 9110, section 14.1.2): from the first number, or the last so many bytes.
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII | re.IGNORECASE)

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_FOUND: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/*": _BINARY, "audio/*": _BINARY}, "description": "The file"},
    206: {"content": {"image/*": _BINARY, "audio/*": _BINARY}, "description": "The part that `Range` asked for"},
    304: {"description": "`If-None-Match` names what the client has"},
    416: {"model": ErrorBody, "description": "The file has no such part; `Content-Range` tells its size"},
}


class MediaFile(FileResponse):
    """A file, or the one part of it that is asked for. A Range that cannot be read is ignored, as RFC 9110 allows."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Request(scope).headers
        wanted = headers.get("range")
        if wanted is not None and not self._is_wanted(wanted, headers.get("if-range")):
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        await super().__call__(scope, receive, send)

    def _is_wanted(self, wanted: str, only_if: str | None) -> bool:
        """Whether a part is to be sent. Raises the 416 of a part that is not there, with our body."""
        found = _RANGE.fullmatch(wanted.strip())
        if found is None or (
            only_if is not None and only_if not in (self.headers["etag"], self.headers["last-modified"])
        ):
            return False
        first, last, suffix = found.groups()
        if first and last and int(last) < int(first):
            return False
        size = int(self.headers["content-length"])
        if (int(first) >= size) if first else (int(suffix) == 0 or size == 0):
            raise HTTPException(416, "The file has no such part", {"Content-Range": f"bytes */{size}"})
        return True


@router.get("/media/public/{key}", response_class=Response, responses={**errors(404, 500, 503), **_FOUND})
async def get_public_media(key: str, request: Request, services: Services) -> Response:
    """An avatar or profile image. Its URL never changes, and neither does what it leads to."""
    stored = f"public/{key}"
    if services.storage.is_local:
        return await _local(request, services, stored, FOREVER)
    file = await services.storage.open_remote(stored)
    headers = {**SAFE_HEADERS, "Cache-Control": FOREVER}
    if file.etag is not None:
        headers["ETag"] = file.etag
    if _is_known(request.headers, file.etag):
        file.close()
        return Response(status_code=304, headers=headers)
    if file.size is not None:
        headers["Content-Length"] = str(file.size)
    return StreamingResponse(file.chunks, headers=headers, media_type=file.mime_type)


@router.get("/media/{key:path}", response_class=Response, responses={**errors(403, 404, 500, 503), **_FOUND})
async def get_media(
    key: str,
    request: Request,
    services: Services,
    exp: Annotated[str | None, Query(description="Unix seconds")] = None,
    sig: Annotated[str | None, Query(description="Made by this service")] = None,
) -> Response:
    """A file under a URL that this service signed. There are none of these when media are kept in S3."""
    if not services.storage.is_local:
        raise MediaNotFound
    left = services.storage.verify(key, exp, sig)
    return await _local(request, services, key, f"private, max-age={left}")


async def _local(request: Request, services: Resources, key: str, cache_control: str) -> Response:
    file = await asyncio.to_thread(services.storage.find_file, key)
    headers = {**SAFE_HEADERS, "Cache-Control": cache_control}
    response = MediaFile(file.path, headers=headers, media_type=file.mime_type, stat_result=file.status)
    if _is_known(request.headers, response.headers["etag"]):
        kept = {"ETag": response.headers["etag"], "Cache-Control": cache_control}
        return Response(status_code=304, headers=kept)
    return response


def _is_known(headers: Mapping[str, str], etag: str | None) -> bool:
    """RFC 9110, section 13.1.2."""
    tags = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    return etag is not None and (etag.removeprefix("W/") in tags or tags == ["*"])
