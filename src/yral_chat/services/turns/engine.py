"""TurnEngine: works on the turns that this process is in charge of, and takes over those of processes that died.

A turn belongs to its row in `turns`; the task here is whoever works on it at the moment.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from loguru import logger

from yral_chat.clients.language_model import ModelCall, ModelFailure
from yral_chat.core import crashes, deadlines, tracing
from yral_chat.core.clock import SECOND, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import (
    AppError,
    ModelUnavailable,
    QuotaExceeded,
    ServiceUnavailable,
    StorageFull,
    TooManyTurns,
    TurnCancelled,
)
from yral_chat.core.ids import new_id
from yral_chat.core.metrics import Metrics
from yral_chat.core.objects import Message
from yral_chat.core.tracing import Cause
from yral_chat.db.database import Database, T, UnitOfWork
from yral_chat.db.repositories.turns import StoredTurn, TurnKind
from yral_chat.realtime.hub import Hub
from yral_chat.services.overload import Admission
from yral_chat.services.turns import ending
from yral_chat.services.turns.records import Ending
from yral_chat.services.turns.results import TurnResult, deleted, handed_back, result_of
from yral_chat.services.turns.running import Ended, RunningTurn, RunningTurns, TurnWork, failed
from yral_chat.services.usage import Meter
from yral_chat.services.usage.recording import lost_call

SAVE_SECONDS = 0.5  # how often running texts are stored; contract section 5.2 allows a lag of 1 s
SWEEP_SECONDS = 5.0
# A turn that has brought down its process this often is not tried again.
MAX_TAKEOVERS = 3
# How long a finished reply is tried to be stored before its turn is left to a take-over.
STORE_SECONDS = 30.0
# Turns that are handed back only have to close their streams.
HAND_BACK_SECONDS = 5.0


class TurnEngine:
    """See the module. All methods belong to the event loop, except those that take a unit of work."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        hub: Hub,
        metrics: Metrics,
        meter: Meter,
        wake_jobs: Callable[[], None],
        running_turns: RunningTurns,
        works: Mapping[TurnKind, TurnWork],
        admission: Admission,
    ) -> None:
        self._database = database
        self._hub = hub
        self._metrics = metrics
        self._meter = meter
        self._wake_jobs = wake_jobs
        self._running = running_turns
        self._works = works
        self._admission = admission
        self._has_quotas = settings.has_quotas
        self.owner = new_id()  # of the leases
        # Found by a sweep at the latest SWEEP_SECONDS after it ended, a lease is still taken over in time.
        stale = settings.turn_stale_seconds
        self.lease = round(max(stale - SWEEP_SECONDS, stale / 2) * SECOND)
        self._handed_over: set[str] = set()  # received replies whose rows do not say so yet
        self._maintenance: asyncio.Task[None] | None = None
        self.is_draining = False
        self.has_drained = False

    async def start(self) -> None:
        """Takes over what an earlier process left behind; this one is the only one."""
        orphans = await self._database.write(lambda uow: uow.turns.orphan_all())
        if orphans:
            logger.info("turns.orphaned", count=orphans)
        while await self._sweep():
            pass
        self._maintenance = asyncio.create_task(self._maintain(), name="turns.maintain")

    async def drain(self, grace_seconds: float) -> None:
        """Refuses new turns, gives running ones `grace_seconds` to end, and hands the rest back."""
        self.is_draining = True
        if self._running:
            logger.info("turns.draining", running=len(self._running), grace_seconds=grace_seconds)
        await self._wait_for_running(grace_seconds)
        self.hand_back()
        await self._wait_for_running(HAND_BACK_SECONDS)

    def hand_back(self) -> None:
        """Ends what runs here without an end: whoever comes next takes it over."""
        self.has_drained = True
        for running in list(self._running.values()):
            running.stop("handed_back")

    async def _wait_for_running(self, seconds: float) -> None:
        """Until no turn runs here; one that was accepted in the last moment counts too."""
        deadline = time.monotonic() + seconds
        while self._running and (rest := deadline - time.monotonic()) > 0:
            tasks = [running.task for running in self._running.values() if running.task is not None]
            await asyncio.wait(tasks, timeout=rest)

    async def close(self) -> None:
        """After `drain`: writes what is noted, and leaves unfinished turns to the next process."""
        if self._maintenance is not None:
            self._maintenance.cancel()
            with suppress(asyncio.CancelledError):
                await self._maintenance
        with suppress(AppError):
            await self._save_handed_over()
            await self._database.write(lambda uow: uow.turns.hand_back(self.owner))

    async def accept(self, unit: Callable[[UnitOfWork], T]) -> T:
        """Runs a unit that may begin a turn, and counts it when that is refused for a limit.

        Raises Overloaded when the machine is behind.
        """
        self._admission.check()
        try:
            return await self._database.write(unit)
        except (TooManyTurns, QuotaExceeded) as error:
            self._metrics.limit_refused(error.details["limit_type"])
            raise

    def launch_after(self, uow: UnitOfWork, turn: StoredTurn, user_message: Message | None, influencer_id: str) -> None:
        """The turn starts with the commit, whether or not the request that caused it is still there.

        Raises ServiceUnavailable, and so undoes the unit, while the process drains.
        """
        if self.is_draining:
            raise ServiceUnavailable("The service is restarting. Please try again.", details={"service": "turns"})
        cause = Cause.current()
        uow.after_commit(lambda: self._launch(turn, user_message, influencer_id, cause))

    async def cancel(self, message_id: str, stored: StoredTurn | None) -> None:
        """Ends this turn now, whoever works on it; `stored` is its row, where there is one."""
        live = self._running.get(message_id)
        if live is not None:
            live.stop("cancelled")
            await live.finished.wait()
        elif stored is not None:
            with deadlines.owed():
                await self._database.write(self._end_unit, stored, None, _cancelled(""), [])
            # It may have been launched while this waited: its row is gone, but its model is not yet stopped.
            if (late := self._running.get(message_id)) is not None:
                late.stop("cancelled")
                await late.finished.wait()

    def stop_conversation(self, conversation_id: str) -> None:
        """Ends what runs in a conversation that is gone."""
        for running in list(self._running.values()):
            if running.turn.conversation_id == conversation_id:
                running.stop("deleted")

    async def stop_user(self, user_id: str) -> None:
        """Ends what runs for somebody whose account goes; returns when nothing more of it will be stored."""
        mine = [running for running in self._running.values() if running.turn.user_id == user_id]
        for running in mine:
            running.stop("deleted")
        for running in mine:
            await running.finished.wait()

    def hand_over(self, reply_id: str) -> None:
        """Notes that somebody has received this reply."""
        self._handed_over.add(reply_id)

    def list_handed_over(self) -> frozenset[str]:
        """Received replies whose rows may not say so yet."""
        return frozenset(self._handed_over)

    # running

    def _launch(self, turn: StoredTurn, user_message: Message | None, influencer_id: str, cause: Cause) -> None:
        before = self._running.get(turn.id)
        # Its end is committed, but of two database threads the later one was heard first. Its listeners, who must not
        # hear this attempt, get their answer in a moment.
        is_early = before is not None and before.is_ending
        if before is not None and not is_early:
            self._leave(before, handed_back(before.stream.user_message))
        self._handed_over.discard(turn.id)  # somebody has received the last attempt, nobody this one
        stream = self._hub.open_reply(user_message, turn.id, turn.attempt, is_apart=is_early)
        running = RunningTurn(turn, influencer_id, stream, cause)
        self._running[turn.id] = running
        self._metrics.turns_in_progress.inc()
        if self.has_drained:
            running.stop("handed_back")  # accepted in the last moment: the next process answers it
        running.task = asyncio.create_task(self._run(running), name=f"turn {turn.id}")

    async def _run(self, running: RunningTurn) -> None:
        """One turn from its place in the line to its stored end."""
        running.cause.enter()
        turn = running.turn
        logger.debug("turn.accepted", turn_id=turn.id, kind=turn.kind, attempt=turn.attempt)
        # Below the request's span where there is one, although it outlives it: it is what the request was for.
        with tracing.span(f"turn {turn.kind}", attributes=_span_attributes(running)) as span:
            await self._run_to_end(running, span)

    async def _run_to_end(self, running: RunningTurn, span: tracing.Span) -> None:
        try:
            outcome = await self._answer(running)
            running.is_ending = True
            if running.stop_reason in ("handed_back", "deleted"):
                _log_end(running, span, Ending("", outcome=running.stop_reason))
                await self._keep_usage(running)
            else:
                _log_end(running, span, outcome)
                await self._store_end(running, outcome)
                seconds = time.monotonic() - running.started
                self._metrics.turn_finished(
                    outcome.provider or "none", outcome.model or "none", outcome.outcome, seconds
                )
                self._count_calls(running)
        finally:
            if running.stop_reason == "deleted":
                self._publish_typing(running.turn, running.influencer_id, is_typing=False)
                self._leave(running, deleted(running.stream.user_message))
            else:
                self._leave(running, handed_back(running.stream.user_message))

    async def _keep_usage(self, running: RunningTurn) -> None:
        """The vendor bills what it has said, whoever still wants to read it."""
        self._count_calls(running)
        goes_on = running.stop_reason == "handed_back"
        if not running.calls and (goes_on or not self._has_quotas):
            return
        with suppress(AppError):  # a database that is away must not keep the turn from ending
            await self._database.write(
                ending.keep_usage,
                running.turn,
                running.calls,
                running.influencer_id,
                turns=0 if goes_on else 1,
                is_closed=not goes_on,
            )
            self._wake_jobs()

    def _leave(self, running: RunningTurn, result: TurnResult) -> None:
        """Closes the stream and forgets the turn, unless that has been done already; the first result counts."""
        if running.finished.is_set():
            return
        turn = running.turn
        self._hub.close_reply(running.stream, result.frame(turn.attempt), result)
        if self._running.get(turn.id) is running:
            del self._running[turn.id]
        self._metrics.turns_in_progress.dec()
        running.finished.set()

    async def _answer(self, running: RunningTurn) -> Ending:
        """Does the turn's work, and says how that ended."""
        running.is_waiting_or_generating = True
        try:
            if running.stop_reason is not None:
                return _cancelled("")
            turn = running.turn
            return await self._works[turn.kind].do(running, partial(self._begin, running))
        except ModelFailure as failure:
            return failed(running, failure)
        except asyncio.CancelledError:
            if running.stop_reason is None:
                raise
            return _cancelled(running.stream.text)
        except Exception as error:  # noqa: BLE001 - whatever went wrong must leave a visible failure, not an endless reply
            logger.exception("turn.crashed", turn_id=running.turn.id)
            if not isinstance(error, AppError):
                crashes.report(error, "turn.crashed", turn_id=running.turn.id)
            return Ending(running.stream.text, "TRANSIENT", ModelUnavailable(), outcome="unreachable")
        finally:
            running.is_waiting_or_generating = False

    def _begin(self, running: RunningTurn) -> None:
        """It is this turn's time."""
        waited = round((time.monotonic() - running.started) * 1000)
        logger.debug("turn.started", turn_id=running.turn.id, waited_ms=waited)
        self._publish_typing(running.turn, running.influencer_id, is_typing=True)

    async def _store_end(self, running: RunningTurn, outcome: Ending) -> None:
        """Stores the end; tries again for a while when the database takes nothing."""
        deadline = time.monotonic() + STORE_SECONDS
        while True:
            try:
                await self._database.write(self._end_unit, running.turn, running, outcome, running.calls)
            except (StorageFull, ServiceUnavailable) as error:
                logger.error("turn.end_not_stored", turn_id=running.turn.id, error=error.code)
                if time.monotonic() >= deadline or self.is_draining:
                    return  # the reply's row stays open, and whoever takes the turn over writes it anew
                await asyncio.sleep(1)
            else:
                return

    def _end_unit(
        self,
        uow: UnitOfWork,
        turn: StoredTurn,
        running: RunningTurn | None,
        outcome: Ending,
        calls: list[ModelCall],
    ) -> None:
        """Stores the end. What follows from it happens with the commit, so that a request that runs the same turn
        again, perhaps in the same group of units, finds it ended."""
        work = self._works[turn.kind]
        ended = work.end(uow, turn, outcome, calls)
        if ended is not None:
            uow.after_commit(lambda: self._tell(turn, ended))
            uow.after_commit(self._wake_jobs)
        elif running is not None and (calls or self._has_quotas):  # the vendor bills them all the same
            ending.keep_usage(uow, turn, calls, running.influencer_id)
            uow.after_commit(self._wake_jobs)
        if running is not None:
            user_message = running.stream.user_message
            result = (
                work.find_result(uow, turn, user_message)
                if ended is None
                else result_of(user_message, ended.message, outcome)
            )
            uow.after_commit(lambda: self._leave(running, result))

    def _tell(self, turn: StoredTurn, ended: Ended) -> None:
        self._publish_typing(turn, ended.influencer_id, is_typing=False)
        if ended.event:
            self._hub.publish(turn.user_id, ended.event, ended.data, seq=ended.seq)

    def _publish_typing(self, turn: StoredTurn, influencer_id: str | None, *, is_typing: bool) -> None:
        self._hub.publish(
            turn.user_id,
            "typing_status",
            {"conversation_id": turn.conversation_id, "influencer_id": influencer_id, "is_typing": is_typing},
        )

    def _count_calls(self, running: RunningTurn) -> None:
        if running.first_token_seconds is not None:
            self._metrics.turn_first_token.observe(running.first_token_seconds)
        self._meter.count(running.calls)

    # what keeps turns alive

    async def _maintain(self) -> None:
        """Stores partial texts, renews leases, notes hand-overs, and looks for orphans."""
        next_sweep = next_renewal = 0.0
        renewal_seconds = self.lease / SECOND / 3
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            try:
                if time.monotonic() >= next_renewal:
                    await self._renew()
                    next_renewal = time.monotonic() + renewal_seconds
                await self._save_partial()
                await self._save_handed_over()
                if time.monotonic() >= next_sweep:
                    next_sweep = time.monotonic() + SWEEP_SECONDS
                    await self._sweep()
            except (StorageFull, ServiceUnavailable) as error:
                logger.warning("turns.maintenance_postponed", error=error.code)
            except Exception as error:  # noqa: BLE001 - this loop keeps every turn's lease; it may not die of one bad round
                logger.exception("turns.maintenance_failed")
                crashes.report(error, "turns.maintenance_failed")

    async def _save_partial(self) -> None:
        texts = {}
        for running in self._running.values():
            length = len(running.stream.text)
            if length > running.saved_length and not running.turn.is_replacement:
                texts[running.turn.id] = running.stream.text
                running.saved_length = length
        if texts:
            await self._database.write(lambda uow: uow.messages.save_partial(texts))

    async def _save_handed_over(self) -> None:
        ids = list(self._handed_over)
        if ids:
            await self._database.write(lambda uow: uow.messages.mark_handed_over(ids))
            self._handed_over.difference_update(ids)

    async def _renew(self) -> None:
        ids = list(self._running)
        if ids:
            until = now() + self.lease
            await self._database.write(lambda uow: uow.turns.renew(self.owner, ids, until))

    async def _sweep(self) -> int:
        """Takes over turns whose owner has let its lease end; returns how many were taken or given up."""
        if self.is_draining:
            return 0
        orphans = await self._database.read(lambda uow: uow.turns.list_orphans(now()))
        orphans = [turn for turn in orphans if turn.id not in self._running]
        for turn in orphans:
            if turn.takeovers >= MAX_TAKEOVERS:
                outcome = Ending("", "TRANSIENT", ModelUnavailable(), outcome="abandoned")
                await self._database.write(self._end_unit, turn, None, outcome, [lost_call(turn.created_at)])
                continue
            await self._database.write(self._take_over, turn)
        return len(orphans)

    def _take_over(self, uow: UnitOfWork, turn: StoredTurn) -> None:
        taken = self._works[turn.kind].take_over(uow, turn, self.owner, now() + self.lease)
        if taken is None:
            return
        cause = Cause(new_id())  # the request that began it ended with its process
        logger.info(
            "turn.taken_over", turn_id=turn.id, attempt=taken.turn.attempt, new_correlation_id=cause.correlation_id
        )
        uow.after_commit(lambda: self._launch(taken.turn, taken.user_message, taken.influencer_id, cause))
        uow.after_commit(self._wake_jobs)


