"""The outbox of background work: rows are added in the transaction that makes them necessary."""

from typing import Any

import msgspec
import orjson
from sqlalchemy import bindparam, delete, func, insert, select, update

from yral_chat.core.clock import now
from yral_chat.core.ids import new_id
from yral_chat.db.execution import Executor, Statement
from yral_chat.db.tables import jobs


class Job(msgspec.Struct, frozen=True):
    """One piece of work. `attempts` counts the runs that were begun, this one included."""

    id: str
    name: str
    payload: dict[str, Any]
    attempts: int


_ADD = Statement(insert(jobs), columns=("id", "name", "payload", "attempts", "run_at", "is_dead", "created_at"))
_DUE = Statement(
    select(jobs.c.id, jobs.c.name, jobs.c.payload, jobs.c.attempts)
    .where(jobs.c.is_dead.is_(False), jobs.c.run_at <= bindparam("time"))
    .order_by(jobs.c.run_at, jobs.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_LEASE = Statement(
    update(jobs).where(jobs.c.id == bindparam("job")).values(attempts=jobs.c.attempts + 1, run_at=bindparam("until"))
)
# A job that was begun and has neither ended nor failed is leased; one that failed waits for its next time.
_FREE = Statement(
    update(jobs)
    .where(jobs.c.is_dead.is_(False), jobs.c.attempts > 0, jobs.c.last_error.is_(None))
    .values(run_at=bindparam("time"))
)
_DELETE = Statement(delete(jobs).where(jobs.c.id == bindparam("job")))
_RETRY = Statement(
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(run_at=bindparam("at"), last_error=bindparam("reason"), is_dead=bindparam("given_up"))
)
_NEXT = Statement(select(func.min(jobs.c.run_at)).where(jobs.c.is_dead.is_(False)))


class JobRepository:
    """Rows of `jobs`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, name: str, payload: dict[str, Any], *, run_at: int | None = None) -> None:
        """Queues one run of the job `name`, now or not before `run_at` (microseconds)."""
        time = now()
        self._executor.run(
            _ADD,
            {
                "id": new_id(),
                "name": name,
                "payload": orjson.dumps(payload).decode(),
                "attempts": 0,
                "run_at": time if run_at is None else run_at,
                "is_dead": False,
                "created_at": time,
            },
        )

    def lease_due(self, lease_until: int, most: int) -> list[Job]:
        """Takes up to `most` due jobs; they become due again at `lease_until` unless they are deleted before."""
        rows = self._executor.all(_DUE, {"time": now(), "most": most})
        if not rows:
            return []
        self._executor.run_many(_LEASE, [{"job": row[0], "until": lease_until} for row in rows])
        return [Job(job_id, name, orjson.loads(payload), attempts + 1) for job_id, name, payload, attempts in rows]

    def free_all(self) -> int:
        """For the only process of a database, at its start: whoever was doing these is gone. Returns how many."""
        return self._executor.run(_FREE, {"time": now()})

    def delete(self, *job_ids: str) -> int:
        """Done. Returns how many there were: in the same unit as its effect, this makes a job happen once."""
        return sum(self._executor.run(_DELETE, {"job": job_id}) for job_id in job_ids)

    def retry(self, job_id: str, *, run_at: int, error: str, is_dead: bool) -> None:
        parameters = {"job": job_id, "at": run_at, "reason": error[:500], "given_up": is_dead}
        self._executor.run(_RETRY, parameters)

    def next_run_at(self) -> int | None:
        """When the next job is due, in microseconds."""
        return self._executor.number(_NEXT, {})
