"""Proves at intervals that the backup restores: `yral-chat backup drill`, in a process of its own."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from yral_chat.clients.programs import PIPE, Program
from yral_chat.core.clock import SECOND, from_text, now
from yral_chat.core.logging import log
from yral_chat.core.objects import Time
from yral_chat.services.backups.proof import NAME, Proof, load_proof

# A restored state that is older than this says nothing about the backup of today.
STALE_SECONDS: Final = 24 * 3600.0
# After a start: people come first, and the first snapshot has to be there.
FIRST_SECONDS: Final = 300.0
# Nothing arrives at the backup just now, or a drill could not even begin.
AGAIN_SECONDS: Final = 600.0
MAX_DRILL_SECONDS: Final = 3600.0
END_SECONDS: Final = 10.0
NOT_STARTED: Final = 126  # the shell's word for it
# Of what a command says before it fails.
MOST_SAID_BYTES: Final = 2000


class Proving:
    """What the last drill has shown, and the next one. `hours` of 0: none is made here.

    `is_ours` says whether a proof is about the backup that is made here, `begun_at` when that one began, if anybody
    knows.
    """

    def __init__(
        self,
        data_dir: Path,
        hours: float,
        is_wanted: Callable[[], bool],
        is_ours: Callable[[Proof], bool],
        *,
        stale_seconds: float = STALE_SECONDS,
        begun_at: Callable[[], Time | None] = lambda: None,
    ) -> None:
        self._data_dir = data_dir
        self._hours = hours
        self._is_wanted = is_wanted
        self._is_ours = is_ours
        self._stale_seconds = stale_seconds
        self._begun_at = begun_at
        self._started = now()
        self._read_at = -1
        self._proof: Proof | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._hours:
            self._task = asyncio.create_task(self._drill_forever())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def proof(self) -> Proof | None:
        """As the last drill has left it, also one that somebody made by hand; None: there was none."""
        try:
            written_at = (self._data_dir / NAME).stat().st_mtime_ns
        except OSError:
            return None
        if written_at != self._read_at:
            self._read_at, self._proof = written_at, load_proof(self._data_dir)
        return self._proof if self._proof is not None and self._is_ours(self._proof) else None

    @property
    def proven_seconds(self) -> float | None:
        """When the state that was last restored without a finding was, since the epoch; None: never."""
        proven_at = self.proof.proven_at if self.proof is not None else None
        return None if proven_at is None else from_text(proven_at) / SECOND

    @property
    def recovery_point_seconds(self) -> float | None:
        return None if self.proof is None else self.proof.recovery_point_seconds

    @property
    def recovery_seconds(self) -> float | None:
        return None if self.proof is None else self.proof.recovery_seconds

    @property
    def findings(self) -> int | None:
        return None if self.proof is None else len(self.proof.findings)

    @property
    def is_stale(self) -> bool:
        """Nothing was proven for a day; where nothing ever was, a service that makes drills has a day to do it.

        That day is the backup's: a service that is started each day would never have had one.
        """
        since = self.proven_seconds
        if since is None:
            since = self._begun_seconds if self._hours else 0
        return since < now() / SECOND - self._stale_seconds

    @property
    def _begun_seconds(self) -> float:
        begun_at = self._begun_at()
        return (self._started if begun_at is None else from_text(begun_at)) / SECOND

    @property
    def has_failed(self) -> bool:
        """The last drill has found something."""
        return self.proof is not None and not self.proof.is_proven

    async def _drill_forever(self) -> None:
        interval = self._hours * 3600
        await asyncio.sleep(min(FIRST_SECONDS, interval))
        while True:
            began = time.monotonic()
            has_drilled = self._is_wanted() and await self._drill()
            await asyncio.sleep(interval if has_drilled else pause_after(time.monotonic() - began, interval))

    async def _drill(self) -> bool:
        """Whether it has come to a result."""
        before = self.proof
        status = await run_command("drill", MAX_DRILL_SECONDS)
        if status != 0 or self.has_failed:
            log.error("backup.not_proven", status=status)
        else:
            log.info("backup.proven", proven_at=self.proof.proven_at if self.proof is not None else None)
        return self.proof != before


def pause_after(took: float, interval: float) -> float:
    """Seconds until the next try behind one that came to nothing; it may have filled a disk for an hour."""
    return min(interval, max(AGAIN_SECONDS, 9 * took))


async def run_command(name: str, seconds: float) -> int:
    """The exit status of `yral-chat backup <name>`; NOT_STARTED where the machine has no room for it.

    It is ended after `seconds`, and when this is cancelled.

    In a process of its own: it is slow, takes memory, and may die.
    """
    command = (sys.executable, "-m", "yral_chat.cli", "backup", name)
    try:
        process = await Program.start(*command, stderr=PIPE)
    except OSError as error:  # no memory, or no number for another process
        log.error("backup.command_not_started", command=name, error=str(error))
        return NOT_STARTED
    assert process.stderr is not None  # noqa: S101 - asked for
    saying, said = asyncio.create_task(_last_words(process.stderr)), ""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await process.wait()
    finally:
        # As Ctrl-C does, so that it tidies up what it has begun; or without that.
        for number in (signal.SIGINT, signal.SIGKILL):
            process.send_signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_SECONDS)
        with suppress(TimeoutError):  # something that it has begun and left may hold the other end
            said = await asyncio.wait_for(saying, END_SECONDS)
        process.close()
    status = await process.wait()
    if status != 0 and said:
        log.error("backup.command_failed", command=name, status=status, said=said)
    return status


async def _last_words(stream: asyncio.StreamReader) -> str:
    said = b""
    while piece := await stream.read(MOST_SAID_BYTES):
        said = (said + piece)[-MOST_SAID_BYTES:]
    return said.decode(errors="replace").strip()
