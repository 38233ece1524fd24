"""TurnService: a message is accepted, answered and handed over, once (design section 5).

Requests only attach. A turn belongs to its row in `turns`; the task here is whoever works on it at the moment.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from loguru import logger

from yral_chat.clients.language_model import LanguageModel, ModelCall, ModelRequest
from yral_chat.core.clock import SECOND, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import (
    AppError,
    ContentBlocked,
    ConversationNotFound,
    InfluencerNotFound,
    MessageNotFound,
    ModelUnavailable,
    NoModelProvider,
    NotStreamable,
    ServiceUnavailable,
    StorageFull,
    TurnCancelled,
    TurnTimeout,
)
from yral_chat.core.ids import new_id
from yral_chat.core.logging import correlation_id
from yral_chat.core.metrics import Metrics
from yral_chat.core.objects import FAILURES, RUNNING, ErrorCode, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.messages import StoredMessage
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub, ReplyStream
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.prompts import compose
from yral_chat.services.turns import accepting, ending
from yral_chat.services.turns.records import (
    Accepted,
    Attached,
    Ending,
    Limits,
    NewMessage,
    TurnResult,
)
from yral_chat.services.turns.running import RunningTurn, generate

SAVE_SECONDS = 0.5  # how often running texts are stored; contract section 5.2 allows a lag of 1 s
SWEEP_SECONDS = 5.0
# A turn that has brought down its process this often is not tried again.
MAX_TAKEOVERS = 3
# How long a finished reply is tried to be stored before its turn is left to a take-over.
STORE_SECONDS = 30.0
# Turns that are handed back only have to close their streams.
HAND_BACK_SECONDS = 5.0
# A request that finds a pending reply with nobody at work looks again this often.
ATTACH_TRIES = 40
ATTACH_SECONDS = 0.05


class TurnService:
    """See the module. Raises the AppErrors that contract sections 8 and 9 name."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        hub: Hub,
        influencers: InfluencerService,
        model: LanguageModel,
        metrics: Metrics,
        wake_jobs: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._hub = hub
        self._influencers = influencers
        self._model = model
        self._metrics = metrics
        self._wake_jobs = wake_jobs
        self._owner = new_id()
        self._limits = Limits(
            per_conversation=settings.max_turns_per_conversation,
            per_user=settings.max_turns_per_user,
            duplicate_window=round(settings.duplicate_window_seconds * SECOND),
            duplicate_grace=round(settings.duplicate_grace_seconds * SECOND),
            # Found by a sweep at the latest SWEEP_SECONDS after it ended, it is still taken over in time.
            lease=round(max(settings.turn_stale_seconds - SWEEP_SECONDS, settings.turn_stale_seconds / 2) * SECOND),
        )
        self._running: dict[str, RunningTurn] = {}
        self._handed_over: set[str] = set()  # received replies whose rows do not say so yet
        self._maintenance: asyncio.Task[None] | None = None
        self.is_draining = False

    # the life of the service

    async def start(self) -> None:
        """Takes over what an earlier process left behind; this one is the only one."""
        orphans = await self._database.write(lambda uow: uow.turns.orphan_all())
        if orphans:
            logger.info("turns.orphaned", count=orphans)
        await self._sweep()
        self._maintenance = asyncio.create_task(self._maintain(), name="turns.maintain")

    async def drain(self, grace_seconds: float) -> None:
        """Refuses new turns, gives running ones `grace_seconds` to end, and hands the rest back."""
        self.is_draining = True
        if self._running:
            logger.info("turns.draining", running=len(self._running), grace_seconds=grace_seconds)
        await self._wait_for_running(grace_seconds)
        for running in list(self._running.values()):
            running.stop("handed_back")
        await self._wait_for_running(HAND_BACK_SECONDS)

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
            await self._database.write(lambda uow: uow.turns.hand_back(self._owner))

    # what requests ask for

    async def send(self, user_id: str, conversation_id: str, message: NewMessage) -> Attached:
        """Accepts `message`, or finds the turn that it repeats."""
        handed_over, correlation = frozenset(self._handed_over), correlation_id.get()

        def accept(uow: UnitOfWork) -> Accepted:
            accepted = accepting.accept(uow, user_id, conversation_id, message, self._limits, self._owner, handed_over)
            return self._launch_after(uow, accepted, correlation)

        return await self._attach(await self._database.write(accept))

    async def regenerate(self, user_id: str, conversation_id: str, message_id: str) -> Attached:
        """Begins a new attempt of the newest reply."""
        correlation = correlation_id.get()

        def accept(uow: UnitOfWork) -> Accepted:
            accepted = accepting.accept_regeneration(
                uow, user_id, conversation_id, message_id, self._limits, self._owner
            )
            return self._launch_after(uow, accepted, correlation)

        return await self._attach(await self._database.write(accept))

    async def resume(self, reader_id: str, conversation_id: str, message_id: str) -> Attached:
        """Attaches a reader (user or the bot's owner) to a reply, running or ended."""
        user_message, reply = await self._database.read(_find_reply, reader_id, conversation_id, message_id)
        return await self._attach(Accepted(user_message, reply, None, reply.message["sender_id"] or ""))

    async def wait(self, attached: Attached, seconds: float) -> TurnResult:
        """Waits for the end of the turn. Raises the refusal that its end means for a sender."""
        stream = attached.stream
        if stream is None:
            return TurnResult(user_message=attached.user_message, assistant_message=None)
        if not stream.is_ended and not await stream.wait_end(seconds):
            raise await self._not_ready(attached, stream)
        result: TurnResult = stream.result
        if result.is_running:
            raise await self._not_ready(attached, stream)
        if result.error is not None:
            raise result.error
        return result

    def follow(self, attached: Attached, last_event_id: str | None = None) -> AsyncIterator[bytes]:
        """The reply as SSE frames, from the reader's place to its end (contract section 9.2)."""
        assert attached.stream is not None  # noqa: S101 - only conversations with replies are streamed
        return attached.stream.follow(
            last_event_id,
            heartbeat_seconds=self._settings.stream_heartbeat_seconds,
            idle_seconds=self._settings.stream_idle_limit_seconds,
            idle_frame=_idle_frame,
        )

    async def cancel(self, user_id: str, conversation_id: str, message_id: str) -> Message:
        """Stops a turn; returns the message as it is then. One that has ended stays as it is."""
        running = await self._database.read(_find_for_cancel, user_id, conversation_id, message_id)
        live = self._running.get(message_id)
        if live is not None:
            live.stop("cancelled")
            await live.finished.wait()
        elif running is not None:
            await self._database.write(self._end_unit, running, _cancelled(""), [])
        return (await self._database.read(_get_stored, conversation_id, message_id)).message

    def stop_conversation(self, conversation_id: str) -> None:
        """Ends what runs in a conversation that is gone."""
        for running in list(self._running.values()):
            if running.turn.conversation_id == conversation_id:
                running.stop("deleted")

    def hand_over(self, attached: Attached) -> None:
        """Notes that somebody has received the answer of this turn, if that is what was sent."""
        stream = attached.stream
        if stream is not None and stream.is_ended and not stream.result.is_running:
            self._handed_over.add(stream.reply_id)

    def count_running(self) -> int:
        return len(self._running)

    # accepting

    def _launch_after(self, uow: UnitOfWork, accepted: Accepted, correlation: str) -> Accepted:
        """The turn starts with the commit, whether or not the request that caused it is still there."""
        turn = accepted.turn
        if turn is not None:
            if self.is_draining:
                raise ServiceUnavailable("The service is restarting. Please try again.", details={"service": "turns"})
            uow.after_commit(lambda: self._launch(turn, accepted.user_message, accepted.influencer_id, correlation))
        return accepted

    async def _attach(self, accepted: Accepted) -> Attached:
        """The stream of the reply: of the running attempt, or a replay of the stored end."""
        user_message, reply = accepted.user_message, accepted.reply
        if reply is None:
            return Attached(user_message, None, None, is_replay=True)
        conversation_id, reply_id = reply.message["conversation_id"], reply.message["id"]
        for _ in range(ATTACH_TRIES):
            stream = self._hub.find_reply(reply_id)
            if stream is None and reply.message["status"] not in RUNNING:
                stream = _replay(user_message, reply)
            if stream is not None:
                return Attached(user_message, reply, stream, is_replay=accepted.is_replay)
            # It ended between the two looks, or waits for its take-over.
            await asyncio.sleep(ATTACH_SECONDS)
            reply = await self._database.read(_get_stored, conversation_id, reply_id)
        raise TurnTimeout(details={"user_message": user_message, "assistant_message": reply.message})

    # running

    def _launch(self, turn: StoredTurn, user_message: Message, influencer_id: str, correlation: str) -> None:
        stream = self._hub.open_reply(user_message, turn.id, turn.attempt)
        running = RunningTurn(turn, influencer_id, stream, correlation)
        ahead = [other for other in self._running.values() if other.turn.conversation_id == turn.conversation_id]
        self._running[turn.id] = running
        self._metrics.turns_in_progress.inc()
        running.task = asyncio.create_task(self._run(running, ahead), name=f"turn {turn.id}")

    async def _run(self, running: RunningTurn, ahead: list[RunningTurn]) -> None:
        """One turn from its place in the line to its stored end."""
        turn = running.turn
        correlation_id.set(running.correlation_id)
        started = time.monotonic()
        try:
            outcome = await self._answer(running, ahead)
            running.is_ending = True
            await self._end(running, outcome, time.monotonic() - started)
        finally:
            if not running.stream.is_ended:
                self._hub.close_reply(turn.id, *_with_frame(turn, _handed_back(running)))
            self._running.pop(turn.id, None)
            self._metrics.turns_in_progress.dec()
            running.finished.set()

    async def _answer(self, running: RunningTurn, ahead: list[RunningTurn]) -> Ending:
        """Waits for the turns before it, asks the model, and says how that ended."""
        running.is_waiting_or_generating = True
        try:
            if running.stop_reason is not None:
                return _cancelled("")
            for other in ahead:
                await other.finished.wait()
            self._publish_typing(running, is_typing=True)
            request = await self._prepare(running)
            window = self._settings.stream_coalesce_ms / 1000
            return await generate(running, self._model, request, self._hub, window_seconds=window)
        except asyncio.CancelledError:
            if running.stop_reason is None:
                raise
            return _cancelled(running.stream.text)
        except Exception:  # noqa: BLE001 - whatever went wrong must leave a visible failure, not an endless reply
            logger.exception("turn.crashed", turn_id=running.turn.id)
            return Ending(running.stream.text, "TRANSIENT", ModelUnavailable(), outcome="unreachable")
        finally:
            running.is_waiting_or_generating = False

    async def _prepare(self, running: RunningTurn) -> ModelRequest:
        influencer = await self._influencers.find(running.influencer_id)
        if influencer is None:
            raise InfluencerNotFound
        user_message = running.stream.user_message
        history = await self._database.read(
            lambda uow: uow.messages.list_for_prompt(
                running.turn.conversation_id,
                before_seq=user_message["sequence"],
                limit=self._settings.history_messages,
            )
        )
        return compose(
            influencer,
            history,
            user_message["content"],
            deadline=time.monotonic() + self._settings.turn_max_seconds,
            temperature=self._settings.model_temperature,
            max_output_tokens=self._settings.model_max_output_tokens,
            correlation_id=correlation_id.get(),
        )

    async def _end(self, running: RunningTurn, outcome: Ending, seconds: float) -> None:
        turn = running.turn
        if running.stop_reason == "handed_back":
            self._hub.close_reply(turn.id, *_with_frame(turn, _handed_back(running)))
            return
        if running.stop_reason == "deleted":
            self._publish_typing(running, is_typing=False)
            self._hub.close_reply(turn.id, *_with_frame(turn, _deleted(running)))
            return
        ended = await self._store_end(running, outcome)
        self._metrics.turn_finished(outcome.provider or "none", outcome.model or "none", outcome.outcome, seconds)
        self._count_calls(running)
        result = _deleted(running) if ended is None else _result(running.stream.user_message, ended.reply, outcome)
        self._hub.close_reply(turn.id, *_with_frame(turn, result))

    async def _store_end(self, running: RunningTurn, outcome: Ending) -> ending.Ended | None:
        """Stores the end; tries again for a while when the database takes nothing. None: nothing to store it in."""
        deadline = time.monotonic() + STORE_SECONDS
        while True:
            try:
                return await self._database.write(self._end_unit, running.turn, outcome, running.calls)
            except (StorageFull, ServiceUnavailable) as error:
                logger.error("turn.end_not_stored", turn_id=running.turn.id, error=error.code)
                if time.monotonic() >= deadline or self.is_draining:
                    raise  # the reply's row stays open, and whoever takes the turn over writes it anew
                await asyncio.sleep(1)

    def _end_unit(
        self, uow: UnitOfWork, turn: StoredTurn, outcome: Ending, calls: list[ModelCall]
    ) -> ending.Ended | None:
        ended = ending.end(uow, turn, outcome, calls, self._influencers.absolute)
        if ended is not None:
            uow.after_commit(lambda: self._publish_end(turn, ended))
            uow.after_commit(self._wake_jobs)
        return ended

    def _publish_end(self, turn: StoredTurn, ended: ending.Ended) -> None:
        self._publish_typing_of(turn, ended.reply.message["sender_id"], is_typing=False)
        self._hub.publish(turn.user_id, ended.event, ended.data, seq=ended.seq)

    def _publish_typing(self, running: RunningTurn, *, is_typing: bool) -> None:
        self._publish_typing_of(running.turn, running.influencer_id, is_typing=is_typing)

    def _publish_typing_of(self, turn: StoredTurn, influencer_id: str | None, *, is_typing: bool) -> None:
        self._hub.publish(
            turn.user_id,
            "typing_status",
            {"conversation_id": turn.conversation_id, "influencer_id": influencer_id, "is_typing": is_typing},
        )

    def _count_calls(self, running: RunningTurn) -> None:
        for call in running.calls:
            if call.first_token_seconds is not None:
                self._metrics.turn_first_token.observe(call.first_token_seconds)
            for kind in ("prompt", "cached", "output", "thinking"):
                count = getattr(call.usage, kind)
                if count:
                    self._metrics.tokens_used(call.provider, call.model, kind, count)

    async def _not_ready(self, attached: Attached, stream: ReplyStream) -> AppError:
        """The refusal for a sender whose time is up while the turn goes on."""
        conversation_id = attached.user_message["conversation_id"]
        reply = await self._database.read(_get_stored, conversation_id, stream.reply_id)
        return TurnTimeout(details={"user_message": attached.user_message, "assistant_message": reply.message})

    # what keeps turns alive

    async def _maintain(self) -> None:
        """Stores partial texts, renews leases, notes hand-overs, and looks for orphans."""
        next_sweep = next_renewal = 0.0
        renewal_seconds = self._limits.lease / SECOND / 3
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            try:
                await self._save_partial()
                await self._save_handed_over()
                if time.monotonic() >= next_renewal:
                    next_renewal = time.monotonic() + renewal_seconds
                    await self._renew()
                if time.monotonic() >= next_sweep:
                    next_sweep = time.monotonic() + SWEEP_SECONDS
                    await self._sweep()
            except Exception:  # noqa: BLE001 - this loop keeps every turn's lease; it may not die of one bad round
                logger.exception("turns.maintenance_failed")

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
            until = now() + self._limits.lease
            await self._database.write(lambda uow: uow.turns.renew(self._owner, ids, until))

    async def _sweep(self) -> None:
        """Takes over turns whose owner has let its lease end."""
        if self.is_draining:
            return
        orphans = await self._database.read(lambda uow: uow.turns.list_orphans(now()))
        for turn in orphans:
            if turn.id in self._running:
                continue
            if turn.takeovers >= MAX_TAKEOVERS:
                outcome = Ending("", "TRANSIENT", ModelUnavailable(), outcome="abandoned")
                await self._database.write(self._end_unit, turn, outcome, [])
                continue
            await self._database.write(self._take_over, turn)

    def _take_over(self, uow: UnitOfWork, turn: StoredTurn) -> None:
        taken = ending.take_over(uow, turn, self._owner, now() + self._limits.lease)
        if taken is None:
            return
        mine, user_message = taken
        conversation = uow.conversations.find(turn.conversation_id)
        influencer_id = (conversation.influencer_id if conversation is not None else None) or ""
        logger.info("turn.taken_over", turn_id=turn.id, attempt=mine.attempt)
        uow.after_commit(lambda: self._launch(mine, user_message, influencer_id, new_id()))
        uow.after_commit(self._wake_jobs)


