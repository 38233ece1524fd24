"""A Litestream that outlives the service that has started it, as after `kill -9`: found, and waited for.

While it replicates it holds a lock in its folder. It inherits the open file, and nobody else has it, so that the kernel
lets go of the lock when the process is gone, and not before. Its number stands in the file.
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NAME: Final = "litestream.lock"
POLL_SECONDS: Final = 0.1


@contextmanager
def lock_to_inherit(folder: Path) -> Iterator[int]:
    """The open file; whoever inherits it in the block holds the lock from then on. Raises OSError, also when it is held
    already.
    """
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        yield handle
    finally:
        os.close(handle)


async def end_orphan(folder: Path, *, seconds: float, is_ending: bool) -> bool:
    """Returns once nobody holds the lock: True, or False where somebody does after twice as many `seconds`.

    `is_ending`: it was told already that we are gone, and sends what is left; a second signal would cut that.
    """
    signals = (None if is_ending else signal.SIGTERM, signal.SIGKILL)
    for number in signals:
        if (pid := await asyncio.to_thread(_holder, folder)) is None:
            return True
        if number is not None and pid:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        for _ in range(round(seconds / POLL_SECONDS)):
            if await asyncio.to_thread(_holder, folder) is None:
                return True
            await asyncio.sleep(POLL_SECONDS)
    return False


def _holder(folder: Path) -> int | None:
    """Its process; 0 when that is not known, None when nobody holds it."""
    try:
        handle = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.read(handle, 20)
        return int(number) if number.isdigit() else 0
    else:
        return None
    finally:
        os.close(handle)
