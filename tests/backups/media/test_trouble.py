"""Targets that cannot be used, settings that cannot be meant: each with a sentence that says what is wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from tests.backups.media.deployment import CopyFolder, Deployment, copy_at, copy_in, s3_settings, settings_for
from tests.clients.test_storage_outages import answering
from tests.object_stores import BUCKET, Rclone
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.services.backups.media import MediaBackup, MediaBackupFailed

GOES_ON = r"What was copied until now stays; the next run goes on\."


async def attempt(folder: Path, **settings: Any) -> str:
    """What a copy of one file says with these settings."""
    async with Deployment.open(settings_for(folder / "data", **settings)) as deployment:
        await deployment.add("ada")
        with pytest.raises(MediaBackupFailed) as caught:
            await deployment.copy()
        return str(caught.value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"backup_access_key_id": SecretStr("nobody")}, "the keys are refused"),
    "secret": ({"backup_secret_access_key": SecretStr("guessed")}, "the keys are refused"),
    "bucket": ({"media_backup_url": "s3://nowhere/copy"}, "there is no such bucket"),
    "address": ({"backup_endpoint_url": "http://127.0.0.1:9"}, "it does not answer"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_target_that_is_set_wrong_is_told_by_its_fault(tmp_path: Path, bucket: Rclone, wrong: str) -> None:
    changes, words = WRONG[wrong]
    message = await attempt(tmp_path, **(copy_at(bucket.url) | changes))
    assert words in message
    assert "guessed" not in message


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (507, "XMinioStorageFull", "it is full"),
        (403, "QuotaExceeded", "it is full"),
        (403, "AccessDenied", "access is denied"),
        (301, "PermanentRedirect", "the bucket is in another region"),
    ],
)
async def test_a_target_that_refuses_is_told_by_what_it_says(
    tmp_path: Path, status: int, code: str, words: str
) -> None:
    async with answering(status, code).running() as server:
        assert words in await attempt(tmp_path, **copy_at(server.url))


async def test_a_folder_that_nobody_may_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be used" in await attempt(tmp_path, **copy_in(tmp_path / "file" / "copy"))


async def test_media_that_cannot_be_read_are_told_apart_from_the_copy(tmp_path: Path, bucket: Rclone) -> None:
    settings = s3_settings(tmp_path / "data", bucket.url, **copy_in(tmp_path / "copy"))
    async with Deployment.open(settings) as deployment:
        await deployment.add("ada")
    wrong = settings.model_copy(update={"aws_secret_access_key": SecretStr("guessed")})
    with pytest.raises(MediaBackupFailed, match=r"^The media cannot be read \(403 SignatureDoesNotMatch\)\.$"):
        await MediaBackup(wrong, print, print).copy()
    assert not (tmp_path / "copy").exists()


async def test_the_media_of_another_database_are_not_mixed_in(
    deployment: Deployment, copy: CopyFolder, tmp_path: Path
) -> None:
    await deployment.add("ada")
    await deployment.copy()
    before = copy.objects()
    async with Deployment.open(settings_for(tmp_path / "second", **copy_in(copy.root))) as second:
        await second.add("bob")
        actions: list[Callable[[], Any]] = [second.copy, second.restore]
        for action in actions:
            with pytest.raises(MediaBackupFailed, match="holds the media of another database"):
                await action()
    assert copy.objects() == before


async def test_a_disk_that_is_not_mounted_is_no_new_copy(deployment: Deployment, copy: CopyFolder) -> None:
    await deployment.add("ada")
    await deployment.copy()
    shutil.rmtree(copy.root)
    with pytest.raises(MediaBackupFailed, match="Is the disk mounted"):
        await deployment.copy()
    assert not copy.root.exists() or not list(copy.root.iterdir())
    with pytest.raises(MediaBackupFailed, match="holds no copy"):
        await deployment.restore()
    await deployment.copy(is_new=True)
    assert copy.objects() == deployment.objects


async def test_without_a_database_nothing_is_begun(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data", **copy_in(tmp_path / "copy"))
    with pytest.raises(DatabaseUnusable, match="There is no database"):
        await MediaBackup(settings, print, print).copy()


async def test_the_key_that_links_are_signed_with_is_not_asked_for(deployment: Deployment, copy: CopyFolder) -> None:
    await deployment.add("ada")
    key = deployment.settings.data_dir / "media-signing-key"
    await deployment.copy()
    assert not key.exists()
    key.write_bytes(b"damaged")
    await deployment.copy()
    assert copy.objects() == deployment.objects


def test_without_a_place_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(MediaBackupFailed, match="MEDIA_BACKUP_URL is not set"):
        MediaBackup(settings_for(tmp_path), print, print)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"media_backup_url": "/folder"}, "it has to look like"),
        ({"media_backup_url": "https://bucket"}, "it has to look like"),
        ({"media_backup_url": "s3://"}, "it has to look like"),
        ({"media_backup_url": "s3://bucket"}, "set BACKUP_ACCESS_KEY_ID and BACKUP_SECRET_ACCESS_KEY"),
        ({"media_backup_url": "file:///a/b", "backup_url": "file:///a"}, "one inside the other"),
        ({"media_backup_url": "file:///a", "backup_url": "file:///a/b/"}, "one inside the other"),
        ({"media_backup_url": "s3://b/x", "backup_url": "s3://b/x", "backup_access_key_id": "k",
          "backup_secret_access_key": "s"}, "one inside the other"),
        ({"media_backup_url": f"s3://{BUCKET}/copy", "media_backend": "s3", "s3_bucket": BUCKET,
          "aws_access_key_id": "k", "aws_secret_access_key": "s"}, "the bucket of the media themselves"),
        ({"media_backup_url": "file:///srv/chat/media/copy", "data_dir": "/srv/chat"},
         "the folder of the media themselves"),
    ],
)  # fmt: skip
def test_places_that_cannot_be_meant_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings_for(**({"folder": tmp_path} | {key.replace("data_dir", "folder"): changes[key] for key in changes}))


@pytest.mark.parametrize("backup_url", ["file:///a/b-more", "file:///c", "s3://a/b"])
def test_places_beside_each_other_are_taken(tmp_path: Path, backup_url: str) -> None:
    keys = {"backup_access_key_id": "k", "backup_secret_access_key": "s"}
    assert settings_for(tmp_path, media_backup_url="file:///a/b", backup_url=backup_url, **keys).media_backup_url