def _find_reply(
    uow: UnitOfWork, reader_id: str, conversation_id: str, message_id: str
) -> tuple[Message, StoredMessage]:
    accepting.open_for_reader(uow, conversation_id, reader_id)
    reply = uow.messages.find(conversation_id, message_id)
    if reply is None:
        raise MessageNotFound
    if reply.message["origin"] != "model" or reply.message["reply_to"] is None:
        raise NotStreamable
    user_message = uow.messages.find(conversation_id, reply.message["reply_to"])
    assert user_message is not None  # noqa: S101 - a reply's question is never deleted alone
    return user_message.message, reply


def _find_for_cancel(uow: UnitOfWork, user_id: str, conversation_id: str, message_id: str) -> StoredTurn | None:
    """The turn that is to be stopped; None when the message is final."""
    accepting.open_for_user(uow, conversation_id, user_id)
    found = uow.messages.find(conversation_id, message_id)
    if found is None or found.message["role"] != "assistant":
        raise MessageNotFound
    return uow.turns.find(message_id)


def _get_stored(uow: UnitOfWork, conversation_id: str, message_id: str) -> StoredMessage:
    """Raises ConversationNotFound: messages go with their conversation only."""
    found = uow.messages.find(conversation_id, message_id)
    if found is None:
        raise ConversationNotFound
    return found


