"""Keeps Litestream running beside the service, and knows how it is: restarted with backoff, asked every two seconds."""

import asyncio
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from yral_chat.clients.backup_store import reason_of
from yral_chat.clients.litestream import KILLED_SECONDS, Litestream, LitestreamError, Position
from yral_chat.clients.resilience import Backoff
from yral_chat.core.errors import AppError
from yral_chat.core.logging import log
from yral_chat.core.metrics import Metrics
from yral_chat.db.database import Database

WATCH_SECONDS: Final = 2.0
# A program that does not answer for so long hangs, and is started anew.
SILENCE_SECONDS: Final = 60.0
# For how long an end waits for the last changes to arrive.
LAST_SECONDS: Final = 20.0
LAST_POLL_SECONDS: Final = 0.1
# What has run for so long was well: its next failure is a first one.
STEADY_SECONDS: Final = 60.0
BACKOFF: Final = Backoff(first_seconds=1.0, max_seconds=60.0)
# Behind by more than this the backup counts as degraded. A bucket that hiccups is not worth waking anybody.
LAGGING_SECONDS: Final = 60.0
# Who needs longer to see that nothing is new reads a whole snapshot for it.
SLOW_SECONDS: Final = 0.5
# What the log may grow to while Litestream, which alone shortens it, does not run.
MAX_WAL_BYTES: Final = 256 * 1024 * 1024

State = Literal["starting", "replicating", "lagging", "down", "stopped"]


