"""Uploading images and recordings: contract section 12.1."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from tests.api.conftest import MakeUser, StartService
from tests.api.expecting import open_fresh, refused
from tests.client import Api
from tests.files import UPLOAD, fetched, picture, recording, upload, uploaded
from tests.rows import fetch
from tests.service import Service
from tests.waiting import there, until
from yral_chat.db.tables import media_objects

MEGABYTE = 1024 * 1024
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}


def noise(megabytes: float) -> bytes:
    """A BMP-like blob of no kind that is allowed, which is that large."""
    return b"\x07" * round(megabytes * MEGABYTE)


def incoming(service: Service) -> list[Path]:
    return list((service.folder / "data" / "incoming").rglob("*"))


@pytest.fixture
def strict(service_with: StartService) -> Service:
    """A service that takes little."""
    return service_with(
        MAX_IMAGE_SIZE_MB="1", MAX_AUDIO_SIZE_MB="2", MAX_AUDIO_DURATION_SECONDS="3", MAX_IMAGE_MEGAPIXELS="1"
    )


async def test_an_image_comes_back_without_what_the_camera_wrote(api: Api, service: Service) -> None:
    exif = Image.Exif()
    exif[0x010E] = "planted description"
    exif[0x0112] = 6  # lies on its side
    response = await upload(api, "image", picture(size=(64, 48), exif=exif), "../../etc/passwd.png")
    assert response.status_code == 200, response.text
    result = response.json()
    assert result["type"] == "image"
    assert result["mime_type"] == "image/jpeg"
    assert result["duration_seconds"] is None
    assert result["storage_key"].startswith(f"{api.user_id}/")
    assert result["storage_key"].endswith(".jpg")
    found = await fetched(result["url"])
    assert found.status_code == 200
    assert found.headers["content-type"] == "image/jpeg"
    assert len(found.content) == result["size"]
    assert b"planted" not in found.content
    with Image.open(io.BytesIO(found.content)) as image:
        assert image.size == (48, 64)
    assert incoming(service) == []


async def test_a_recording_is_measured(api: Api, service: Service) -> None:
    content = recording(2.2)
    result = await uploaded(api, "audio", content)
    assert result["duration_seconds"] == 3
    assert result["mime_type"] == "audio/wav"
    assert result["size"] == len(content)
    assert (await fetched(result["url"])).content == content
    (row,) = fetch(service, select(media_objects).where(media_objects.c.key == result["storage_key"]))
    assert (row.owner_id, row.kind, bool(row.is_stored), bool(row.is_used)) == (api.user_id, "audio", True, False)


async def test_the_key_of_an_odd_user_is_a_path_like_any_other(service: Service, user_of: MakeUser) -> None:
    for user_id in ("../../../etc", "a/b%2f", "http://evil", "public", "🦊" * 60):
        somebody = user_of(service, user_id)
        result = await uploaded(somebody, "image")
        assert ".." not in result["storage_key"].split("/")
        assert not result["storage_key"].startswith(("http", "public/"))
        assert (await fetched(result["url"])).status_code == 200, user_id


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("image", b"GIF89a" + bytes(20)),
        ("image", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("image", recording()),
        ("audio", picture()),
        ("image", picture()[:-40]),
        ("audio", b"ID3"),
        ("audio", b"OggS" + bytes(60)),
    ],
)
async def test_what_is_not_of_the_kind_or_is_damaged_is_refused(api: Api, kind: str, content: bytes) -> None:
    error = refused(await upload(api, kind, content, "innocent.jpg"), 415, "unsupported_media_type")
    assert all(mime.startswith(f"{kind}/") for mime in error["details"]["allowed"])
    assert len(error["details"]["allowed"]) >= 4


async def test_what_is_missing_is_named(api: Api) -> None:
    for data, files, wrong in (
        ({"type": "video"}, {"file": ("f", b"x")}, {"type"}),
        ({}, {"file": ("f", b"x")}, {"type"}),
        ({"type": "image"}, {"other": ("f", b"x")}, {"file"}),
        ({"type": "image"}, {"file": ("f", b"")}, {"file"}),
    ):
        response = await api.request("POST", UPLOAD, data=data, files=files)
        error = refused(response, 422, "validation_error")
        assert {item["loc"][-1] for item in error["details"]["errors"]} == wrong
    nothing = refused(await api.post(UPLOAD, {"type": "image"}), 422, "validation_error")
    assert {item["loc"][-1] for item in nothing["details"]["errors"]} == {"type", "file"}


async def test_names_of_parts_may_be_unquoted(api: Api) -> None:
    head = b"--b\r\nContent-Disposition: form-data; name=type\r\n\r\nIMAGE\r\n"
    part = b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\n" + picture() + b"\r\n--b--\r\n"
    response = await api.request("POST", UPLOAD, content=head + part, headers=BOUNDARY)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b\r\n",
        b"nonsense",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nno end',
    ],
)
async def test_a_body_that_is_no_form_is_refused(api: Api, service: Service, body: bytes) -> None:
    refused(await api.request("POST", UPLOAD, content=body, headers=BOUNDARY), 400, "bad_request")
    assert incoming(service) == []


@pytest.mark.long
async def test_a_photo_of_ordinary_size_is_nothing_to_warn_of(own_service: Service, user_of: MakeUser) -> None:
    with own_service as service:
        large = picture(size=(4000, 3000)) + bytes(MEGABYTE)
        await uploaded(user_of(service), "image", large)
        assert service.stop() == 0
        assert "WARNING" not in service.process.output


async def test_a_disk_that_takes_no_files_is_not_the_clients_fault(api: Api, service: Service) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        await until(there(lambda: bool(incoming(service))), what="the file begins to come in")
        for folder in incoming(service):
            folder.rmdir()
        yield noise(1)

    refused(await api.request("POST", UPLOAD, content=body(), headers=BOUNDARY), 503, "service_unavailable")


async def test_size_is_limited_by_kind(strict: Service, user_of: MakeUser) -> None:
    somebody = user_of(strict)
    for kind, megabytes, limit in (("image", 1.01, 1), ("audio", 2.01, 2), ("image", 1.9, 1)):
        error = refused(await upload(somebody, kind, noise(megabytes)), 413, "payload_too_large")
        assert error["details"] == {"limit": limit * MEGABYTE, "unit": "bytes"}
    refused(await upload(somebody, "audio", noise(1.9)), 415, "unsupported_media_type")
    assert incoming(strict) == []


async def test_pixels_and_seconds_are_limited(strict: Service, user_of: MakeUser) -> None:
    somebody = user_of(strict)
    error = refused(await upload(somebody, "image", picture(size=(1001, 1000))), 413, "payload_too_large")
    assert error["details"] == {"limit": 1_000_000, "unit": "pixels"}
    error = refused(await upload(somebody, "audio", recording(3.1)), 422, "validation_error")
    assert [item["type"] for item in error["details"]["errors"]] == ["audio_too_long"]
    assert (await upload(somebody, "audio", recording(3.0))).status_code == 200


async def test_nobody_uploads_without_a_token(service: Service, document: Any) -> None:
    """The answer comes although the announced body never does."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    writer.write(f"{head}Content-Length: 1000000\r\n\r\n--b\r\n".encode())
    async with asyncio.timeout(10):
        assert b" 401 " in await reader.readline()
    writer.close()


