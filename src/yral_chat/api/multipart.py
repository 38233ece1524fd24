"""Reads a multipart body with one file: part by part to the disk, never whole in memory."""

import errno
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from fastapi import Request
from loguru import logger
from python_multipart import FormParser
from python_multipart.exceptions import FileError, FormParserError
from python_multipart.multipart import Field, File, parse_options_header
from starlette.requests import ClientDisconnect

from yral_chat.core import deadlines
from yral_chat.core.errors import BadRequest, PayloadTooLarge, StorageFull, StorageUnavailable
from yral_chat.core.ids import new_id

# What a body may have beside its file: boundaries, part headers, short fields (contract section 17).
OVERHEAD_BYTES = 64 * 1024
MEMORY_BYTES = 256 * 1024  # of a file, before it goes to the disk
MAX_PARTS = 16  # ours need three. The library's own MAX_FIELDS counts fields of urlencoded bodies only
CONFIG = {
    "MAX_MEMORY_FILE_SIZE": MEMORY_BYTES,
    "UPLOAD_DELETE_TMP": False,  # the folder goes as a whole
}


class Form(msgspec.Struct):
    """Text fields, and the first part called `file`: `path` is None when there was none."""

    fields: dict[str, str] = {}
    path: Path | None = None
    size: int = 0


@asynccontextmanager
async def received_form(
    request: Request, folder: Path, limit_of: Callable[[dict[str, str]], int]
) -> AsyncIterator[Form]:
    """The form that `request` brings; its file lies in `folder` while the block runs.

    `limit_of(fields so far)` is the most that the file may have, in bytes. Raises BadRequest, PayloadTooLarge,
    StorageFull, StorageUnavailable.
    """
    place = folder / new_id()
    try:
        place.mkdir(parents=True)
        form = await _receive(request, place, limit_of)
        deadlines.restart()
        yield form
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull from error
        logger.exception("upload.disk_failed")
        raise StorageUnavailable(details={"service": "storage"}) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def _receive(request: Request, place: Path, limit_of: Callable[[dict[str, str]], int]) -> Form:
    form, parts, has_ended = Form(fields={}), 0, False

    def count() -> None:
        nonlocal parts
        parts += 1
        if parts > MAX_PARTS:
            raise BadRequest(f"A multipart body has at most {MAX_PARTS} parts")

    def on_field(field: Field) -> None:
        count()
        form.fields[_text(field.field_name)] = _text(field.value)

    def on_file(file: File) -> None:
        count()
        if form.path is None and file.field_name == b"file":
            file.flush_to_disk()
            assert file.actual_file_name is not None  # noqa: S101 - it is on the disk now
            form.path, form.size = Path(file.actual_file_name.decode()), file.size
        file.close()

    def on_end() -> None:
        nonlocal has_ended
        has_ended = True

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        return form
    seen = 0
    try:
        parser = FormParser(
            "multipart/form-data",
            on_field,
            on_file,
            on_end,
            boundary=options.get(b"boundary"),
            config={**CONFIG, "UPLOAD_DIR": str(place).encode()},
        )
        async for chunk in request.stream():
            seen += len(chunk)
            _check(seen - OVERHEAD_BYTES, limit_of(form.fields))
            parser.write(chunk)
        parser.close()
    except FileError:  # the disk's fault: an OSError, too
        raise
    except FormParserError as error:
        raise BadRequest("The multipart body could not be read") from error
    except ClientDisconnect as error:
        raise BadRequest("The body ended too early") from error
    if not has_ended:
        raise BadRequest("The multipart body ended too early")
    _check(form.size, limit_of(form.fields))
    return form


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise PayloadTooLarge("The file is too large", details={"limit": limit, "unit": "bytes"})


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace").strip()