def _cancelled(text: str) -> Ending:
    return Ending(text, "CANCELLED", TurnCancelled(), outcome="cancelled")


def _result(user_message: Message, reply: StoredMessage, outcome: Ending) -> TurnResult:
    message = reply.message
    if outcome.error_code is None:
        return TurnResult(user_message, message, outcome.provider or "unknown", outcome.model)
    failure = FAILURES[outcome.error_code]
    return TurnResult(
        user_message,
        message,
        error_code=outcome.error_code,
        error_message=failure["message"],
        error=_with_messages(outcome.error or ModelUnavailable(), user_message, message),
        is_retryable=failure["retryable"],
    )


def _with_messages(error: AppError, user_message: Message, reply: Message) -> AppError:
    details = {"user_message": user_message, "assistant_message": reply}
    return type(error)(error.message, details=details, retry_after=error.retry_after)


def _handed_back(running: RunningTurn) -> TurnResult:
    user_message = running.stream.user_message
    return TurnResult(
        user_message,
        None,
        error_code="TRANSIENT",
        error_message="The service is restarting; the reply will follow.",
        is_running=True,
    )


def _deleted(running: RunningTurn) -> TurnResult:
    return TurnResult(
        running.stream.user_message,
        None,
        error_code="CANCELLED",
        error_message="The conversation was deleted.",
        error=ConversationNotFound(),
    )