class Replication:
    """One running Litestream of a database that is served."""

    def __init__(self, litestream: Litestream, metrics: Metrics, database: Database) -> None:
        self._litestream = litestream
        self._metrics = metrics
        self._database = database
        self._tasks: list[asyncio.Task[None]] = []
        self._one_checkpoints = asyncio.Lock()
        self._is_running = False
        self._has_answered = False
        self._stopping = asyncio.Event()
        self._waiting: deque[tuple[int, float]] = deque()  # (transaction, when it was seen first) that has not arrived
        self._level_at = time.monotonic()  # since when the oldest of them waits, or when last everything had arrived
        self._answered_at = time.monotonic()
        self._last_error: str | None = None
        self._error_txid: int | None = None  # what has to arrive for it to be over; None: that is yet to be asked
        self._one_stops = asyncio.Lock()

    def start(self) -> None:
        """Returns at once: whether the bucket answers is seen by `state`."""
        self._tasks = [asyncio.create_task(self._run_forever()), asyncio.create_task(self._watch_forever())]

    async def stop(self, *, may_start: bool = True, is_sending: bool = True) -> None:
        """Call it once the database is closed: the last changes are sent first, within bounds.

        `may_start`: for that Litestream is started once more where it does not run. Without `is_sending` they are not.
        """
        async with self._one_stops:
            if not self._tasks:
                return
            self._stopping.set()
            self._tasks[1].cancel()
            if is_sending:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_SECONDS):
                        await self._send_last(may_start)
            await self._litestream.stop()
            if self._is_running:  # else it is still being started
                await asyncio.wait(self._tasks, timeout=KILLED_SECONDS)  # its log has no end where it cannot be ended
            self._tasks[0].cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks = []

    async def _send_last(self, may_start: bool) -> None:
        """One that was only just started would not do it by itself; one that was ended together with us did not."""
        while True:
            if self._tasks[0].done():
                if not may_start:
                    return
                may_start = False
                self._tasks[0] = asyncio.create_task(self._run())
            with suppress(LitestreamError):
                await self._litestream.wait_replicated(LAST_SECONDS)
                return
            await asyncio.sleep(LAST_POLL_SECONDS)

    @property
    def lag_seconds(self) -> float:
        """For how long something that was committed has not arrived. 0: everything had when we last looked."""
        late = time.monotonic() - self._level_at
        return 0.0 if late <= 2 * WATCH_SECONDS else late

    @property
    def state(self) -> State:
        if not self._tasks:
            return "stopped"
        if not self._is_running:
            return "down"
        if self.lag_seconds > LAGGING_SECONDS:  # also of one that has never answered
            return "lagging"
        return "replicating" if self._has_answered else "starting"

    @property
    def error(self) -> str | None:
        """What keeps changes from arriving, as a plain clause; None when they do."""
        return None if self._last_error is None else reason_of(self._last_error)

    @property
    def wal_bytes(self) -> int:
        """Of the database's write-ahead log."""
        try:
            return Path(f"{self._litestream.database}-wal").stat().st_size
        except OSError:
            return 0

    async def scrub(self) -> bool:
        """Empties the log now: Litestream lets go for a moment, and then sends a whole snapshot."""
        async with self._one_checkpoints:
            if not self._is_running:
                return await self._database.scrub()
            try:
                async with self._litestream.standing_still():
                    return await self._database.scrub()
            except LitestreamError as error:
                log.warning("backup.not_scrubbed", error=str(error))
                return False

    async def _run_forever(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            await self._run()
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            self._metrics.backup_restarts.inc()
            delay = BACKOFF.delay(failures - 1)
            log.error("backup.litestream_ended", error=self._last_error, restarts_in_seconds=round(delay, 1))
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    async def _run(self) -> None:
        """Once, until it has ended."""
        try:
            async with self._one_checkpoints:
                lines = await self._litestream.start()
                self._is_running, self._answered_at = True, time.monotonic()
            async for line in lines:
                if line.get("level") == "ERROR":
                    self._note(str(line.get("error") or line.get("msg") or ""))
        except LitestreamError as error:
            self._note(str(error))
        self._is_running = self._has_answered = False

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            asked = time.monotonic()
            try:
                position = await self._litestream.position(SILENCE_SECONDS)
            except LitestreamError as error:
                await self._miss(error)
                continue
            self._answered_at = time.monotonic()
            if self._answered_at - asked > SLOW_SECONDS:
                await self._touch()
            self._has_answered = True
            self._count(position)

    def _count(self, position: Position) -> None:
        while self._waiting and self._waiting[0][0] <= position.replicated_txid:
            self._waiting.popleft()
        if position.txid > max(position.replicated_txid, self._waiting[-1][0] if self._waiting else 0):
            self._waiting.append((position.txid, self._answered_at))
        self._level_at = self._waiting[0][1] if self._waiting else self._answered_at
        if self._last_error is not None and self._error_txid is None:
            self._error_txid = position.txid
        if self._error_txid is not None and self._error_txid <= position.replicated_txid:
            self._last_error = self._error_txid = None

    async def _touch(self) -> None:
        """Each second Litestream reads its last file again, which is a whole snapshot until something is written."""
        with suppress(AppError):  # a database that cannot be written: the next look tries again
            await self._database.write(lambda uow: uow.installation.touch())

    async def _miss(self, error: LitestreamError) -> None:
        """It does not answer: it hangs, or it is not there, and then nobody shortens the log."""
        async with self._one_checkpoints:  # until the log is cut the next one does not start
            if self._is_running:
                if time.monotonic() - self._answered_at <= SILENCE_SECONDS:
                    return
                self._note(str(error))
                await self._litestream.stop()
            await self.cut_log()

    async def cut_log(self) -> None:
        """Where it is too long and nobody else shortens it. What cannot be written just now is cut at the next look."""
        if (size := self.wal_bytes) > MAX_WAL_BYTES:
            with suppress(AppError):
                await self._database.scrub()
                log.warning("backup.log_cut", bytes=size)

    def _note(self, error: str) -> None:
        """Its errors come each second while a bucket is away: the log has each kind once."""
        self._metrics.backup_errors.labels(reason_of(error)).inc()
        if error != self._last_error:
            log.warning("backup.litestream_failed", error=error)
        self._last_error, self._error_txid = error, None
