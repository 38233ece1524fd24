"""Units of work: plain synchronous functions, each in one transaction on a database thread.

`await database.write(fn, …)` resolves after commit. Because `fn` cannot await, no transaction is ever held
across a model call, a socket or a lock (docs/decisions/0001).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

from loguru import logger

from yral_chat.core.tracing import Cause
from yral_chat.db.execution import Executor
from yral_chat.db.repositories.accounts import AccountRepository
from yral_chat.db.repositories.audit import AuditRepository
from yral_chat.db.repositories.conversations import ConversationRepository
from yral_chat.db.repositories.counters import CounterRepository
from yral_chat.db.repositories.events import EventRepository
from yral_chat.db.repositories.influencer_versions import InfluencerVersionRepository
from yral_chat.db.repositories.influencers import InfluencerRepository
from yral_chat.db.repositories.installation import InstallationRepository
from yral_chat.db.repositories.jobs import JobRepository
from yral_chat.db.repositories.media import MediaRepository
from yral_chat.db.repositories.memories import MemoryRepository
from yral_chat.db.repositories.messages import MediaUrl, MessageRepository
from yral_chat.db.repositories.participants import ParticipantRepository
from yral_chat.db.repositories.pictures import PictureRepository
from yral_chat.db.repositories.places import PlaceRepository
from yral_chat.db.repositories.restores import RestoreRepository
from yral_chat.db.repositories.settings import SettingsRepository
from yral_chat.db.repositories.turns import TurnRepository
from yral_chat.db.repositories.usage import UsageRepository

P = ParamSpec("P")
T = TypeVar("T")

AfterCommit = Callable[[], None]
_NOBODY = Cause()

UnitKind = Literal["read", "write"]
Observe = Callable[[UnitKind, float, BaseException | None], None]
"""Told of each unit that ended: seconds since it was handed in, and its error."""


def unobserved(kind: UnitKind, seconds: float, error: BaseException | None) -> None:
    """Nobody looks."""


class UnitOfWork:
    """The repositories of one connection. A unit of work must not keep it after returning."""

    def __init__(self, executor: Executor, media_url: MediaUrl = str) -> None:
        self._executor = executor
        self._media_url = media_url
        self._after_commit: list[AfterCommit] = []

    @cached_property
    def conversations(self) -> ConversationRepository:
        return ConversationRepository(self._executor)

    @cached_property
    def participants(self) -> ParticipantRepository:
        return ParticipantRepository(self._executor)

    @cached_property
    def messages(self) -> MessageRepository:
        return MessageRepository(self._executor, self._media_url)

    @cached_property
    def media(self) -> MediaRepository:
        return MediaRepository(self._executor)

    @cached_property
    def pictures(self) -> PictureRepository:
        return PictureRepository(self._executor)

    @cached_property
    def turns(self) -> TurnRepository:
        return TurnRepository(self._executor)

    @cached_property
    def influencers(self) -> InfluencerRepository:
        return InfluencerRepository(self._executor)

    @cached_property
    def influencer_versions(self) -> InfluencerVersionRepository:
        return InfluencerVersionRepository(self._executor)

    @cached_property
    def installation(self) -> InstallationRepository:
        return InstallationRepository(self._executor)

    @cached_property
    def audit(self) -> AuditRepository:
        return AuditRepository(self._executor)

    @cached_property
    def events(self) -> EventRepository:
        return EventRepository(self._executor)

    @cached_property
    def jobs(self) -> JobRepository:
        return JobRepository(self._executor)

    @cached_property
    def usage(self) -> UsageRepository:
        return UsageRepository(self._executor)

    @cached_property
    def memories(self) -> MemoryRepository:
        return MemoryRepository(self._executor)

    @cached_property
    def settings(self) -> SettingsRepository:
        return SettingsRepository(self._executor)

    @cached_property
    def counters(self) -> CounterRepository:
        return CounterRepository(self._executor)

    @cached_property
    def accounts(self) -> AccountRepository:
        return AccountRepository(self._executor)

    @cached_property
    def restores(self) -> RestoreRepository:
        return RestoreRepository(self._executor)

    @cached_property
    def places(self) -> PlaceRepository:
        return PlaceRepository(self._executor)

    def after_commit(self, callback: AfterCommit) -> None:
        """Runs `callback` on the event loop once this unit is committed, in the order of the commits.

        It runs also when the caller has gone away meanwhile; never when the unit is rolled back.
        """
        self._after_commit.append(callback)

    def take_callbacks(self) -> list[AfterCommit]:
        """For the database threads: what the unit that just ended wants called, leaving none."""
        callbacks, self._after_commit = self._after_commit, []
        return callbacks


class Waiting(NamedTuple):
    """A line of units in front of database threads."""

    units: int
    seconds: float  # that the first of them has waited


class Database(Protocol):
    """What services see. Errors: AppError of the unit itself, StorageFull, ServiceUnavailable; Overloaded for a unit
    of a client (core/deadlines.py) that finds the line full, or whose deadline has passed before it began: it has not
    run.
    """

    dialect: str

    async def read(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `fn` on one consistent snapshot; it cannot write."""
        ...

    async def write(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `fn` in one transaction and returns after it is durable. `fn` may run more than once."""
        ...

    def lock(self) -> None:
        """Makes this process the only one that serves this database. Raises DatabaseInUse."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def scrub(self) -> bool:
        """Takes what was deleted out of the write-ahead log, where there is one that keeps it. False: not yet."""
        ...

    def pool(self) -> tuple[int, int]:
        """(size, in use) of the connections."""
        ...

    def waiting(self) -> dict[str, Waiting]:
        """The lines in front of them, by name."""
        ...


class Work:
    """One unit on its way through a database thread. The future belongs to the event loop."""

    __slots__ = (
        "args",
        "callbacks",
        "cause",
        "deadline",
        "fn",
        "future",
        "is_committing",
        "kind",
        "kwargs",
        "outcome",
        "queued_at",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        future: "asyncio.Future[Any]",
        kind: UnitKind,
    ) -> None:
        self.kind = kind
        self.queued_at = time.perf_counter()
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.future = future
        self.cause = Cause.current()
        self.callbacks: list[AfterCommit] = []
        self.outcome: tuple[Any, BaseException | None] = (None, None)
        self.deadline: float | None = None  # of whoever waits for it, `time.monotonic()`; None: it is owed
        self.is_committing = False  # from here on a lost connection leaves open whether the unit took effect

    def run(self, uow: UnitOfWork) -> None:
        """Calls the unit, which acts for whoever asked for it. Raises what it raises."""
        self.cause.enter()
        try:
            self.outcome = (self.fn(uow, *self.args, **self.kwargs), None)
        finally:
            self.callbacks = uow.take_callbacks()
            _NOBODY.enter()

    def fail(self, error: BaseException) -> None:
        self.outcome = (None, error)
        self.callbacks = []


class Deliveries:
    """Brings results from the database threads to the event loop: one wake-up for many results."""

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Observe) -> None:
        self._loop = loop
        self._observe = observe
        self._done: deque[Work] = deque()
        self._is_scheduled = False

    def post(self, *works: Work) -> None:
        self._done.extend(works)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Cleared before draining: whatever is posted from here on schedules a round of its own.
        self._is_scheduled = False
        ended_at = time.perf_counter()
        while self._done:
            work = self._done.popleft()
            self._observe(work.kind, ended_at - work.queued_at, work.outcome[1])
            for callback in work.callbacks:
                try:
                    callback()
                except Exception:  # noqa: BLE001 - the unit is committed; one listener must not undo the others
                    logger.exception("after_commit.failed")
            if work.future.done():
                continue
            result, error = work.outcome
            if error is None:
                work.future.set_result(result)
            else:
                work.future.set_exception(error)
