"""The local folder: signatures, links, unfinished files, full disks, and the key it signs with."""

import errno
import hmac
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.crash.disk import SmallDisk, can_mount
from tests.object_stores import SIGNING_KEY, s3_settings, settings_for
from tests.programs import require
from tests.service import ROOT
from yral_chat.clients.storage import StorageService, load_signing_key
from yral_chat.clients.storage.signatures import UrlSigner
from yral_chat.core.errors import BadSignature, MediaNotFound, StorageUnavailable

KEY = "a%40b/0198f7c2-5d3e-7a41-9a55-3f5f0e9b1c22.png"
NOW = 1_800_000_000

FILL = """
import asyncio, sys
from pathlib import Path
from tests.object_stores import SIGNING_KEY, settings_for
from yral_chat.clients.storage import StorageService
from yral_chat.clients.storage.signatures import UrlSigner
from yral_chat.core.errors import StorageFull

async def main(folder: Path) -> None:
    storage = StorageService(settings_for(folder), SIGNING_KEY)
    await storage.put("plain/small.png", b"x", "image/png")
    try:
        await storage.put("plain/large.png", bytes(4 * 1024 * 1024), "image/png")
    except StorageFull:
        print("full")
    print(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))

asyncio.run(main(Path(sys.argv[1])))
"""


def storage_in(folder: Path, now: Callable[[], float] = lambda: NOW, key: bytes = SIGNING_KEY) -> StorageService:
    return StorageService(settings_for(folder), key, now=now)


def signed(storage: StorageService, key: str = KEY) -> tuple[str, str]:
    query = parse_qs(urlsplit(storage.url(key)).query)
    return query["exp"][0], query["sig"][0]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_signature_holds_until_it_expires(tmp_path: Path) -> None:
    expires, signature = signed(storage_in(tmp_path))
    assert int(expires) == NOW + 900
    for second, left in ((0, 900), (1, 899), (899, 1)):
        assert storage_in(tmp_path, lambda second=second: NOW + second + 0.9).verify(KEY, expires, signature) == left  # type: ignore[misc]
    with pytest.raises(BadSignature):
        storage_in(tmp_path, lambda: NOW + 900).verify(KEY, expires, signature)