def _idle_frame(attempt: int) -> bytes:
    silent = TurnResult(
        None,
        None,
        error_code="TRANSIENT",
        error_message="The reply takes long; it goes on. Resume the stream.",
        is_running=True,
    )
    return silent.frame(attempt)


def _with_frame(turn: StoredTurn, result: TurnResult) -> tuple[bytes, TurnResult]:
    return result.frame(turn.attempt), result


_REFUSALS: dict[ErrorCode, type[AppError]] = {
    "BLOCKED_CONTENT": ContentBlocked,
    "NO_PROVIDER": NoModelProvider,
    "CANCELLED": TurnCancelled,
    "TRANSIENT": ModelUnavailable,
}


def _replay(user_message: Message, reply: StoredMessage) -> ReplyStream:
    """The stream of a reply that has ended, as its readers would have seen it."""
    message = reply.message
    stream = ReplyStream(user_message, message["id"], message["attempt"])
    if message["content"]:
        stream.append(message["content"])
    error = message["error"]
    if error is None:
        result = TurnResult(user_message, message, reply.provider or "unknown", reply.model)
    else:
        outcome = Ending(message["content"], error["code"], _REFUSALS[error["code"]]())
        result = _result(user_message, reply, outcome)
    stream.end(result.frame(message["attempt"]), result)
    return stream
