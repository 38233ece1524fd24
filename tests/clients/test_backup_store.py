"""Objects of any size in the place of backups: in a folder and in a real bucket, on slow lines and silent ones."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.backups.hanging import hanging
from tests.clients.refusing import Refusing
from tests.faults.proxy import Fault, FaultProxy
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Rclone
from yral_chat.clients.backup_store import PART_BYTES, BackupStore, BackupStoreError, Target

MEGABYTE = 1024 * 1024
SIZES = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7]


def store_at(url: str, request_seconds: float = 20) -> BackupStore:
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    return BackupStore(Target(BUCKET, "a/prefix", endpoint=url, **keys), request_seconds=request_seconds)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BackupStore:
    if request.param == "folder":
        return BackupStore(Target(None, str(tmp_path / "folder")))
    return store_at(request.getfixturevalue("rclone").url)


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[Rclone]:
    with Rclone(tmp_path / "server") as server:
        yield server


async def pieces(size: int, fails_after: int | None = None) -> AsyncIterator[bytes]:
    """`size` bytes that differ from place to place."""
    sent = 0
    while sent < size:
        if fails_after is not None and sent >= fails_after:
            raise KeyError("of whoever reads")
        piece = bytes([sent // MEGABYTE % 256]) * min(MEGABYTE, size - sent)
        sent += len(piece)
        yield piece


async def read(store: BackupStore, key: str) -> bytes:
    chunks = await store.open(key)
    assert chunks is not None
    return b"".join([chunk async for chunk in chunks])


async def test_what_goes_in_comes_out(store: BackupStore) -> None:
    for size in SIZES:
        await store.put_stream(f"some/{size}", pieces(size))
        assert await read(store, f"some/{size}") == b"".join([piece async for piece in pieces(size)])
        assert await store.size_of(f"some/{size}") == size
    assert await store.open("nothing") is None
    assert await store.size_of("nothing") is None
    assert sorted([key async for key, _, _ in store.list()]) == sorted(f"some/{size}" for size in SIZES)


@pytest.mark.parametrize("fails_after", [0, MEGABYTE, 2 * PART_BYTES])
async def test_a_source_that_fails_leaves_nothing_and_is_told_as_it_was(store: BackupStore, fails_after: int) -> None:
    with pytest.raises(KeyError, match="of whoever reads"):
        await store.put_stream("some", pieces(4 * PART_BYTES, fails_after))
    assert [key async for key, _, _ in store.list()] == []


async def test_a_large_object_may_take_longer_than_a_request(rclone: Rclone) -> None:
    size = 3 * MEGABYTE
    await store_at(rclone.url).put_stream("large", pieces(size))
    with FaultProxy(rclone.url) as proxy:
        proxy.bytes_per_second = 2 * MEGABYTE
        assert len(await read(store_at(proxy.in_place_of(rclone.url), request_seconds=1), "large")) == size


async def test_a_server_that_falls_silent_is_not_waited_for(rclone: Rclone) -> None:
    await store_at(rclone.url).put_stream("large", pieces(PART_BYTES))
    with FaultProxy(rclone.url) as proxy:
        store = store_at(proxy.in_place_of(rclone.url), request_seconds=0.5)
        proxy.fault = Fault("silence", after=MEGABYTE)
        with pytest.raises(BackupStoreError, match="it does not answer"):
            await asyncio.wait_for(read(store, "large"), 20)


async def test_leftovers_of_a_killed_process_go_and_nothing_else(tmp_path: Path) -> None:
    store = BackupStore(Target(None, str(tmp_path)))
    await store.put("some/object", b"x")
    for name in ("some/object#1", "other#12"):
        (tmp_path / name).write_bytes(b"half of it")
    store.remove_leftovers()
    assert not (tmp_path / "other#12").exists()
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["object"]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "", "there is no S3 server at this address, or no such bucket"),
        (404, "NoSuchBucket", "there is no such bucket"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (400, "InvalidArgument", "the server answers 400"),
        (405, "", "the server answers 405"),
        (500, "InternalError", "the server answers 500, as a full one may"),
        (502, "", "the server answers 502"),
        (507, "", "it is full"),
    ],
)
async def test_an_answer_that_is_a_refusal_comes_down_to_a_clause(status: int, code: str, reason: str) -> None:
    with Refusing(status, code) as server:
        store = store_at(server.url)
        for attempt in (store.put("some", b"1"), store.create("some", b"1"), store.put_stream("some", pieces(1))):
            with pytest.raises(BackupStoreError) as caught:
                await attempt
            assert caught.value.reason == reason


async def test_a_listing_of_what_is_no_s3_is_not_empty() -> None:
    with (
        Refusing(404, "") as server,
        pytest.raises(BackupStoreError, match="there is no S3 server at this address"),
    ):
        await store_at(server.url).is_empty()


async def test_a_server_that_implements_no_conditions_is_found_out(rclone: Rclone) -> None:
    with Refusing(501, "NotImplemented", in_front_of=rclone) as server:
        store = store_at(server.url)
        assert not await store.honours_conditions()
        await store.put("some", b"1")
        assert [key async for key, _, _ in store.list()] == ["some"]


async def test_reading_makes_no_folder(tmp_path: Path) -> None:
    store = BackupStore(Target(None, str(tmp_path / "folder")))
    assert await store.get("some") is None
    assert await store.open("some") is None
    assert await store.size_of("some") is None
    assert await store.is_empty()
    await store.delete("some")
    assert not (tmp_path / "folder").exists()
    await store.put("some", b"1")
    assert not await store.is_empty()


async def test_a_folder_that_goes_away_is_empty_and_comes_back_with_what_is_written(tmp_path: Path) -> None:
    store = BackupStore(Target(None, str(tmp_path / "folder")))
    await store.put("some/object", b"1")
    shutil.rmtree(tmp_path / "folder")
    assert await store.get("some/object") is None
    assert await store.open("some/object") is None  # the first that is opened since
    assert await store.size_of("some/object") is None
    assert await store.is_empty()
    assert await store.is_empty("some")
    assert list(await store.folders("")) == list(await store.folders("some")) == []
    await store.delete("some/object")
    assert not (tmp_path / "folder").exists()
    await store.put("some/object", b"2")
    assert await read(store, "some/object") == b"2"


async def test_a_folder_in_use_is_not_looked_for_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk that is away would let everybody wait."""
    store = BackupStore(Target(None, str(tmp_path / "folder")))
    await store.put("some/object", b"1")

    def wait(path: Path, *_: object, **__: object) -> bool:
        raise AssertionError(f"would wait for {path}")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", wait)
        patched.setattr(Path, "mkdir", wait)
        assert await store.get("some/object") is not None
        assert await read(store, "some/object") == b"1"
        assert await store.size_of("some/object") == 1
        assert await store.folders("") == ["some"]
        assert not await store.is_empty()
        await store.delete("some/object")


@pytest.mark.parametrize("ask", [BackupStore.get, BackupStore.open, BackupStore.size_of])
async def test_a_folder_that_hangs_is_not_waited_for(
    tmp_path: Path, ask: Callable[[BackupStore, str], Awaitable[object]]
) -> None:
    store = BackupStore(Target(None, str(tmp_path / "folder")), request_seconds=0.5)
    await store.put("some", b"1")
    with hanging(tmp_path / "folder" / "some"), pytest.raises(BackupStoreError, match="it does not answer"):
        await asyncio.wait_for(ask(store, "some"), 20)
    assert await read(store, "some") == b"1"