async def test_a_client_that_leaves_leaves_nothing(api: Api, service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: {api.http.headers['authorization']}\r\n"
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + noise(1)
    writer.write(
        f"{head}{'Content-Type: ' + BOUNDARY['Content-Type']}\r\nContent-Length: 9000000\r\n\r\n".encode() + body
    )
    await writer.drain()
    await until(there(lambda: bool(incoming(service))), what="the file begins to come in")
    writer.close()
    await until(there(lambda: not incoming(service)), what="what came in is removed")


@pytest.mark.long
async def test_uploads_that_nobody_uses_are_removed(own_service: Service, user_of: MakeUser) -> None:
    own_service.settings["UPLOAD_RETENTION_HOURS"] = "0.00001"
    with own_service as service:
        somebody = user_of(service)
        unused, used = await uploaded(somebody, "image"), await uploaded(somebody, "image")
        conversation = await open_fresh(somebody, service)
        sent = await somebody.post(
            f"/api/v1/chat/conversations/{conversation['id']}/messages",
            {"message_type": "image", "media_urls": [used["storage_key"]]},
        )
        assert sent.status_code == 200, sent.text
        media = service.folder / "data" / "media"
        assert (media / unused["storage_key"]).is_file()
        service.stop()
        service.start()
        gone = unused["storage_key"].removesuffix(".jpg")
        await until(there(lambda: not list(media.glob(f"{gone}*"))), what="the unused file and its small copy go")
        left = {path.name for path in media.rglob("*") if path.is_file()}
        stem = used["storage_key"].rpartition("/")[2].removesuffix(".jpg")
        assert left == {f"{stem}.jpg", f"{stem}-small.jpg"}


async def test_when_the_bucket_is_away_uploads_wait_and_chat_goes_on(
    service_with: StartService, user_of: MakeUser
) -> None:
    service = service_with(
        MEDIA_BACKEND="s3",
        S3_ENDPOINT_URL="http://127.0.0.1:9",  # nobody listens there
        S3_BUCKET="media",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        BREAKER_FAILURES="2",
    )
    somebody = user_of(service)
    for _ in range(3):
        error = refused(await upload(somebody, "image", picture()), 503, "service_unavailable")
        assert error["details"] == {"service": "storage"}
    health = (await somebody.get("/health")).json()
    assert health["services"]["storage"]["circuit"] == "open"
    assert health["status"] == "degraded"
    conversation = await open_fresh(somebody, service)
    await somebody.said(conversation["id"], "Are you there?")
