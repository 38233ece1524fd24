"""The outbox of background work: rows are added in the transaction that makes them necessary."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import orjson
from sqlalchemy import bindparam, delete, func, insert, select, update

from yral_chat.core.clock import now
from yral_chat.core.ids import new_id
from yral_chat.core.tracing import Cause
from yral_chat.db.execution import Executor, PageStatement, Statement
from yral_chat.db.tables import jobs

# What is queued under these names is not all in its rows yet (db/verification): costs of turns, and the rest of an
# erasure.
RECORD_JOB, ERASE_JOB = "turns.record", "accounts.erase"


class Job(msgspec.Struct, frozen=True):
    """One piece of work. `attempts` counts the runs that were begun, with this one; `created_at` in microseconds;
    `cause` is what added it; `has_failed`: a run before this one has said why it failed, others died."""

    id: str
    name: str
    payload: dict[str, Any]
    attempts: int
    created_at: int
    cause: Cause = Cause()
    has_failed: bool = False


class QueuedJob(msgspec.Struct, frozen=True):
    """One row as operators see it, without its payload. Times in microseconds."""

    id: str
    name: str
    attempts: int
    priority: int
    run_at: int
    last_error: str | None
    is_dead: bool
    created_at: int


class QueueDepth(msgspec.Struct, frozen=True):
    """What waits or runs under one name; `oldest_at` in microseconds is when the oldest was added."""

    name: str
    count: int
    oldest_at: int


# Where a payload says who caused it, beside what its handler reads: a column would cost every statement.
_CAUSE = "cause"

_ALIVE = jobs.c.is_dead.is_(False)
_ADD = Statement(
    insert(jobs), columns=("id", "name", "payload", "attempts", "priority", "run_at", "is_dead", "created_at")
)
_DUE = Statement(
    select(jobs.c.id, jobs.c.name, jobs.c.payload, jobs.c.attempts, jobs.c.created_at, jobs.c.last_error)
    .where(_ALIVE, jobs.c.name == bindparam("job_name"), jobs.c.run_at <= bindparam("time"))
    .order_by(jobs.c.priority.desc(), jobs.c.run_at, jobs.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_LEASE = Statement(
    update(jobs).where(jobs.c.id == bindparam("job")).values(attempts=jobs.c.attempts + 1, run_at=bindparam("until"))
)
_RENEW = Statement(update(jobs).where(jobs.c.id == bindparam("job")).values(run_at=bindparam("until")))
# A job that was begun and has neither ended nor failed is leased; one that failed waits for its next time.
_FREE = Statement(
    update(jobs).where(_ALIVE, jobs.c.attempts > 0, jobs.c.last_error.is_(None)).values(run_at=bindparam("time"))
)
_ADVANCE = Statement(
    update(jobs).where(_ALIVE, jobs.c.run_at > bindparam("time")).values(run_at=jobs.c.run_at - bindparam("micros"))
)
_DELETE = Statement(delete(jobs).where(jobs.c.id == bindparam("job")))
_RETRY = Statement(
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(run_at=bindparam("at"), last_error=bindparam("reason"), is_dead=bindparam("given_up"))
)
_POSTPONE = Statement(
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(run_at=bindparam("at"), last_error=bindparam("reason"), attempts=jobs.c.attempts - 1)
)
_HAS_DUE = Statement(
    select(jobs.c.id).where(_ALIVE, jobs.c.name == bindparam("job_name"), jobs.c.run_at <= bindparam("time")).limit(1)
)
_BURY_STRANGERS = (
    update(jobs)
    .where(_ALIVE, jobs.c.name.not_in(bindparam("names", expanding=True)))
    .values(is_dead=True, last_error="no handler")
)
_DEPTHS = Statement(select(jobs.c.name, func.count(), func.min(jobs.c.created_at)).where(_ALIVE).group_by(jobs.c.name))
_COUNT_DEAD = Statement(select(func.count()).where(jobs.c.is_dead.is_(True)))
_QUEUED = select(*(jobs.c[name] for name in QueuedJob.__struct_fields__))
_OLDEST_FIRST = (jobs.c.created_at, jobs.c.id)
_LIST = {
    is_dead: PageStatement(
        (_QUEUED.where(jobs.c.is_dead.is_(True)) if is_dead else _QUEUED)
        .order_by(*_OLDEST_FIRST)
        .limit(bindparam("most"))
    )
    for is_dead in (False, True)
}
_OF_NAME = Statement(
    select(jobs.c.id, jobs.c.payload)
    .where(jobs.c.name == bindparam("job_name"), jobs.c.id > bindparam("after"))
    .order_by(jobs.c.id)
    .limit(bindparam("most"))
)
_REVIVE = (
    update(jobs)
    .where(jobs.c.is_dead.is_(True))
    .values(is_dead=False, attempts=0, last_error=None, run_at=bindparam("time"), created_at=bindparam("time"))
)
_REVIVE_ALL = Statement(_REVIVE)
_REVIVE_ONE = Statement(_REVIVE.where(jobs.c.id == bindparam("job")))
_PURGE = Statement(delete(jobs).where(jobs.c.is_dead.is_(True)))


class JobRepository:
    """Rows of `jobs`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(
        self,
        name: str,
        payload: dict[str, Any],
        *,
        run_at: int | None = None,
        priority: int = 0,
        job_id: str | None = None,
    ) -> None:
        """Queues one run of the job `name`, now or not before `run_at` (microseconds); higher priorities first.

        Whoever this unit acts for is noted as its cause.
        """
        time = now()
        cause = Cause.current()
        if cause.correlation_id:
            payload = {**payload, _CAUSE: cause.to_json()}
        self._executor.run(
            _ADD,
            {
                "id": job_id or new_id(),
                "name": name,
                "payload": orjson.dumps(payload).decode(),
                "attempts": 0,
                "priority": priority,
                "run_at": time if run_at is None else run_at,
                "is_dead": False,
                "created_at": time,
            },
        )

    def lease_due(self, lease_until: int, most: Mapping[str, int]) -> list[Job]:
        """Takes due jobs, of each name at most so many; they become due again at `lease_until` unless deleted."""
        time = now()
        rows = [
            row
            for name, limit in most.items()
            for row in self._executor.all(_DUE, {"job_name": name, "time": time, "most": limit})
        ]
        if rows:
            self._executor.run_many(_LEASE, [{"job": row[0], "until": lease_until} for row in rows])
        return [_job(*row) for row in rows]

    def renew(self, job_ids: Sequence[str], lease_until: int) -> None:
        """They are still being done. One that has ended meanwhile is gone, and not brought back."""
        self._executor.run_many(_RENEW, [{"job": job_id, "until": lease_until} for job_id in job_ids])

    def free_all(self) -> int:
        """For the only process of a database, at its start: whoever was doing these is gone. Returns how many."""
        return self._executor.run(_FREE, {"time": now()})

    def advance(self, micros: int) -> int:
        """After the clock was set back: what waits is due so much earlier. Returns how many."""
        return self._executor.run(_ADVANCE, {"time": now(), "micros": micros})

    def bury_strangers(self, names: Sequence[str]) -> int:
        """Jobs of other names have nobody who could do them: kept as dead. Returns how many."""
        return self._executor.connection.execute(_BURY_STRANGERS, {"names": list(names)}).rowcount

    def delete(self, *job_ids: str) -> int:
        """Done. Returns how many there were: in the same unit as its effect, this makes a job happen once."""
        return sum(self._executor.run(_DELETE, {"job": job_id}) for job_id in job_ids)

    def retry(self, job_id: str, *, run_at: int, error: str, is_dead: bool) -> None:
        parameters = {"job": job_id, "at": run_at, "reason": error[:500], "given_up": is_dead}
        self._executor.run(_RETRY, parameters)

    def postpone(self, job_id: str, *, run_at: int, reason: str) -> None:
        """It was not tried: this run does not count."""
        self._executor.run(_POSTPONE, {"job": job_id, "at": run_at, "reason": reason[:500]})

    def list_payloads(self, name: str, after: str, most: int) -> list[tuple[str, dict[str, Any]]]:
        """(id, payload) of the next page of all jobs of this name, by id; also of those that run, and of dead ones."""
        rows = self._executor.all(_OF_NAME, {"job_name": name, "after": after, "most": most})
        return [(job_id, orjson.loads(payload)) for job_id, payload in rows]

    def has_due(self, names: Iterable[str]) -> bool:
        """Whether there is something to do under these names."""
        time = now()
        return any(self._executor.one(_HAS_DUE, {"job_name": name, "time": time}) for name in names)

    # what operators ask

    def list_depths(self) -> list[QueueDepth]:
        """What is not dead, by name."""
        return [QueueDepth(*row) for row in self._executor.all(_DEPTHS, {})]

    def count_dead(self) -> int:
        return self._executor.count(_COUNT_DEAD, {})

    def list_queued(self, *, is_dead: bool, most: int) -> list[QueuedJob]:
        """The oldest rows, or the oldest dead ones."""
        rows = self._executor.all(_LIST[is_dead], {"most": most})
        return [msgspec.structs.replace(job, is_dead=bool(job.is_dead)) for job in (QueuedJob(*row) for row in rows)]

    def revive(self, job_id: str | None) -> int:
        """Dead jobs begin anew: this one, or None for all. Returns how many."""
        if job_id is None:
            return self._executor.run(_REVIVE_ALL, {"time": now()})
        return self._executor.run(_REVIVE_ONE, {"time": now(), "job": job_id})

    def purge_dead(self) -> int:
        """Forgets the dead ones; returns how many."""
        return self._executor.run(_PURGE, {})


def _job(job_id: str, name: str, payload: str, attempts: int, created_at: int, last_error: str | None) -> Job:
    loaded = orjson.loads(payload)
    cause = Cause.of_json(loaded.pop(_CAUSE, None))
    return Job(job_id, name, loaded, attempts + 1, created_at, cause, has_failed=last_error is not None)
