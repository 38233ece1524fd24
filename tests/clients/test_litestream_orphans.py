"""Programs that hold the lock of a Litestream, and what becomes of them."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from yral_chat.clients.backup_store import Target
from yral_chat.clients.litestream import Litestream, LitestreamError, wait_for_orphan
from yral_chat.clients.litestream_orphans import NAME, end_orphan, lock_to_inherit


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with lock_to_inherit(tmp_path) as lock:
        process = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
        os.write(lock, str(process.pid).encode())
    yield process
    process.kill()
    process.wait()


async def test_nobody_is_waited_for_where_nobody_is(tmp_path: Path) -> None:
    assert await end_orphan(tmp_path / "nowhere", seconds=0, is_ending=True)
    with lock_to_inherit(tmp_path):
        pass
    assert await end_orphan(tmp_path, seconds=0, is_ending=True)


async def test_one_that_was_told_nothing_is_told(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    assert await end_orphan(tmp_path, seconds=10, is_ending=False)
    assert holder.wait(10) == -15


async def test_one_that_does_not_end_is_ended(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    # As long again for the kernel to end it, also where the machine is busy.
    assert await end_orphan(tmp_path, seconds=2, is_ending=True)
    assert holder.wait(10) == -9


async def test_one_is_waited_for(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    waiting = asyncio.create_task(end_orphan(tmp_path, seconds=30, is_ending=True))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    holder.terminate()
    assert await waiting
    assert holder.wait(10) == -15


@pytest.mark.parametrize("text", ["", "garbage", "-1"])
async def test_one_without_a_number_is_left_alone(tmp_path: Path, holder: "subprocess.Popen[bytes]", text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert not await end_orphan(tmp_path, seconds=0.1, is_ending=False)
    assert holder.poll() is None


async def test_a_lock_that_cannot_be_had_is_an_error_of_litestream(tmp_path: Path) -> None:
    """So it is tried again."""
    (tmp_path / NAME).mkdir()
    litestream = Litestream("litestream", tmp_path / "yral_chat.db", Target(None, str(tmp_path)), "", tmp_path)
    with pytest.raises(LitestreamError, match=r"its lock in .* cannot be"):
        await litestream.start()
    (tmp_path / NAME).rmdir()
    (tmp_path / NAME).symlink_to(NAME)
    with pytest.raises(LitestreamError, match=r"its lock in .* cannot be read"):
        await wait_for_orphan(tmp_path)
