"""`yral-chat backup media` as people run it: beside the server, in a terminal, killed in the middle, on a full disk."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backups.media.deployment import (
    CopyFolder,
    Deployment,
    copy_at,
    copy_in,
    hashes_of,
    s3_settings,
    settings_for,
)
from tests.cli.commands import SECONDS, Cli
from tests.client import Api, Document
from tests.crash.disk import SmallDisk, can_mount
from tests.faults.proxy import Fault, FaultProxy
from tests.files import uploaded
from tests.object_stores import ACCESS_KEY, BUCKET, SECRET_KEY, Rclone
from tests.programs import require
from tests.service import FakeModel, Service
from tests.waiting import there, until
from yral_chat.core.config import Settings


def cli_of(folder: Path, settings: Settings) -> Cli:
    """The command line of somebody who works on this deployment."""
    given: dict[str, str | None] = {"DATA_DIR": str(settings.data_dir), "MEDIA_BACKUP_URL": settings.media_backup_url}
    if settings.backup_endpoint_url is not None:
        given |= {
            "BACKUP_ENDPOINT_URL": settings.backup_endpoint_url,
            "BACKUP_ACCESS_KEY_ID": ACCESS_KEY,
            "BACKUP_SECRET_ACCESS_KEY": SECRET_KEY,
        }
    return Cli(folder / "home", **given)


@pytest.mark.long
async def test_the_summary_and_the_exit_status(deployment: Deployment, copy: CopyFolder, tmp_path: Path) -> None:
    cli = cli_of(tmp_path, deployment.settings)
    keys = await deployment.add_many(["ada"] * 3, 1024 * 1024)
    done = cli.run("backup", "media", "--verify")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"The copy at {copy.root} is complete.",
        "  files     3 (3.0 MiB), all read again",
        "  new       3 (3.0 MiB)",
        "  deleted   0",
        "  leaving   0 that people have deleted",
        "  findings  0",
    ]
    copy.path(keys[0]).write_bytes(b"")
    done = cli.run("backup", "media", "--verify")
    assert done.status == 1
    assert f"damaged: {keys[0]}: it is copied again\n" in done.out
    assert "findings  1" in done.out
    (deployment.settings.data_dir / "media" / keys[1]).unlink()
    done = cli.run("backup", "media")
    assert (done.status, done.out.splitlines()[:2]) == (
        1, [f"lost: {keys[1]}: its original is not there; --restore brings it back", f"The copy at {copy.root}:"]
    )  # fmt: skip
    done = cli.run("backup", "media", "--restore")
    assert done.status == 0
    assert done.out == "Of 3 objects 1 were missing and are back (1.0 MiB); 0 are not as they should be.\n"


async def test_a_terminal_shows_how_far_it_is(deployment: Deployment, tmp_path: Path) -> None:
    await deployment.add_many(["ada"] * 3)
    with cli_of(tmp_path, deployment.settings).in_terminal("backup", "media", "--verify") as terminal:
        terminal.expect("[##############################] 3 of 3 copied")
        terminal.expect("[##############################] 3 of 3 verified")
        terminal.expect("is complete.")
        assert terminal.wait() == 0


def test_what_cannot_be_meant_is_said(tmp_path: Path) -> None:
    done = Cli(tmp_path).run("backup", "media", "--restore", "--verify")
    assert (done.status, done.out, done.err) == (1, "", "--restore goes alone.\n")


@pytest.mark.long
async def test_a_killed_run_is_gone_on_with(tmp_path: Path, bucket: Rclone) -> None:
    """900 files; the connection that brings one of the last goes silent, and then the process is killed."""
    with FaultProxy(bucket.url) as proxy:
        settings = settings_for(tmp_path / "data", **copy_at(proxy.in_place_of(bucket.url)))
        async with Deployment.open(settings) as deployment:
            keys = sorted(await deployment.add_many([f"user-{number:03}" for number in range(900)], 10))
            proxy.fault = Fault("silence", side="client", at=f"objects/{keys[700]} ".encode())
            cli = cli_of(tmp_path, settings)
            copy = CopyFolder(bucket.bucket / "copy")
            running = cli.start("backup", "media")
            try:
                await until(there(lambda: all(copy.path(key).exists() for key in keys[:700])), what="most are there")
                second = cli.run("backup", "media")
                assert second.status == 1
                assert second.err == "Another `yral-chat backup media` is at work. Let it end.\n"
            finally:
                running.send_signal(signal.SIGKILL)
                running.communicate(timeout=SECONDS)
            assert len(copy.entries()) == 500
            before = {key: copy.path(key).stat().st_mtime_ns for key in copy.objects()}
            assert 700 <= len(before) < 900
            proxy.heal()
            _, findings = await deployment.copy(is_verified=True)
            assert findings == []
            assert copy.objects() == deployment.objects
            after = {key: copy.path(key).stat().st_mtime_ns for key in before}
            assert after == before, "what had arrived was not sent again"


@pytest.mark.long
async def test_a_killed_restore_leaves_no_files_of_people_beside_the_media(tmp_path: Path, bucket: Rclone) -> None:
    with FaultProxy(bucket.url) as proxy:
        settings = settings_for(tmp_path / "data", **copy_at(proxy.in_place_of(bucket.url)))
        async with Deployment.open(settings) as deployment:
            key = await deployment.add("ada", 4 * 1024 * 1024)
            await deployment.copy()
            (settings.data_dir / "media" / key).unlink()
            proxy.fault = Fault("silence", after=2 * 1024 * 1024)
            running = cli_of(tmp_path, settings).start("backup", "media", "--restore")
            try:
                half = there(lambda: any(path.stat().st_size for path in settings.data_dir.glob("*restoring*/*")))
                await until(half, what="half of it is there")
            finally:
                running.kill()
                running.communicate(timeout=SECONDS)
            proxy.heal()
            await deployment.copy()
            assert [path.name for path in settings.data_dir.iterdir() if path.is_dir()] == ["media"]


async def test_ctrl_c_stops_with_a_word(tmp_path: Path, bucket: Rclone) -> None:
    with FaultProxy(bucket.url) as proxy:
        settings = settings_for(tmp_path / "data", **copy_at(proxy.in_place_of(bucket.url)))
        async with Deployment.open(settings) as deployment:
            key = await deployment.add("ada")
            proxy.fault = Fault("silence", side="client", at=f"objects/{key} ".encode())
            with cli_of(tmp_path, settings).in_terminal("backup", "media") as terminal:
                await until(there(lambda: proxy.struck > 0), what="it is on its way")
                terminal.ctrl_c()
                terminal.expect("Stopped. The next run goes on.")
                assert terminal.wait() == 1


async def test_a_full_disk_is_named_and_leaves_what_is_whole(tmp_path: Path) -> None:
    require("a mount namespace", can_mount())
    place = tmp_path / "small"
    async with Deployment.open(settings_for(tmp_path / "data", **copy_in(place))) as deployment:
        await deployment.add_many(["ada"] * 6, 300_000)
        cli = cli_of(tmp_path, deployment.settings)
        with SmallDisk(place, 1024 * 1024) as disk:
            done = await asyncio.to_thread(
                subprocess.run,
                [*disk.enter, *cli.command("backup", "media")],
                env=cli.environment(), capture_output=True, text=True, timeout=SECONDS, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            assert f"The copy at {place} cannot be used: it is full." in done.stderr
            objects = CopyFolder(disk.inside).objects()
            assert objects
            assert objects.items() <= deployment.objects.items()


@pytest.mark.long
async def test_beside_a_running_service(tmp_path: Path, model: FakeModel) -> None:
    """What people upload is copied while it serves; whoever erases the account is gone at the next run."""
    with Service(tmp_path, **model.settings) as service:
        document = Document.of(service)
        ada, bob = Api(service.url, document), Api(service.url, document)
        picture, speech = await uploaded(ada, "image"), await uploaded(bob, "audio")
        copy = CopyFolder(tmp_path / "copy")
        cli = Cli(tmp_path / "home", DATA_DIR=str(tmp_path / "data"), MEDIA_BACKUP_URL=copy.root.as_uri())
        done = cli.run("backup", "media", "--verify")
        assert (done.status, done.err) == (0, "")
        media = tmp_path / "data" / "media"
        assert copy.objects() == {str(path.relative_to(media)): path.read_bytes() for path in media.glob("[!.]*/*")}
        assert {picture["storage_key"], speech["storage_key"]} < copy.objects().keys()
        assert (await ada.delete("/api/v1/users/me")).status_code == 200
        done = cli.run("backup", "media")
        assert (done.status, done.err) == (0, "")
        assert "  deleted   1\n" in done.out
        assert list(copy.objects()) == [speech["storage_key"]]
        await ada.close()
        await bob.close()


# The kernel's own high-water mark of this program: what getrusage tells begins with that of whoever started it.
PEAK = """
import sys
from pathlib import Path
from yral_chat.cli import app
try:
    app(sys.argv[1:])
