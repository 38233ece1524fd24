"""One contract over a local folder, an S3 server that checks signatures, and one that knows ranges and conditions."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from tests.client import PLAIN
from tests.object_stores import (
    BUCKET,
    SIGNING_KEY,
    Moto,
    Rclone,
    settings_for,
    storage_at,
)
from yral_chat.clients.storage import StorageService, owner_prefix
from yral_chat.core.errors import BadSignature, MediaNotFound, PayloadTooLarge, StorageUnavailable

MB = 1024 * 1024
NAME = "0198f7c2-5d3e-7a41-9a55-3f5f0e9b1c22"
OWNERS = ["plain", "a@b.example", "100%", "%2e%2e/", "..", "public", "नमस्ते", "a+b c&d=e?f#g", "~x", "🙂" * 255]


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with Rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        yield server


@pytest.fixture(params=["local", "rclone", "moto"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StorageService]:
    if request.param == "local":
        yield StorageService(settings_for(tmp_path), SIGNING_KEY)
    else:
        async with storage_at(request.getfixturevalue(request.param).url, tmp_path) as service:
            yield service


async def fetched(storage: StorageService, url: str) -> tuple[bytes, str]:
    """Content and type that somebody finds who has nothing but the URL."""
    if not storage.is_local:
        async with httpx2.AsyncClient(verify=PLAIN) as client:
            response = (await client.get(url)).raise_for_status()
        return response.content, response.headers["content-type"]
    parts = urlsplit(url)
    query = parse_qs(parts.query, strict_parsing=True)
    key = unquote(parts.path.removeprefix("/media/"))
    assert storage.verify(key, *query["exp"], *query["sig"]) > 890
    file = await asyncio.to_thread(storage.find_file, key)
    return file.path.read_bytes(), file.mime_type


@pytest.mark.parametrize("user_id", OWNERS, ids=ascii)
async def test_what_is_stored_comes_back_for_any_owner(storage: StorageService, user_id: str) -> None:
    key = f"{owner_prefix(user_id)}/{NAME}.png"
    await storage.put(key, b"a picture", "image/png")
    assert await storage.get(key, max_bytes=9) == b"a picture"
    url = storage.url(key)
    assert await fetched(storage, url) == (b"a picture", "image/png")
    assert storage.key_of(url) == key
    await storage.delete([key])
    with pytest.raises(MediaNotFound):
        await storage.get(key, max_bytes=9)


async def test_a_key_can_be_stored_anew(storage: StorageService) -> None:
    key = f"again/{NAME}.ogg"
    for data in (b"first", b"", b"the third and last"):
        await storage.put(key, data, "audio/ogg")
        assert await storage.get(key, max_bytes=100) == data


async def test_deleting_takes_what_is_there(storage: StorageService) -> None:
    keys = [f"many/{number}.webp" for number in range(30)]
    for key in keys[::2]:
        await storage.put(key, b"x", "image/webp")
    await storage.delete([*keys, "../../etc/passwd", "", "never/seen.png"])
    for key in keys:
        with pytest.raises(MediaNotFound):
            await storage.get(key, max_bytes=10)
    await storage.put(keys[0], b"y", "image/webp")  # into the folder that was emptied
    assert await storage.get(keys[0], max_bytes=10) == b"y"


async def test_a_bucket_lists_its_files_under_the_keys_that_they_have(storage: StorageService) -> None:
    stored = {(f"{owner_prefix(user_id)}/listed.png", number) for number, user_id in enumerate(OWNERS)}
    for key, size in stored:
        await storage.put(key, b"x" * size, "image/png")
        assert await storage.size_of(key) == size
    assert await storage.size_of("plain/never.png") is None
    listed = [entry async for entry in storage.list_remote()]
    assert {entry for entry in listed if entry[0].endswith("/listed.png")} == (set() if storage.is_local else stored)


async def test_a_file_that_is_too_large_is_not_read(storage: StorageService) -> None:
    await storage.put(f"large/{NAME}.wav", b"x" * 11, "audio/wav")
    with pytest.raises(PayloadTooLarge):
        await storage.get(f"large/{NAME}.wav", max_bytes=10)


@pytest.mark.parametrize("key", ["", "../x/a.png", "a/../../b.png", "a/b.html", "/etc/passwd", "a/b\x00.png"])
async def test_what_is_no_key_is_neither_stored_nor_found(storage: StorageService, tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await storage.put(key, b"x", "image/png")
    with pytest.raises(ValueError, match="key"):
        await storage.put_file(key, tmp_path / "none", "image/png")
    with pytest.raises(MediaNotFound):
        await storage.get(key, max_bytes=10)


async def test_a_large_file_needs_little_memory(storage: StorageService, tmp_path: Path) -> None:
    source, key = tmp_path / "upload", f"plain/{NAME}.mp3"
    source.write_bytes(os.urandom(20 * MB))
    await storage.put(f"plain/warm-{NAME}.mp3", b"x", "audio/mpeg")
    tracemalloc.start()
    try:
        await storage.put_file(key, source, "audio/mpeg")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MB
    stored = await storage.get(key, max_bytes=20 * MB)
    assert hashlib.sha256(stored).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert await fetched(storage, storage.url(key)) == (stored, "audio/mpeg")


async def test_urls_are_made_in_any_thread(storage: StorageService) -> None:
    keys = [f"{owner_prefix(f'user {number}')}/{NAME}.png" for number in range(400)]
    with ThreadPoolExecutor(8) as threads:
        urls = list(threads.map(storage.url, keys))
    assert [storage.key_of(url) for url in urls] == keys


async def test_public_urls_are_permanent_and_ours(storage: StorageService) -> None:
    url = storage.public_url(f"{NAME}.png")
    assert url == f"http://chat.test/media/public/{NAME}.png"
    assert storage.key_of(url) == f"public/{NAME}.png"


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "https://chat.test/media/a/b.png", "http://chat.test.evil/media/a/b.png", "http://chat.test/media/",
        "http://chat.test@evil/media/a/b.png", "http://chat.test/media/a/../b.png", "http://chat.test/api/a/b.png",
        "http://chat.test/media/a/b.html", f"http://127.0.0.1:1/{BUCKET}/a/b.png", "\ud800", "http://[", "\x00",
    ],
)  # fmt: skip
async def test_other_urls_are_not_ours(storage: StorageService, url: str) -> None:
    assert storage.key_of(url) is None


# --- signatures of the bucket


async def test_ranges_and_conditions_are_for_the_bucket_to_answer(moto: Moto, tmp_path: Path) -> None:
    async with storage_at(moto.url, tmp_path) as storage:
        await storage.put(f"plain/{NAME}.ogg", b"0123456789", "audio/ogg")
        url = storage.url(f"plain/{NAME}.ogg")
        async with httpx2.AsyncClient(verify=PLAIN) as client:
            part = await client.get(url, headers={"Range": "bytes=2-4"})
            assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
            assert (await client.get(url, headers={"Range": "bytes=10-"})).status_code == 416
            known = await client.get(url, headers={"If-None-Match": part.headers["etag"]})
            assert known.status_code == 304


async def test_an_altered_url_is_refused_by_the_bucket(rclone: Rclone, tmp_path: Path) -> None:
    async with storage_at(rclone.url, tmp_path) as storage:
        for name in ("mine", "other"):
            await storage.put(f"{name}/{NAME}.png", b"x", "image/png")
        url = storage.url(f"mine/{NAME}.png")
        altered = [
            url.replace("/mine/", "/other/"),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"),
        ]
        async with httpx2.AsyncClient(verify=PLAIN) as client:
            assert (await client.get(url)).status_code == 200
            assert [(await client.get(each)).status_code for each in altered] == [403] * len(altered)
            assert (await client.get(url.split("?")[0])).status_code in (400, 403)


async def test_a_wrong_secret_is_an_outage(rclone: Rclone, tmp_path: Path) -> None:
    async with storage_at(
        rclone.url, tmp_path, aws_secret_access_key=SecretStr("wrong"), breaker_failures=2
    ) as storage:
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await storage.put(f"plain/{NAME}.png", b"x", "image/png")
        assert storage.breaker.opened_reason == "rejected"


async def test_a_missing_bucket_is_an_outage_and_a_missing_file_is_not(moto: Moto, tmp_path: Path) -> None:
    async with storage_at(moto.url, tmp_path, breaker_failures=1) as storage:
        for _ in range(3):
            with pytest.raises(MediaNotFound):
                await storage.get(f"plain/{NAME}-none.png", max_bytes=1)
        assert storage.breaker.state == "closed"
    async with storage_at(moto.url, tmp_path, breaker_failures=1, s3_bucket="nowhere") as nowhere:
        with pytest.raises(StorageUnavailable):
            await nowhere.get(f"plain/{NAME}.png", max_bytes=1)
        assert nowhere.breaker.opened_reason == "rejected"


async def test_a_virtual_host_names_the_bucket(tmp_path: Path) -> None:
    with Rclone(tmp_path, is_virtual=True) as server:
        async with storage_at(
            server.url.replace("127.0.0.1", "localhost"), tmp_path, s3_addressing="virtual"
        ) as storage:
            key = f"a%40b/{NAME}.png"
            (server.bucket / "a%40b").mkdir()
            (server.bucket / key).write_bytes(b"x")
            url = urlsplit(storage.url(key))
            assert url.hostname == f"{BUCKET}.localhost"
            assert storage.key_of(url.geturl()) == key
            # Not every resolver knows the names below localhost.
            address = url._replace(netloc=f"127.0.0.1:{url.port}").geturl()
            async with httpx2.AsyncClient(verify=PLAIN) as client:
                response = await client.get(address, headers={"Host": url.netloc})
                assert (response.status_code, response.content) == (200, b"x"), response.text


async def test_clients_may_know_the_bucket_under_another_address(rclone: Rclone, tmp_path: Path) -> None:
    """The bucket checks the signature with the name that it was asked by."""
    public = rclone.url.replace("127.0.0.1", "localhost")
    async with storage_at(rclone.url, tmp_path, s3_public_url_base=f"{public}/") as storage:
        key = f"a%40b/{NAME}.png"
        await storage.put(key, b"x", "image/png")
        url = storage.url(key)
        assert url.startswith(f"{public}/{BUCKET}/a%2540b/")
        assert await fetched(storage, url) == (b"x", "image/png")
        assert storage.key_of(url) == key
        assert storage.key_of(f"{rclone.url}/{BUCKET}/a%2540b/{NAME}.png?X-Amz-Expires=1") == key


@pytest.mark.parametrize(
    ("more", "prefix"),
    [
        ({}, f"https://s3.eu-central-1.amazonaws.com/{BUCKET}/"),
        ({"s3_addressing": "virtual"}, f"https://{BUCKET}.s3.eu-central-1.amazonaws.com/"),
        ({"s3_endpoint_url": "https://fsn1.example:443/"}, f"https://fsn1.example/{BUCKET}/"),
        ({"s3_endpoint_url": "https://S3.Example/", "s3_addressing": "virtual"}, f"https://{BUCKET}.s3.example/"),
        ({"s3_public_url_base": "https://files.example"}, f"https://files.example/{BUCKET}/"),
    ],
    ids=str,
)
async def test_urls_have_the_form_that_was_set(tmp_path: Path, more: dict[str, Any], prefix: str) -> None:
    given: dict[str, Any] = {"s3_endpoint_url": None, "s3_region": "eu-central-1", **more}
    async with storage_at("http://127.0.0.1:1", tmp_path, **given) as storage:
        url = storage.url(f"a%40b/{NAME}.png")
        assert url.startswith(f"{prefix}a%2540b/{NAME}.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
        assert storage.key_of(url) == f"a%40b/{NAME}.png"


async def test_the_environment_does_not_move_the_bucket(
    monkeypatch: pytest.MonkeyPatch, rclone: Rclone, tmp_path: Path
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_REGION": "mars-1",
    }.items():
        monkeypatch.setenv(name, value)
    async with storage_at(rclone.url, tmp_path) as storage:
        await storage.put(f"plain/{NAME}.png", b"x", "image/png")
        assert await fetched(storage, storage.url(f"plain/{NAME}.png")) == (b"x", "image/png")


async def test_a_bucket_signs_nothing_of_ours(rclone: Rclone, tmp_path: Path) -> None:
    async with storage_at(rclone.url, tmp_path) as storage:
        local = StorageService(settings_for(tmp_path), SIGNING_KEY)
        query = parse_qs(urlsplit(local.url(f"plain/{NAME}.png")).query)
        with pytest.raises(BadSignature):
            storage.verify(f"plain/{NAME}.png", *query["exp"], *query["sig"])
