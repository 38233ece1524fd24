"""`yral-chat backup media --restore`: what the database knows and nobody has comes back, and nothing else changes."""

import shutil
from pathlib import Path

from tests.backups.media.deployment import CopyFolder, Deployment, copy_at, s3_settings
from tests.object_stores import Rclone

OWNERS = ["ada", "b@c.example", "é"]


async def test_a_lost_folder_comes_back(deployment: Deployment, copy: CopyFolder) -> None:
    await deployment.add_many(OWNERS * 4, 2000, "image")
    await deployment.add("creator", 500, "image", is_public=True)
    left = await deployment.add("ada")
    await deployment.copy()
    await deployment.delete(left)
    media = deployment.settings.data_dir / "media"
    shutil.rmtree(media)
    restored, findings = await deployment.restore()
    assert (restored, findings) == (26, [])
    assert {str(path.relative_to(media)): path.read_bytes() for path in media.glob("*/*.*g")} == deployment.objects
    assert await deployment.restore() == (0, [])
    assert sorted(path.name for path in deployment.settings.data_dir.iterdir() if path.is_dir()) == ["media"]
    assert copy.path(left).exists()


async def test_a_lost_bucket_comes_back_from_another(tmp_path: Path, bucket: Rclone) -> None:
    (tmp_path / "other").mkdir()
    with Rclone(tmp_path / "other") as other:
        async with Deployment.open(s3_settings(tmp_path / "data", bucket.url, **copy_at(other.url))) as deployment:
            await deployment.add_many(OWNERS, 2000, "image")
            large = await deployment.add("ada", 6 * 1024 * 1024)
            await deployment.copy()
            shutil.rmtree(bucket.bucket / "ada")
            restored, findings = await deployment.restore()
            assert (restored, findings) == (3, [])
            assert (bucket.bucket / large).read_bytes() == deployment.objects[large]


async def test_only_what_is_missing_or_not_whole_is_touched(deployment: Deployment, copy: CopyFolder) -> None:
    whole, torn, small_torn = [await deployment.add("ada", 1000, "image") for _ in range(3)]
    await deployment.copy()
    media = deployment.settings.data_dir / "media"
    before = (media / whole).stat().st_mtime_ns
    (media / torn).write_bytes(b"short")
    (media / small_torn.replace(".png", "-small.jpg")).write_bytes(b"")
    assert await deployment.restore() == (2, [])
    assert (media / whole).stat().st_mtime_ns == before
    assert {key: (media / key).read_bytes() for key in deployment.objects} == deployment.objects


async def test_a_damaged_copy_brings_nothing_back(deployment: Deployment, copy: CopyFolder) -> None:
    damaged, gone, never = [await deployment.add("ada") for _ in range(3)]
    await deployment.copy()
    media = deployment.settings.data_dir / "media"
    late = await deployment.add("ada")
    shutil.rmtree(media)
    copy.path(damaged).write_bytes(b"x" * 100)
    copy.path(gone).unlink()
    restored, findings = await deployment.restore()
    assert restored == 1
    assert {(finding.kind, finding.name) for finding in findings} == {
        ("damaged", damaged), ("damaged", gone), ("lost", late)
    }  # fmt: skip
    assert [path.name for path in media.glob("*/*.ogg")] == [never.rpartition("/")[2]]
