"""`yral-chat jobs`: what waits and what failed for good; dead jobs begin anew or are forgotten.

Looking changes nothing and needs no server. Changes go through the running server, which alone writes its database;
without one they are made here, while nobody else can start.
"""

from collections.abc import Iterator
from typing import Literal

from yral_chat.clients.admin_api import AdminApiError, call_admin_api
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.failures import CannotGoOn
from yral_chat.db.backends import create_database
from yral_chat.db.database import Database
from yral_chat.db.failures import DatabaseInUse
from yral_chat.db.migrations import migrate
from yral_chat.db.repositories.jobs import QueuedJob
from yral_chat.db.viewing import viewing

Change = Literal["retry", "purge"]

SHOWN = 200


class JobCommandFailed(CannotGoOn):
    """A sentence for the operator."""


def list_jobs(settings: Settings, *, is_dead: bool) -> Iterator[str]:
    """Lines to print: the oldest jobs, and what there is in all. Raises DatabaseUnusable."""
    with viewing(settings.resolved_database_url) as uow:
        found = uow.jobs.list_queued(is_dead=is_dead, most=SHOWN)
        waiting, dead = sum(depth.count for depth in uow.jobs.list_depths()), uow.jobs.count_dead()
    if found:
        yield f"{'id':36}  {'name':20}  {'tries':>5}  {'state':27}  last error"
    yield from (_line(job) for job in found)
    if len(found) == SHOWN:
        yield f"… the oldest {SHOWN} of them"
    yield f"{waiting} waiting, {dead} dead"


def _line(job: QueuedJob) -> str:
    state = "dead" if job.is_dead else "due" if job.run_at <= now() else to_text(job.run_at)
    return f"{job.id:36}  {job.name:20}  {job.attempts:5}  {state:27}  {job.last_error or ''}".rstrip()


async def change_jobs(settings: Settings, change: Change, job_id: str | None = None) -> int:
    """Retries dead jobs (one, or None for all) or forgets all of them; returns how many.

    Raises JobCommandFailed, DatabaseUnusable.
    """
    database = create_database(settings.resolved_database_url)
    try:
        database.lock()
    except DatabaseInUse:
        return await _ask_server(settings, change, job_id)
    try:
        migrate(settings.resolved_database_url)
        await database.open()
        return await _change(database, change, job_id)
    finally:
        await database.close()


async def _change(database: Database, change: Change, job_id: str | None) -> int:
    if change == "purge":
        return await database.write(lambda uow: uow.jobs.purge_dead())
    return await database.write(lambda uow: uow.jobs.revive(job_id))


async def _ask_server(settings: Settings, change: Change, job_id: str | None) -> int:
    from yral_chat.serving import find_server  # lazily: it brings the whole service with it

    if settings.admin_api_key is None:
        raise JobCommandFailed("A server uses the database, and takes orders only with ADMIN_API_KEY: set it for both.")
    url = find_server(settings)
    key = settings.admin_api_key.get_secret_value()
    body = {"id": job_id} if change == "retry" else {}
    try:
        answer = await call_admin_api(url, key, f"/api/v1/admin/jobs/{change}", body)
    except AdminApiError as error:
        raise JobCommandFailed(str(error)) from error
    return int(answer["count"])
