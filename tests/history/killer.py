"""The one who ends the process, at any moment and without a word, and starts it again; or cuts it from its database."""

import asyncio
import random
from contextlib import suppress

import psycopg

from tests.history.record import Record
from tests.service import Service
from yral_chat.db.verification import examine

SETTINGS = {
    # Everything happens sooner, so that a short run meets it.
    "SEND_TIMEOUT_SECONDS": "2",
    "STREAM_IDLE_LIMIT_SECONDS": "2",
    "TURN_MAX_SECONDS": "6",
    "MODEL_TIMEOUT_SECONDS": "2.5",
    "SHUTDOWN_GRACE_SECONDS": "1",
    "STREAM_HEARTBEAT_SECONDS": "0.3",
    "STREAM_COALESCE_MS": "10",
    "BREAKER_FAILURES": "25",
    "BREAKER_OPEN_SECONDS": "0.5",
    "HISTORY_MESSAGES": "12",
    "MEMORIES_ENABLED": "true",
    # The log of events is kept whole, and what was said quietly stays a repetition.
    "WS_REPLAY_EVENTS": "100000",
    "DUPLICATE_GRACE_SECONDS": "119",
}


class Killer:
    """`up` is set while somebody listens at `url`."""

    def __init__(self, service: Service, record: Record, rng: random.Random) -> None:
        service.settings |= SETTINGS
        self._service = service
        self._record = record
        self._rng = rng
        self.up = asyncio.Event()

    @property
    def url(self) -> str:
        return self._service.url

    @property
    def _is_on_postgres(self) -> bool:
        return self._service.database_url.startswith("postgresql")

    async def start(self) -> None:
        await asyncio.to_thread(self._service.start)
        self.up.set()

    async def rage(self, until: float) -> None:
        """Until this time of the loop; the service runs afterwards."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(min(self._rng.uniform(0.2, 5), max(0.0, until - loop.time())))
            self._require_alive()
            has_killed = self._record.operations["kill -9"] > 0
            if has_killed and self._is_on_postgres and self._rng.random() < 0.5:
                await asyncio.to_thread(self._cut_connections)
                continue
            self.up.clear()
            await (self._stop if has_killed and self._rng.random() < 0.2 else self._kill)()
            while self._rng.random() < 0.25:
                await self._kill_while_it_starts()
            await self.examine()
            await self.start()

    async def examine(self) -> None:
        """Whenever it ended, the database is as verification says that it is after every commit."""
        faults = (await asyncio.to_thread(examine, self._service.database_url)).faults
        self._record.operations["examination"] += 1
        self._record.require(not faults, "a database with faults", faults=faults)

    def _require_alive(self) -> None:
        status = self._service.process.process.poll()
        self._record.require(status is None, "the service ended by itself", status=status, out=self.output()[-20:])

    def output(self) -> list[str]:
        return list(self._service.process.lines)

    def _cut_connections(self) -> None:
        """As when PostgreSQL is restarted: every connection of the service ends, in the middle of whatever it does."""
        self._record.operations["database cut"] += 1
        with psycopg.connect(self._service.database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'yral-chat' AND datname = current_database()"
            )

    async def _kill(self) -> None:
        self._record.operations["kill -9"] += 1
        await asyncio.to_thread(self._service.kill)

    async def _stop(self) -> None:
        """As a service manager does; most clients stay until the end."""
        self._record.operations["stop"] += 1
        status = await asyncio.to_thread(self._service.stop)
        self._record.require(status == 0, "stopped with another status", status=status, out=self.output()[-20:])

    async def _kill_while_it_starts(self) -> None:
        self._record.operations["kill -9 at start"] += 1
        before = self._service.running
        starting = asyncio.create_task(asyncio.to_thread(self._service.start))
        await asyncio.sleep(self._rng.uniform(0.1, 2.5))
        if self._service.running is not before:
            self._service.process.process.kill()
        # It complains that the program did not start, unless the program was faster.
        with suppress(AssertionError):
            await starting
            await asyncio.to_thread(self._service.kill)