def _span_attributes(running: RunningTurn) -> dict[str, tracing.Value]:
    turn = running.turn
    return {
        "yral.turn.id": turn.id,
        "yral.turn.attempt": turn.attempt,
        "yral.correlation_id": running.cause.correlation_id,
    }


def _log_end(running: RunningTurn, span: tracing.Span, outcome: Ending) -> None:
    """The line and the span of a turn's end; what its calls have cost is their sum."""
    first = running.first_token_seconds
    logger.info(
        "turn.finished",
        turn_id=running.turn.id,
        kind=running.turn.kind,
        attempt=running.turn.attempt,
        outcome=outcome.outcome,
        code=outcome.error_code,
        provider=outcome.provider or None,
        model=outcome.model,
        calls=len(running.calls),
        prompt_tokens=sum(call.usage.prompt for call in running.calls),
        output_tokens=sum(call.usage.output for call in running.calls),
        first_token_ms=None if first is None else round(first * 1000),
        duration_ms=round((time.monotonic() - running.started) * 1000),
    )
    span.set({"yral.turn.outcome": outcome.outcome})
    if outcome.error_code not in (None, "CANCELLED"):
        span.fail(outcome.error_code)


def _cancelled(text: str) -> Ending:
    return Ending(text, "CANCELLED", TurnCancelled(), outcome="cancelled")
