"""`yral-chat backup media --verify`: whatever happens to a copy is found, named, and mended where that can be."""

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.backups.media.deployment import CopyFolder, Deployment, copy_at, copy_in, settings_for
from tests.object_stores import Rclone
from yral_chat.clients.backup_store import BackupStore, Target
from yral_chat.services.backups.media import MediaBackupFailed
from yral_chat.services.backups.media.manifest import Manifest
from yral_chat.services.backups.media.names import Names

FILES: Final = 80
DAMAGED: Final = 60


@pytest.fixture(params=["folder", "bucket"])
def target(request: pytest.FixtureRequest, copy: CopyFolder) -> tuple[CopyFolder, dict[str, Any]]:
    """Where a copy lies, and the settings that put it there."""
    if request.param == "folder":
        return copy, copy_in(copy.root)
    server: Rclone = request.getfixturevalue("bucket")
    return CopyFolder(server.bucket / "copy"), copy_at(server.url)


@pytest.fixture
async def copied(
    target: tuple[CopyFolder, dict[str, Any]], tmp_path: Path
) -> AsyncIterator[tuple[Deployment, CopyFolder]]:
    """Pictures and recordings, and their sound copy."""
    copy, settings = target
    async with Deployment.open(settings_for(tmp_path / "data", **settings)) as deployment:
        await fill(deployment)
        yield deployment, copy


async def fill(deployment: Deployment) -> None:
    await deployment.add_many([f"user-{number % 9}" for number in range(FILES // 2)], 300, "image")
    await deployment.add_many([f"user-{number % 9}" for number in range(FILES // 2)], 300)
    _, findings = await deployment.copy(is_verified=True)
    assert findings == []


def damage(path: Path, chosen: random.Random) -> str:
    """One of the things that happen to files; returns as what it has to be found."""
    data = bytearray(path.read_bytes())
    match chosen.choice(["flip", "truncate", "empty", "extend", "swap", "delete"]):
        case "flip":
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        case "truncate":
            del data[-1]
        case "empty":
            data.clear()
        case "extend":
            data += b"\0"
        case "swap":
            data[:] = chosen.randbytes(len(data))
        case _:
            path.unlink()
            return "missing"
    path.write_bytes(data)
    return "damaged"


async def test_all_damage_is_found_and_mended(copied: tuple[Deployment, CopyFolder]) -> None:
    """60 objects in every way that files go wrong, in a folder and in a bucket: all of them, and nothing else."""
    deployment, copy = copied
    chosen = random.Random(11)
    done = {key: damage(copy.path(key), chosen) for key in chosen.sample(sorted(deployment.objects), DAMAGED)}
    _, findings = await deployment.copy()
    assert findings == [], "a plain run trusts what it has written down"
    _, findings = await deployment.copy(is_verified=True)
    assert {finding.name: finding.kind for finding in findings} == done
    assert {finding.what for finding in findings} == {"it is copied again"}
    assert copy.objects() == deployment.objects
    _, findings = await deployment.copy(is_verified=True)
    assert findings == []


async def test_damage_that_cannot_be_mended_is_found_again_and_again(deployment: Deployment, copy: CopyFolder) -> None:
    gone, changed, left = [await deployment.add("ada") for _ in range(3)]
    await deployment.copy()
    media = deployment.settings.data_dir / "media"
    (media / gone).unlink()
    (media / changed).write_bytes(b"y" * 100)
    await deployment.delete(left)
    for key in (gone, changed, left):
        copy.path(key).write_bytes(b"x" * 100)
    for _ in range(2):
        _, findings = await deployment.copy(is_verified=True)
        assert {(finding.kind, finding.name, finding.what) for finding in findings} == {
            ("lost", gone, "its original is not there; --restore brings it back"),
            *(("damaged", key, "its original is not what was copied, either") for key in (gone, changed, left)),
        }


async def test_what_nobody_has_put_there_is_named_and_left(deployment: Deployment, copy: CopyFolder) -> None:
    key = await deployment.add("ada")
    await deployment.copy()
    foreign = ["note.txt", "objects/ada/other.ogg", f"objects/{key}.bak", "manifest/other.jsonl"]
    for name in foreign:
        (copy.root / name).write_text("x")
    _, findings = await deployment.copy(is_verified=True)
    assert [(finding.kind, finding.name) for finding in findings] == [
        ("foreign", name) for name in sorted(foreign) if name != "manifest/other.jsonl"
    ]
    assert not (copy.root / "manifest/other.jsonl").exists(), "segments that nothing names are swept away"
    assert all((copy.root / name).exists() for name in foreign[:3])


@pytest.mark.parametrize("fate", ["flip", "delete"])
async def test_a_damaged_manifest_is_named_and_written_anew(
    deployment: Deployment, copy: CopyFolder, fate: str
) -> None:
    await deployment.add_many(["ada"] * 3)
    await deployment.copy()
    (segment,) = copy.segments()
    data = bytearray(segment.read_bytes())
    data[40] ^= 1
    segment.unlink() if fate == "delete" else segment.write_bytes(data)
    summary, findings = await deployment.copy(is_verified=True)
    assert [(finding.kind, finding.name) for finding in findings] == [("manifest", f"manifest/{segment.name}")]
    assert summary.counts.copied == 3
    _, findings = await deployment.copy(is_verified=True)
    assert findings == []
    assert copy.objects() == deployment.objects


@pytest.mark.parametrize("text", ["", "{", '{"segments": 1}', "null", '{"database_id": null}'])
async def test_an_index_that_cannot_be_read_stops_the_run(deployment: Deployment, copy: CopyFolder, text: str) -> None:
    key = await deployment.add("ada")
    await deployment.copy()
    (copy.root / "manifest.json").write_text(text)
    with pytest.raises(MediaBackupFailed, match=r"manifest\.json in .* is damaged\. Move it away"):
        await deployment.copy()
    assert copy.path(key).exists()
    (copy.root / "manifest.json").unlink()
    await deployment.copy(is_new=True)
    assert copy.objects() == deployment.objects


async def test_a_list_of_what_was_on_its_way_that_cannot_be_read_can_be_deleted(
    deployment: Deployment, copy: CopyFolder
) -> None:
    await deployment.add("ada")
    await deployment.copy()
    left = copy.root / "objects" / "bob.ogg"
    left.write_text("of a run that was killed; bob has gone since")
    (copy.root / "doing.json").write_text("{")
    with pytest.raises(MediaBackupFailed, match=r"doing\.json in .* is damaged\. Delete it"):
        await deployment.copy()
    (copy.root / "doing.json").unlink()
    _, findings = await deployment.copy(is_verified=True)
    assert [(finding.kind, finding.name) for finding in findings] == [("foreign", "objects/bob.ogg")]


async def test_an_index_with_one_bit_flipped_is_damaged_or_says_the_same(
    deployment: Deployment, copy: CopyFolder
) -> None:
    """What it forgot would stay in the copy for ever, when the account is erased too."""
    await deployment.add_many(["ada"] * 3)
    await deployment.copy()
    path = copy.root / "manifest.json"
    data, index = path.read_bytes(), copy.index()
    manifest = Manifest(BackupStore(Target(None, str(copy.root))))
    changed: list[int] = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with suppress(MediaBackupFailed):
            if await manifest.find_index() != index:
                changed.append(bit)
    assert changed == []


def test_names_that_were_added_are_known_and_others_are_not() -> None:
    names = Names()
    for number in range(20_000):
        names.add(f"objects/{number}")
    names.seal()
    assert all(f"objects/{number}" in names for number in range(20_000))
    assert not any(f"objects/-{number}" in names for number in range(20_000))
    assert "" not in names
