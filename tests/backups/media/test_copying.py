"""What `backup media` copies: what is new once; what is gone goes; a run that was cut off is gone on with."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.backups.media.deployment import (
    CopyFolder,
    Deployment,
    copy_at,
    copy_in,
    hashes_of,
    s3_settings,
    store,
)
from tests.faults.proxy import Fault, FaultProxy
from tests.object_stores import Rclone
from yral_chat.core import clock
from yral_chat.services.backups.media import MediaBackup
from yral_chat.services.media.service import copy_key

# Owners whose prefixes sort differently by bytes and by language, and whose characters are hard on paths.
OWNERS = ["ada", "Ada", "b@c.example", "~tilde", "-dash", "é", "a b", "public", "x" * 300, "ada-2", "zoë/../etc"]


class Later:
    """A clock that can be moved."""

    def __init__(self) -> None:
        self._offset = 0
        clock.use(lambda: time.time_ns() + self._offset)

    def move(self, days: int) -> None:
        self._offset += days * 86_400 * 10**9


@pytest.fixture
def later() -> Iterator[Later]:
    yield Later()
    clock.use(time.time_ns)


async def fill(deployment: Deployment) -> None:
    await deployment.add_many(OWNERS)
    await deployment.add_many(OWNERS[:3], 20_000, "image")
    await deployment.add("creator", 3000, "image", is_public=True)
    await deployment.add("ada", 6 * 1024 * 1024)  # in parts
    await deployment.add("ada", 0)


def check(copy: CopyFolder, deployment: Deployment) -> None:
    assert copy.objects() == deployment.objects
    assert copy.hashes() == hashes_of(deployment.objects)
    keys = [entry.key for entry in copy.entries()]
    assert keys == sorted(set(keys))


async def test_everything_is_copied_and_nothing_twice(deployment: Deployment, copy: CopyFolder) -> None:
    await fill(deployment)
    summary, findings = await deployment.copy()
    check(copy, deployment)
    assert findings == []
    assert (summary.counts.copied, summary.counts.files) == (17, 17)
    assert summary.counts.bytes == sum(map(len, deployment.objects.values()))
    before = {path: path.stat().st_mtime_ns for path in copy.root.rglob("*.*g")}
    new = await deployment.add("new")
    summary, _ = await deployment.copy()
    check(copy, deployment)
    assert summary.counts.copied == 1
    after = {path: path.stat().st_mtime_ns for path in copy.root.rglob("*.*g")}
    assert after == before | {copy.path(new): after[copy.path(new)]}


async def cut_off(deployment: Deployment) -> None:
    """A run that ends as if it were killed, after its first page and what is written down with it."""

    def cut(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await MediaBackup(deployment.settings, print, cut).copy()


async def test_a_run_that_is_cut_off_within_a_segment_forgets_nothing_of_it(
    deployment: Deployment, copy: CopyFolder
) -> None:
    gone, *_ = await deployment.add_many(["ada", "zoe", "zoe"], 1)
    await deployment.copy()
    kept = copy.objects()
    await deployment.delete(gone)
    await deployment.add_many(["max"] * 500, 1)  # between those of the segment: one page, and written down at once
    await cut_off(deployment)
    assert len(copy.index().segments) == 2
    summary, _ = await deployment.copy(is_verified=True)
    assert (summary.counts.copied, summary.counts.leaving, summary.findings) == (0, 1, 0)
    assert copy.objects() == deployment.objects | kept


async def test_what_a_killed_run_left_behind_is_known_after_a_second_kill(
    deployment: Deployment, copy: CopyFolder
) -> None:
    await deployment.copy()
    left = copy.path("zoe/left.ogg")
    left.parent.mkdir(parents=True)
    left.write_text("of somebody who has gone since")
    (copy.root / "doing.json").write_text('["zoe/left.ogg"]')
    await deployment.add_many(["max"] * 500, 1)
    await cut_off(deployment)
    assert left.exists()
    await deployment.copy()
    check(copy, deployment)


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
async def test_from_bucket_to_bucket_beside_postgresql(tmp_path: Path, bucket: Rclone, database_url: str) -> None:
    """Both are real S3 servers; this database sorts by the rules of a language."""
    (tmp_path / "other").mkdir()
    with Rclone(tmp_path / "other") as other:
        settings = s3_settings(tmp_path / "data", bucket.url, database_url=database_url, **copy_at(other.url))
        async with Deployment.open(settings) as deployment:
            await fill(deployment)
            _, findings = await deployment.copy(is_verified=True)
            assert findings == []
            check(CopyFolder(other.bucket / "copy"), deployment)
            await deployment.delete(next(iter(deployment.objects)))
            assert (await deployment.copy())[0].counts.leaving == 1


async def test_a_manifest_of_many_segments_follows_every_change(
    deployment: Deployment, copy: CopyFolder, later: Later
) -> None:
    chosen = random.Random(3)
    for round_number in range(2):
        await deployment.add_many([chosen.choice(OWNERS) for _ in range(600)], 10)
        gone = chosen.sample(sorted(deployment.objects), 60)
        gone.append(min(deployment.objects))
        await deployment.delete(*gone)
        summary, _ = await deployment.copy()
        assert summary.counts.files == len(deployment.objects) + summary.counts.leaving
        later.move(31)
        summary, _ = await deployment.copy(is_verified=round_number == 1)
        check(copy, deployment)
        assert (summary.counts.copied, summary.counts.leaving, summary.findings) == (0, 0, 0)
    assert len(copy.segments()) == len(copy.index().segments) > 2
    assert not (copy.root / "doing.json").exists()


async def test_what_people_have_deleted_stays_as_long_as_the_backups_that_name_it(
    deployment: Deployment, copy: CopyFolder, later: Later
) -> None:
    key = await deployment.add("ada", 1000, "image")
    await deployment.copy()
    await deployment.delete(key)
    summary, _ = await deployment.copy()
    assert (summary.counts.leaving, summary.counts.deleted) == (1, 0)
    later.move(29)
    await deployment.copy()
    assert copy.path(key).exists()
    later.move(2)
    summary, _ = await deployment.copy()
    assert (summary.counts.leaving, summary.counts.deleted) == (0, 1)
    assert copy.objects() == {}
    assert copy.entries() == []


async def test_what_people_delete_day_after_day_fills_no_segment(
    deployment: Deployment, copy: CopyFolder, later: Later
) -> None:
    """They stay between those of the day; a segment of many thousand lines would be read by nobody."""
    for _ in range(3):
        await deployment.delete(*deployment.objects)
        await deployment.add_many(["ada"] * 450, 1)
        await deployment.copy()
    summary, _ = await deployment.copy()
    assert (summary.counts.files, summary.counts.leaving) == (1350, 900)
    assert max(path.read_bytes().count(b"\n") for path in copy.segments()) <= 1000
    assert await deployment.restore() == (0, [])
    later.move(31)
    summary, _ = await deployment.copy(is_verified=True)
    check(copy, deployment)
    assert (summary.counts.deleted, summary.findings) == (900, 0)


async def test_a_file_that_is_back_does_not_leave(deployment: Deployment, copy: CopyFolder, later: Later) -> None:
    """A database that was restored knows it again."""
    key = await deployment.add("ada")
    row = (await deployment.database.read(lambda uow: uow.media.list_stored("", 1)))[0]
    await deployment.copy()
    await deployment.database.write(lambda uow: uow.media.delete_unused([key]))
    await deployment.copy()
    await deployment.database.write(store, row)
    await deployment.copy()
    later.move(60)
    await deployment.copy()
    check(copy, deployment)
    assert copy.entries()[0].gone_at is None


async def test_files_of_an_erased_account_go_at_the_next_run(deployment: Deployment, copy: CopyFolder) -> None:
    await fill(deployment)
    await deployment.add("ada", 500, "image", is_public=True)
    await deployment.copy()
    await deployment.erase("ada")
    await deployment.erase("x" * 300)
    summary, _ = await deployment.copy()
    check(copy, deployment)
    assert summary.counts.deleted == 6
    assert b"ada/" not in b"".join(path.read_bytes() for path in copy.root.rglob("*.json*"))


async def test_what_a_killed_run_had_copied_of_an_erased_account_goes_too(
    deployment: Deployment, copy: CopyFolder
) -> None:
    """It is in no segment yet: `doing.json` names it."""
    key = await deployment.add("ada", 50, "image")
    await deployment.copy()
    for path in [*copy.segments(), copy.root / "manifest.json"]:
        path.unlink()  # as if the run had ended before it wrote them
    (copy.root / "doing.json").write_text(f'["{key}"]')
    copy.path(f"{key}#1").write_bytes(b"half of it")  # how obstore writes
    await deployment.erase("ada")
    await deployment.copy(is_new=True)
    assert [path for path in copy.root.rglob("*") if path.is_file()] == [copy.root / "manifest.json"]


async def test_a_copy_that_a_killed_run_has_made_is_not_made_again(deployment: Deployment, copy: CopyFolder) -> None:
    whole, torn = await deployment.add("ada", 50), await deployment.add("ada", 60)
    await deployment.copy()
    for path in [*copy.segments(), copy.root / "manifest.json"]:
        path.unlink()
    (copy.root / "doing.json").write_text(f'["{whole}","{torn}"]')
    copy.path(torn).write_bytes(b"something else")
    before = copy.path(whole).stat().st_mtime_ns
    summary, _ = await deployment.copy(is_verified=True, is_new=True)
    check(copy, deployment)
    assert summary.findings == 0
    assert copy.path(whole).stat().st_mtime_ns == before


async def test_an_original_that_is_not_whole_is_named_and_not_copied(deployment: Deployment, copy: CopyFolder) -> None:
    lost, torn, picture = [await deployment.add("ada", 1000, "image") for _ in range(3)]
    root = deployment.settings.data_dir / "media"
    (root / lost).unlink()
    (root / torn).write_bytes(b"short")
    (root / picture.replace(".png", "-small.jpg")).unlink()
    for _ in range(2):
        _, findings = await deployment.copy()
        assert {(finding.kind, finding.name) for finding in findings} == {
            ("lost", lost), ("lost", torn), ("lost", picture.replace(".png", "-small.jpg"))
        }  # fmt: skip
    assert [entry.key for entry in copy.entries()] == [picture]
    assert list(copy.objects()) == [picture], "nor is the small copy of a picture that is not there"


async def test_only_what_is_new_is_counted_as_new(deployment: Deployment, copy: CopyFolder) -> None:
    key = await deployment.add("ada", 1000, "image")
    small = deployment.settings.data_dir / "media" / key.replace(".png", "-small.jpg")
    data = small.read_bytes()
    small.unlink()
    counts = [(await deployment.copy())[0].counts for _ in range(2)]
    small.write_bytes(data)
    counts.append((await deployment.copy())[0].counts)
    assert [(count.copied, count.copied_bytes) for count in counts] == [(1, 1000), (0, 0), (1, len(data))]
    check(copy, deployment)


@pytest.mark.parametrize("fate", ["segment", "killed"])
async def test_a_copy_that_nothing_names_is_kept_while_it_is_the_only_one_and_goes_with_the_account(
    deployment: Deployment, copy: CopyFolder, fate: str
) -> None:
    key = await deployment.add("ada", 1000, "image")
    await deployment.copy()
    (segment,) = copy.segments()
    segment.write_bytes(b"damaged")
    if fate == "killed":  # before it wrote down what it had copied
        segment.unlink()
        (copy.root / "manifest.json").unlink()
        (copy.root / "doing.json").write_text(f'["{key}"]')
    for name in deployment.objects:
        (deployment.settings.data_dir / "media" / name).unlink()
    _, findings = await deployment.copy(is_new=True)
    assert {finding.name for finding in findings if finding.kind == "lost"} == deployment.objects.keys()
    check(copy, deployment)
    assert await deployment.restore() == (2, [])
    await deployment.erase("ada")
    await deployment.copy()
    assert copy.objects() == {}


async def test_a_torn_original_is_not_put_over_its_sound_copy_that_nothing_names(
    deployment: Deployment, copy: CopyFolder
) -> None:
    key = await deployment.add("ada", 1000, "image")
    await deployment.copy()
    (segment,) = copy.segments()
    segment.write_bytes(b"damaged")
    (deployment.settings.data_dir / "media" / key).write_bytes(b"short")
    _, findings = await deployment.copy()
    assert [finding.what for finding in findings if finding.kind == "lost"] == [
        "its original has 5 bytes instead of 1000"
    ]
    check(copy, deployment)
    assert await deployment.restore() == (1, [])


@pytest.mark.parametrize("is_verified", [False, True])
async def test_a_copy_survives_the_loss_of_its_original_which_is_named(
    deployment: Deployment, copy: CopyFolder, is_verified: bool
) -> None:
    gone, torn, whole = [await deployment.add("ada", 1000, "image") for _ in range(3)]
    await deployment.copy()
    media = deployment.settings.data_dir / "media"
    (media / gone).unlink()
    (media / copy_key(torn)).write_bytes(b"short")
    for _ in range(2):
        _, findings = await deployment.copy(is_verified=is_verified)
        assert [str(finding) for finding in findings] == sorted([
            f"lost: {gone}: its original is not there; --restore brings it back",
            f"lost: {copy_key(torn)}: its original has 5 bytes instead of 100; --restore brings it back",
        ])  # fmt: skip
        check(copy, deployment)
    assert await deployment.restore() == (2, [])
    assert (await deployment.copy(is_verified=is_verified))[1] == []
    assert (media / whole).read_bytes() == deployment.objects[whole]


async def test_what_people_have_deleted_is_not_lost(deployment: Deployment, copy: CopyFolder) -> None:
    deleted, again = [await deployment.add("ada") for _ in range(2)]
    row = (await deployment.database.read(lambda uow: uow.media.list_stored(min(deleted, again), 1)))[0]
    await deployment.copy()
    await deployment.delete(deleted, again)
    assert (await deployment.copy())[1] == []
    await deployment.database.write(store, row)  # a database that was restored knows it again
    _, findings = await deployment.copy()
    assert [(finding.kind, finding.name) for finding in findings] == [("lost", row.key)]


async def test_of_a_bucket_the_originals_are_listed_and_only_what_is_not_there_is_asked_for(
    tmp_path: Path, bucket: Rclone
) -> None:
    with FaultProxy(bucket.url) as proxy:
        settings = s3_settings(tmp_path / "data", proxy.in_place_of(bucket.url), **copy_in(tmp_path / "copy"))
        async with Deployment.open(settings) as deployment:
            keys = await deployment.add_many(["b@c.example"] * 30, 10, "image")
            await deployment.copy()
            proxy.fault = Fault("cut", side="client", at=b"HEAD ", passes=True)
            assert (await deployment.copy())[1] == []
            assert proxy.struck == 0, "none is asked for"
            proxy.heal()
            (bucket.bucket / keys[3]).unlink()
            _, findings = await deployment.copy()
            assert [(finding.kind, finding.name) for finding in findings] == [("lost", keys[3])]


async def test_uploads_on_their_way_are_not_copied(deployment: Deployment, copy: CopyFolder) -> None:
    await deployment.add("ada")
    (row,) = await deployment.database.read(lambda uow: uow.media.list_stored("", 1))
    announced = msgspec.structs.replace(row, key="ada/announced.ogg")
    await deployment.database.write(lambda uow: uow.media.add(announced))
    _, findings = await deployment.copy()
    check(copy, deployment)
    assert findings == []