finally:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print("peak", line.split()[1])
"""


@pytest.mark.long
async def test_memory_is_bounded(tmp_path: Path, bucket: Rclone) -> None:
    """12 files of 20 MiB from bucket to bucket, verified: at most 100 MiB more than a run of one small file."""
    (tmp_path / "other").mkdir()
    with Rclone(tmp_path / "other") as other:
        settings = s3_settings(tmp_path / "data", bucket.url, **copy_at(other.url))
        async with Deployment.open(settings) as deployment:
            cli = cli_of(tmp_path, settings)
            cli.settings |= {
                "MEDIA_BACKEND": "s3", "S3_ENDPOINT_URL": bucket.url, "S3_BUCKET": BUCKET,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            }  # fmt: skip

            def peak() -> int:
                """In MiB."""
                done = subprocess.run(
                    [sys.executable, "-c", PEAK, "backup", "media", "--verify"],
                    cwd=cli.folder, env=cli.environment(), capture_output=True, text=True, timeout=SECONDS, check=True,
                )  # fmt: skip
                return int(done.stdout.split("peak ")[1]) // 1024

            await deployment.add("ada")
            least = peak()
            await deployment.add_many(["ada"] * 12, 20 * 1024 * 1024)
            most = peak()
            assert CopyFolder(other.bucket / "copy").hashes() == hashes_of(deployment.objects)
            assert most - least < 100, (least, most)
