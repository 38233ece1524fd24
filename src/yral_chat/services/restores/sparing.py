"""Files of what was deleted a moment ago may still be waiting for their removal: what comes back keeps them."""

from collections.abc import Callable

from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.snapshots import Snapshot
from yral_chat.services.media.service import REMOVE_JOB, remove_files

PAGE = 50


async def spare_files(
    database: Database, copy: Snapshot, conversation_id: str, *, wake_jobs: Callable[[], None]
) -> None:
    """Takes what the conversation showed out of the jobs that remove files, dead ones included.

    A job that is at work this very moment may be faster.
    """
    after = ""
    while page := await database.read(lambda uow, after: uow.jobs.list_payloads(REMOVE_JOB, after, PAGE), after):
        after = page[-1][0]
        for job_id, payload in page:
            used = await copy.read(lambda uow, keys: uow.restores.list_used(conversation_id, keys), payload["keys"])
            if used:
                await database.write(_narrow, job_id, payload["keys"], used)
                wake_jobs()


def _narrow(uow: UnitOfWork, job_id: str, keys: list[str], spared: set[str]) -> None:
    """Under a new id: a run that has read the old keys finds that it is not its job any more."""
    if uow.jobs.delete(job_id):
        remove_files(uow, [key for key in keys if key not in spared])
