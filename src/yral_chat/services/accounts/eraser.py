"""Runs the units of an erasure one after the other, until nothing of the person is left."""

from collections.abc import Awaitable, Callable

from yral_chat.core.clock import SECOND, now
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import ERASE_JOB
from yral_chat.services.accounts import erasing
from yral_chat.services.accounts.erasing import Deleted, Step
from yral_chat.services.accounts.erasure_log import Erasure

# The request itself erases; should its process die, the job goes on this long after the last sign of life.
LEASE_SECONDS = 60
PAGE = 200

Finish = Callable[[UnitOfWork, Erasure, Deleted], None]


async def _nobody_runs(user_id: str) -> None:
    """Where nothing is served, nothing has to be stopped."""


def _nothing(_: object = None) -> None:
    """As above."""


class Eraser:
    """What it is given tells those who serve the person what becomes of them; without, nobody is served."""

    def __init__(
        self,
        database: Database,
        *,
        stop_user: Callable[[str], Awaitable[None]] = _nobody_runs,
        stop_conversation: Callable[[str], None] = _nothing,
        forget_influencers: Callable[[list[str]], None] = _nothing,
        wake_jobs: Callable[[], None] = _nothing,
    ) -> None:
        self._database = database
        self._stop_user = stop_user
        self._stop_conversation = stop_conversation
        self._forget_influencers = forget_influencers
        self._wake_jobs = wake_jobs

    async def is_finished(self, erasure: Erasure) -> bool:
        """Whether this database has lived through it."""
        return await self._database.read(lambda uow: uow.accounts.is_finished(erasure.id))

    async def run(self, erasure: Erasure, finish: Finish = erasing.finish) -> Deleted:
        """May be repeated. `finish` is the last unit."""
        user_id = erasure.user_id
        await self._stop_user(user_id)
        steps = await self._erase_conversations(erasure)
        await self._stop_user(user_id)  # of a conversation that began meanwhile
        for unit in (erasing.drop_files, erasing.erase_influencers, erasing.anonymise_usage):
            steps += await self._repeat(erasure, unit, user_id)
            self._forget_influencers([id_ for step in steps for id_ in step.influencer_ids])
        deleted = erasing.total(steps)
        await self._database.write(finish, erasure, deleted)
        return deleted

    async def _erase_conversations(self, erasure: Erasure) -> list[Step]:
        steps: list[Step] = []
        user_id, after = erasure.user_id, ""
        while page := await self._database.read(_list_conversations, user_id, after):
            for conversation_id, after in page:  # noqa: B007 - the last one is where the next page begins
                self._stop_conversation(conversation_id)
                steps += await self._repeat(erasure, erasing.thin_conversation, conversation_id)
        nobody = erasing.nobody_of(erasure)
        for conversation_id in await self._database.read(lambda uow: uow.accounts.list_human_conversations(user_id)):
            steps += await self._repeat(erasure, erasing.thin_human_chat, conversation_id, user_id, nobody)
        return steps

    async def _repeat(self, erasure: Erasure, unit: Callable[..., Step], *args: str) -> list[Step]:
        """Runs the unit until it finds no more; each run keeps the job from being taken by the runner."""

        def step(uow: UnitOfWork) -> Step:
            uow.jobs.renew([erasure.id], now() + LEASE_SECONDS * SECOND)
            uow.after_commit(self._wake_jobs)
            return unit(uow, *args)

        steps = [await self._database.write(step)]
        while steps[-1].has_more:
            steps.append(await self._database.write(step))
        return steps


def queue(uow: UnitOfWork, erasure: Erasure) -> None:
    """The job that goes on with it."""
    payload = {"id": erasure.id, "user_id": erasure.user_id, "at": erasure.at}
    uow.jobs.add(ERASE_JOB, payload, run_at=now() + LEASE_SECONDS * SECOND, job_id=erasure.id)


def queue_anew(uow: UnitOfWork, erasure: Erasure) -> None:
    """Whoever looks at a database in the middle of an erasure finds its job there (db/verification)."""
    uow.jobs.delete(erasure.id)
    queue(uow, erasure)


def _list_conversations(uow: UnitOfWork, user_id: str, after: str) -> list[tuple[str, str]]:
    return uow.accounts.list_ai_conversations(user_id, after, PAGE)
