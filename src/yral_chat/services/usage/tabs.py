"""Tabs: usage that no turn speaks of. Opened before vendors are asked, closed with what that has cost, once."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from loguru import logger

from yral_chat.clients.language_model import ModelCall
from yral_chat.core import deadlines
from yral_chat.core.clock import day_of, now
from yral_chat.core.errors import AppError
from yral_chat.core.ids import new_id
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import RECORD_JOB
from yral_chat.db.repositories.usage import OpenUsage
from yral_chat.services.usage.meter import Meter
from yral_chat.services.usage.quotas import Bound, Quotas
from yral_chat.services.usage.recording import key_of, lost_call


class Tab:
    """What is asked for somebody outside of turns: `calls` fills while it runs.

    `turns` is how many turns that is. Without a `turn_id` it gets one of its own; `key` is made of that and `attempt`.
    """

    def __init__(
        self,
        user_id: str,
        influencer_id: str = "",
        *,
        turns: int = 0,
        turn_id: str = "",
        attempt: int = 1,
        conversation_id: str = "",
        key: str = "",
    ) -> None:
        self.user_id = user_id
        self.influencer_id = influencer_id
        self.turns = turns
        self.turn_id = turn_id or new_id()
        self.attempt = attempt
        self.conversation_id = conversation_id
        self.key = key or key_of(self.turn_id, attempt)
        self.lost_key = ""  # of an attempt before this one that died with its process
        self.day = day_of(now())
        self.calls: list[ModelCall] = []
        self.is_open = False  # in the database
        self.is_given_up = False  # whoever opened it did not wait
        self.closing: asyncio.Task[None] | None = None


class Tabs:
    """Every `open` that returns is followed by one `close`; one that is cancelled closes by itself."""

    def __init__(self, database: Database, quotas: Quotas, meter: Meter, *, wake_jobs: Callable[[], None]) -> None:
        self.has_quotas = quotas.is_on
        self._database = database
        self._quotas = quotas
        self._meter = meter
        self._wake_jobs = wake_jobs
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, tab: Tab, bound: Bound, check: Callable[[UnitOfWork], None] = lambda _: None) -> None:
        """Notes that usage will follow, and holds back `bound` where there are quotas. Raises QuotaExceeded, and what
        `check` raises, which is asked in the same unit."""

        def unit(uow: UnitOfWork) -> None:
            check(uow)
            self._quotas.open(uow, OpenUsage(tab.key, tab.user_id, tab.influencer_id, tab.day), bound)
            uow.after_commit(opened)

        def opened() -> None:
            tab.is_open = True
            if tab.is_given_up:
                self._begin_to_close(tab)

        try:
            await self._database.write(unit)
        except asyncio.CancelledError:
            tab.is_given_up = True
            if tab.is_open:
                self._begin_to_close(tab)
            raise

    async def close(self, tab: Tab) -> None:
        """What it has cost is written, also when nobody waits for that any more."""
        self._meter.count(tab.calls)
        if tab.is_open or tab.calls or tab.lost_key:
            self._begin_to_close(tab)
            if tab.closing is not None:
                await asyncio.shield(tab.closing)

    async def wait_closed(self) -> None:
        """Until all costs are written."""
        await asyncio.gather(*self._closing)

    def _begin_to_close(self, tab: Tab) -> None:
        task = asyncio.create_task(self._close(tab), name=f"usage {tab.key}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        tab.closing = task

    async def _close(self, tab: Tab) -> None:
        try:
            with deadlines.owed():
                await self._database.write(_record, tab)
            self._wake_jobs()
        except AppError as error:  # a database that is away must not take the answer from whoever waits for it
            logger.error("usage.not_recorded", key=tab.key, error=error.code)


def _record(uow: UnitOfWork, tab: Tab) -> None:
    """Through the job that records turns. It counts for nobody when the person was erased meanwhile."""
    found = uow.usage.find_open(tab.key)
    if found is not None:
        is_known = found.user_id != ""
    else:
        is_known = not tab.conversation_id or uow.conversations.find(tab.conversation_id) is not None
    payload: dict[str, Any] = {
        "key": tab.key,
        "turn_id": tab.turn_id,
        "attempt": tab.attempt,
        "user_id": tab.user_id if is_known else "",
        "influencer_id": tab.influencer_id,
        "conversation_id": tab.conversation_id if is_known else "",
        "day": tab.day,
        "listed": 0,
        "turns": tab.turns,
        "calls": [msgspec.to_builtins(call) for call in tab.calls],
    }
    uow.jobs.add(RECORD_JOB, payload)
    if tab.lost_key:
        lost = {"key": tab.lost_key, "turns": 0, "calls": [msgspec.to_builtins(lost_call(now()))]}
        uow.jobs.add(RECORD_JOB, payload | lost)
