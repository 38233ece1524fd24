"""What each vendor call cost, what that comes to by day, and what is held back for calls that run."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from sqlalchemy import Text, and_, bindparam, cast, delete, exists, func, insert, not_, select, update

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import jobs, open_usage, turns, usage_days, usage_events

SubjectKind = Literal["user", "influencer"]
COUNTS = (
    "turns", "prompt_tokens", "cached_tokens", "output_tokens", "thinking_tokens", "cost",
    "reserved_tokens", "reserved_cost",
)  # fmt: skip


class Subject(msgspec.Struct, frozen=True):
    """Whose day it is. Everybody changes the rows of days in this order (`lock_order`), so that nobody waits in a
    circle."""

    kind: SubjectKind
    id: str
    day: int  # since the epoch, UTC

    @property
    def lock_order(self) -> tuple[bool, str, int]:
        return self.kind != "user", self.id, self.day


class Counts(msgspec.Struct):
    """What a day comes to. Costs in picodollars (services/usage/prices.py)."""

    turns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # a part of `prompt_tokens`
    output_tokens: int = 0
    thinking_tokens: int = 0
    cost: int = 0
    reserved_tokens: int = 0
    reserved_cost: int = 0

    @property
    def tokens(self) -> int:
        """Those that are billed and recorded."""
        return self.prompt_tokens + self.output_tokens + self.thinking_tokens


class OpenUsage(msgspec.Struct, frozen=True):
    """Usage that is still to be recorded, with what is held back for it."""

    key: str
    user_id: str
    influencer_id: str
    day: int
    tokens: int = 0
    cost: int = 0
    holds_influencer: bool = False  # held back for the influencer too, not for the user alone


_ADD = Statement(for_both(usage_events, lambda statement: statement.on_conflict_do_nothing(index_elements=["id"])))

_KNOWN = select(usage_events.c.id).where(usage_events.c.id.in_(bindparam("ids", expanding=True)))
_KEY = ["kind", "subject", "day"]
_DAY = usage_days.c
_COUNT_DAYS = Statement(
    for_both(
        usage_days,
        lambda statement: statement.on_conflict_do_update(
            index_elements=_KEY, set_={name: _DAY[name] + statement.excluded[name] for name in COUNTS}
        ),
    )
)
_TOKENS = _DAY.prompt_tokens + _DAY.output_tokens + _DAY.thinking_tokens + _DAY.reserved_tokens
_RESERVE = Statement(
    for_both(
        usage_days,
        lambda statement: statement.on_conflict_do_update(
            index_elements=_KEY,
            set_={name: _DAY[name] + statement.excluded[name] for name in ("reserved_tokens", "reserved_cost")},
            where=and_(
                _TOKENS + statement.excluded.reserved_tokens <= bindparam("most_tokens"),
                _DAY.cost + _DAY.reserved_cost + statement.excluded.reserved_cost <= bindparam("most_cost"),
            ),
        ),
    )
)
_OF_SUBJECT = and_(_DAY.kind == bindparam("of_kind"), _DAY.subject == bindparam("of_subject"))
_DAYS = Statement(
    select(_DAY.day, *(_DAY[name] for name in COUNTS))
    .where(_OF_SUBJECT, _DAY.day >= bindparam("first"), _DAY.day <= bindparam("last"))
    .order_by(_DAY.day)
)
_DELETE_DAYS = Statement(delete(usage_days).where(_OF_SUBJECT, _DAY.day < bindparam("before")))
_FORGET_DAYS = Statement(
    update(usage_days)
    .where(_OF_SUBJECT)
    .values(
        reserved_tokens=_TOKENS,
        reserved_cost=_DAY.cost + _DAY.reserved_cost,
        **dict.fromkeys(COUNTS[:6], 0),
    )
)

_OPEN_COLUMNS = tuple(open_usage.c[name] for name in OpenUsage.__struct_fields__)
_OPEN = Statement(insert(open_usage))
_FIND_OPEN = Statement(select(*_OPEN_COLUMNS).where(open_usage.c.key == bindparam("wanted")))
_DELETE_OPEN = Statement(delete(open_usage).where(open_usage.c.key == bindparam("wanted")))
_ANY_OPEN = Statement(select(open_usage.c.key).where(open_usage.c.key > "").limit(1))  # by its index
_MOVE = Statement(update(open_usage).where(open_usage.c.key == bindparam("wanted")).values(key=bindparam("new_key")))
_ANONYMISE_OPEN = Statement(update(open_usage).where(open_usage.c.user_id == bindparam("user")).values(user_id=""))


def _lost(position: Any) -> Any:
    """Neither a turn that somebody finishes nor a job that records it belongs to these."""
    key_of_turn = turns.c.id + ":" + cast(turns.c.attempt, Text)
    return (
        select(*_OPEN_COLUMNS)
        .where(
            not_(exists().where(key_of_turn == open_usage.c.key)),
            not_(exists().where(jobs.c.name == bindparam("job_name"), position(jobs.c.payload, open_usage.c.key) > 0)),
        )
        .order_by(open_usage.c.key)
    )


_LOST = Statement({"sqlite": _lost(func.instr), "postgresql": _lost(func.strpos)})


class UsageRepository:
    """Rows of `usage_events`, `usage_days` and `open_usage`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds complete rows; one that is there already (same id) stays as it is."""
        if rows:
            self._executor.run_many(_ADD, rows)

    def list_known(self, event_ids: list[str]) -> set[str]:
        """Those of these rows that there are."""
        return set(self._executor.connection.execute(_KNOWN, {"ids": event_ids}).scalars())

    # days

    def count(self, days: Mapping[Subject, Counts]) -> None:
        """Adds to what these days come to."""
        rows = [
            {**_key(subject), **{name: getattr(days[subject], name) for name in COUNTS}}
            for subject in sorted(days, key=lambda subject: subject.lock_order)
        ]
        if rows:
            self._executor.run_many(_COUNT_DAYS, rows)

    def reserve(self, subject: Subject, tokens: int, cost: int, *, most_tokens: int, most_cost: int) -> bool:
        """Holds so much back when what is used and held then is not more than the most. False: nothing was changed.

        Exact also for many at once: the row is locked from here to the commit.
        """
        if tokens > most_tokens or cost > most_cost:
            return False
        counts = dict.fromkeys(COUNTS, 0) | {"reserved_tokens": tokens, "reserved_cost": cost}
        parameters = {**_key(subject), **counts, "most_tokens": most_tokens, "most_cost": most_cost}
        return self._executor.run(_RESERVE, parameters) == 1

    def find_day(self, subject: Subject) -> Counts:
        """Zeros where nothing was used."""
        found = self.list_days(subject, subject.day)
        return found.get(subject.day, Counts())

    def list_days(self, first: Subject, last: int) -> dict[int, Counts]:
        """By day, from `first` to `last`, those on which something was used."""
        parameters = {"of_kind": first.kind, "of_subject": first.id, "first": first.day, "last": last}
        return {day: Counts(*counts) for day, *counts in self._executor.all(_DAYS, parameters)}

    def delete_days(self, first: Subject) -> None:
        """Forgets the days before."""
        parameters = {"of_kind": first.kind, "of_subject": first.id, "before": first.day}
        self._executor.run(_DELETE_DAYS, parameters)

    def forget_days(self, today: Subject) -> None:
        """Forgets the days before, and of this one everything but that so much is not to be had any more."""
        self.delete_days(today)
        self._executor.run(_FORGET_DAYS, {"of_kind": today.kind, "of_subject": today.id})

    # what runs

    def open(self, usage: OpenUsage) -> None:
        self._executor.run(_OPEN, {name: getattr(usage, name) for name in usage.__struct_fields__})

    def find_open(self, key: str) -> OpenUsage | None:
        row = self._executor.one(_FIND_OPEN, {"wanted": key})
        return None if row is None else OpenUsage(*row)

    def close(self, key: str) -> OpenUsage | None:
        """Forgets it and returns it; what it held back is the caller's to give back. None: it is closed already."""
        found = self.find_open(key)
        if found is None or self._executor.run(_DELETE_OPEN, {"wanted": key}) == 0:
            return None
        return found

    def has_open(self) -> bool:
        return self._executor.one(_ANY_OPEN, {}) is not None

    def move(self, key: str, new_key: str) -> None:
        """Another attempt goes on with what was held back for this one."""
        self._executor.run(_MOVE, {"wanted": key, "new_key": new_key})

    def list_lost(self, job_name: str) -> list[OpenUsage]:
        """For the only process of a database, at its start: what runs nowhere, and no job of that name records."""
        return [OpenUsage(*row) for row in self._executor.all(_LOST, {"job_name": job_name})]

    def anonymise_open(self, user_id: str) -> None:
        """What runs for this person counts for nobody."""
        self._executor.run(_ANONYMISE_OPEN, {"user": user_id})


def _key(subject: Subject) -> dict[str, Any]:
    return {"kind": subject.kind, "subject": subject.id, "day": subject.day}