def test_a_signature_is_for_one_key_one_time_and_one_secret(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    expires, signature = signed(storage)
    altered: list[tuple[str, str | None, str | None]] = [
        ("other" + KEY[5:], expires, signature),
        (KEY.replace("%40", "@"), expires, signature),
        (KEY, str(int(expires) + 1), signature),
        (KEY, f"0{expires}", signature),
        (KEY, f"+{expires}", signature),
        (KEY, f"{expires} ", signature),
        (KEY, expires, signature.upper()),
        (KEY, expires, signature[:-1]),
        (KEY, expires, ""),
        (KEY, "", signature),
        (KEY, None, signature),
        (KEY, expires, None),
        (f"{KEY}\n{expires}", expires, signature),
    ]
    for arguments in altered:
        with pytest.raises(BadSignature):
            storage.verify(*arguments)
    with pytest.raises(BadSignature):
        storage_in(tmp_path, key=b"another key" * 4).verify(KEY, expires, signature)


@given(st.binary(min_size=1, max_size=200), st.text(max_size=300), st.text(max_size=20))
@example(b"k" * 64, KEY, "1")
@example(b"k" * 65, KEY, "1")
def test_a_signature_is_an_hmac(secret: bytes, key: str, expires: str) -> None:
    assert UrlSigner(secret).sign(key, expires) == hmac.new(secret, f"{key}\n{expires}".encode(), "sha256").hexdigest()


@given(st.text(st.characters()), st.text(st.characters()), st.text(st.characters()))
@example(KEY, "9" * 5000, "x")
@example(KEY, "١٨٠٠٠٠٠٩٠٠", "\udfff")
def test_no_text_is_signed_by_chance(
    tmp_path_factory: pytest.TempPathFactory, key: str, expires: str, signature: str
) -> None:
    storage = storage_in(Path("never"))
    for each in (key, KEY):
        with pytest.raises(BadSignature):
            storage.verify(each, expires, signature)


async def test_links_lead_nowhere(tmp_path: Path) -> None:
    storage = storage_in(tmp_path / "data")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(b"secret")
    await storage.put("mine/a.png", b"x", "image/png")
    media = tmp_path / "data/media"
    (media / "linked").symlink_to(outside)
    (media / "mine/link.png").symlink_to(outside / "secret.png")
    (media / "mine/circle.png").symlink_to("circle.png")
    (media / "mine/folder.png").mkdir()
    (media / "file").write_bytes(b"no folder")
    for key in ("linked/secret.png", "mine/link.png", "mine/circle.png", "mine/folder.png", "file/a.png"):
        with pytest.raises(MediaNotFound):
            await storage.get(key, max_bytes=100)
    with pytest.raises(StorageUnavailable):
        await storage.put("linked/new.png", b"x", "image/png")
    await storage.delete(["linked/secret.png", "file/a.png"])
    assert [path.name for path in outside.iterdir()] == ["secret.png"]


async def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    storage = storage_in(tmp_path / "data")
    await storage.put("mine/a.png", b"x", "image/png")
    (tmp_path / "victim").write_bytes(b"as it was")
    (tmp_path / "data/media/mine/b.png").symlink_to(tmp_path / "victim")
    await storage.put("mine/b.png", b"y", "image/png")
    assert (tmp_path / "victim").read_bytes() == b"as it was"
    assert await storage.get("mine/b.png", max_bytes=1) == b"y"


async def test_files_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    await storage.put(KEY, b"x", "image/png")
    [path] = files_in(tmp_path)
    assert path == tmp_path / "media" / KEY
    assert path.stat().st_mode & 0o777 == 0o600
    await storage.delete([KEY])
    assert [path.name for path in (tmp_path / "media").iterdir()] == [".incoming"]


async def test_unfinished_files_of_a_killed_process_go_after_a_day(tmp_path: Path) -> None:
    incoming = tmp_path / "media/.incoming"
    incoming.mkdir(parents=True)
    for name in ("old", "new"):
        (incoming / name).write_bytes(b"half")
    os.utime(incoming / "old", (NOW - 10**9, NOW - 10**9))
    await storage_in(tmp_path).put(KEY, b"x", "image/png")
    assert [path.name for path in incoming.iterdir()] == ["new"]


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "media").write_bytes(b"a file where the folder should be")  # also true for root, unlike a mode
    storage = storage_in(tmp_path)
    with pytest.raises(StorageUnavailable) as raised:
        await storage.put(KEY, b"x", "image/png")
    assert raised.value.details == {"service": "storage"}
    with pytest.raises(MediaNotFound):
        await storage.get(KEY, max_bytes=1)


def test_a_full_disk_is_named_and_left_as_it_was(tmp_path: Path) -> None:
    require("a private disk (unshare, mount)", can_mount())
    folder = tmp_path / "disk"
    with SmallDisk(folder, 1024 * 1024) as disk:
        done = subprocess.run(
            [*disk.enter, sys.executable, "-c", FILL, str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.splitlines() == ["full", "['media/plain/small.png']"], done.stderr


async def test_a_source_that_is_gone_stores_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        await storage_in(tmp_path).put_file(KEY, tmp_path / "none", "image/png")
    assert raised.value.errno == errno.ENOENT
    assert files_in(tmp_path) == []


# --- the key


def test_the_signing_key_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    given = settings_for(tmp_path)
    key = load_signing_key(given)
    assert len(key) == 64
    assert load_signing_key(given) == key
    [path] = tmp_path.iterdir()
    assert path.name == "media-signing-key"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_configured_key_leaves_no_file(tmp_path: Path) -> None:
    given = settings_for(tmp_path, media_signing_key=SecretStr("k" * 32))
    assert load_signing_key(given) == b"k" * 32
    load_signing_key(s3_settings(tmp_path, "http://127.0.0.1:1"))
    assert list(tmp_path.iterdir()) == []


def test_obstore_is_not_loaded_for_a_folder(tmp_path: Path) -> None:
    code = "import sys, yral_chat.clients.storage; print('obstore' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
