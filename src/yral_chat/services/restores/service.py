"""RestoreService: puts one conversation, or everything of one person, back out of a copy of the database.

The union of both by ids: what is missing comes back, what is there stays as it is, and doing it again changes nothing.
Each unit of work is short and leaves everything consistent, so that nobody waits and a run that was cut off is
repeated. docs/decisions/0020 has the rules.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from loguru import logger

from yral_chat.core import deadlines
from yral_chat.core.config import Settings
from yral_chat.core.errors import Conflict
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.snapshots import Snapshot
from yral_chat.realtime.hub import Hub
from yral_chat.services.accounts.erasure_log import ErasureLog
from yral_chat.services.inbox import RESYNC
from yral_chat.services.restores.erased import Erasures
from yral_chat.services.restores.locating import locate
from yral_chat.services.restores.records import Step, Wanted
from yral_chat.services.restores.runs import Run

REASON = "messages were restored from a backup"


class UnusableCopy(Conflict):
    """The sentence says why."""


class ForeignCopy(Conflict):
    message = "The copy is one of another database. Nothing was put back; --force does it all the same"


class RestoreService:
    """See the module. One run at a time; others wait."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        hub: Hub,
        *,
        forget_influencers: Callable[[list[str]], None],
        wake_jobs: Callable[[], None],
    ) -> None:
        self._database = database
        self._hub = hub
        self._forget_influencers = forget_influencers
        self._wake_jobs = wake_jobs
        self._settings = settings
        self._log = ErasureLog(settings.data_dir / "erasures.jsonl")
        self._lock = asyncio.Lock()

    async def locate(self, *, file: str | None, database: str | None) -> str:
        """The URL of a copy that this process may read: see locating."""
        return await asyncio.to_thread(locate, self._settings, file=file, database=database)

    async def put_back(self, copy_url: str, wanted: Wanted) -> AsyncGenerator[Step, None]:
        """Steps while it works, the last with the result; the first comes once it is clear that there is something.

        Raises NotFound, AccountErased, ForeignCopy, UnusableCopy, and for one conversation why it cannot come back. Of
        everything of a person, a conversation that cannot is named in the result.
        """
        wanted.check()
        deadlines.lift()
        try:
            async with self._lock, Snapshot(copy_url) as copy:
                if not wanted.is_forced:
                    await self._check_origin(copy)
                finished = await self._database.read(lambda uow: uow.accounts.list_erasures())
                erasures = Erasures(await asyncio.to_thread(self._log.read), finished)
                run = Run(self._database, copy, wanted, erasures, self._wake_jobs)
                async with aclosing(run.steps()) as steps:
                    async for step in steps:
                        yield step
                await self._tell(run)
        except DatabaseUnusable as error:
            raise UnusableCopy(str(error)) from error
        yield {"result": run.result}

    async def _check_origin(self, copy: Snapshot) -> None:
        """Ids of conversations and people mean something in one database, and who was erased is known of one only."""

        def read(uow: UnitOfWork) -> str:
            return uow.installation.get_id()

        if await copy.read(read) != await self._database.read(read):
            raise ForeignCopy

    async def _tell(self, run: Run) -> None:
        if run.touched:
            await self._database.write(self._tell_all, sorted(run.touched))
        self._forget_influencers(sorted(run.personas))
        logger.info("restore.finished", **{name: value for name, value in run.result.items() if name != "left_out"})

    def _tell_all(self, uow: UnitOfWork, people: list[str]) -> None:
        """Kept like other events, so that whoever connects later with an older number asks anew too."""
        data = {"reason": REASON}
        for person in people:
            seq = uow.events.add(person, "", RESYNC, data)
            uow.after_commit(lambda person=person, seq=seq: self._hub.publish(person, RESYNC, data, seq=seq))  # type: ignore[misc]
