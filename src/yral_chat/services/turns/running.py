"""One turn while it runs: the model's pieces go out as events, and its end becomes an `Ending`."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from loguru import logger

from yral_chat.clients.language_model import (
    Completion,
    LanguageModel,
    ModelCall,
    ModelFailure,
    ModelRequest,
    NoUsableModel,
    closing_stream,
)
from yral_chat.core.errors import AppError, ContentBlocked, ModelQuotaExhausted, ModelUnavailable, NoModelProvider
from yral_chat.core.objects import ErrorCode, Message
from yral_chat.core.tracing import Cause
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub, ReplyStream
from yral_chat.services.moderation import Judgement, OutputFilter
from yral_chat.services.turns.records import Ending, StopReason
from yral_chat.services.turns.results import TurnResult

# How long a piece of text that might become a leak is held back (the issue allows 50 ms of delay).
HOLD_SECONDS = 0.04


class Guard(msgspec.Struct, frozen=True):
    """What watches over a reply: no text leaves but through `output`; `judgement` may end it."""

    output: OutputFilter
    judgement: Judgement | None = None


class RunningTurn:
    """A turn that this process is in charge of. `stream.user_message` is what a reply answers; a picture has none."""

    def __init__(self, turn: StoredTurn, influencer_id: str, stream: ReplyStream, cause: Cause) -> None:
        self.turn = turn
        self.influencer_id = influencer_id
        self.stream = stream
        self.cause = cause  # the request that began it
        self.started = time.monotonic()
        self.first_token_seconds: float | None = None  # after the start
        self.calls: list[ModelCall] = []
        self.stop_reason: StopReason | None = None
        self.saved_length = 0  # code points of the partial text that are stored
        self.finished = asyncio.Event()
        self.has_begun = False  # it is this turn's time
        self.is_waiting_or_generating = False
        self.is_ending = False
        self.task: asyncio.Task[None] | None = None

    def stop(self, reason: StopReason) -> None:
        """Ends the turn as soon as its task runs again; the first reason counts, and none once the end is stored."""
        if self.stop_reason is not None or self.is_ending:
            return
        self.stop_reason = reason
        # A task that has not begun would never begin: it looks at `stop_reason` itself.
        if self.task is not None and self.is_waiting_or_generating:
            self.task.cancel()


class RunningTurns(dict[str, RunningTurn]):
    """What runs in this process, by the id of the turn."""

    def find_before(self, running: RunningTurn) -> RunningTurn | None:
        """A reply of this conversation that is being written, or is to be written first."""
        turn = running.turn
        for other in self.values():
            if other is running or other.turn.conversation_id != turn.conversation_id or other.turn.kind != "reply":
                continue
            if other.has_begun or other.turn.seq < turn.seq:
                return other
        return None


class TakenOver(msgspec.Struct, frozen=True):
    """An orphaned turn that has a new owner, with its next attempt."""

    turn: StoredTurn
    user_message: Message | None
    influencer_id: str


class Ended(msgspec.Struct, frozen=True):
    """The stored end of a turn, for those who listen: the message, and the durable event that tells of it.

    A picture that could not be made leaves neither.
    """

    message: Message | None
    influencer_id: str
    event: str = ""
    data: dict[str, Any] = {}
    seq: int | None = None


class TurnWork(Protocol):
    """What one kind of turn does; TurnEngine does what all have in common."""

    async def do(self, running: RunningTurn, begin: Callable[[], None]) -> Ending:
        """The work between two transactions; calls `begin` when it is this turn's time. May raise ModelFailure."""
        ...

    def end(self, uow: UnitOfWork, turn: StoredTurn, outcome: Ending, calls: list[ModelCall]) -> Ended | None:
        """Stores how the attempt ended. None when it is not in charge any more: then nothing is written."""
        ...

    def find_result(self, uow: UnitOfWork, turn: StoredTurn, user_message: Message | None) -> TurnResult:
        """What is stored of a turn that was ended by somebody else."""
        ...

    def take_over(self, uow: UnitOfWork, turn: StoredTurn, owner: str, lease_until: int) -> TakenOver | None:
        """Makes `owner` run the next attempt; None when somebody else was faster."""
        ...


class Pieces:
    """Gathers the model's pieces: the first leaves at once, later ones together after the coalescing window.

    What the filter holds back leaves when the filter says so, or HOLD_SECONDS later where it may.
    """

    def __init__(self, running: RunningTurn, hub: Hub, output: OutputFilter, *, window_seconds: float) -> None:
        self._running = running
        self._hub = hub
        self._output = output
        self._release_timer: asyncio.TimerHandle | None = None
        self._window = window_seconds
        self._waiting: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_first = True

    def add(self, text: str) -> None:
        """Raises ModelFailure when the text gives away what must not leave."""
        if "\x00" in text:  # PostgreSQL cannot store it, and nobody can read it
            text = text.replace("\x00", "")
            if not text:
                return
        self._pass(self._output.feed(text))
        self._check()
        if not self._output.held:
            self._stop_release()
        elif self._release_timer is None:
            self._release_timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._release)

    def finish(self) -> None:
        """The model has said everything: sends the rest. Raises as `add`."""
        self._stop_release()
        self._pass(self._output.end())
        self._check()
        self.flush()

    def close(self) -> None:
        """There comes no more: sends what may leave of what is there."""
        self._stop_release()
        self._pass(self._output.release())
        self.flush()

    def _check(self) -> None:
        if self._output.is_leak:
            raise ModelFailure("blocked", "the reply repeats the persona's instructions", is_outage=False)

    def _release(self) -> None:
        self._release_timer = None
        self._pass(self._output.release())

    def _stop_release(self) -> None:
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None

    def _pass(self, text: str) -> None:
        if not text:
            return
        self._waiting.append(text)
        if self._is_first or not self._window:
            self._is_first = False
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._window, self.flush)

    def flush(self) -> None:
        """Sends what waits now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        text = "".join(self._waiting)
        self._waiting.clear()
        running, turn = self._running, self._running.turn
        if running.first_token_seconds is None:
            running.first_token_seconds = time.monotonic() - running.started
            waited = round(running.first_token_seconds * 1000)
            logger.debug("turn.first_token", turn_id=turn.id, first_token_ms=waited)
        offset = len(running.stream.text)
        running.stream.append(text)
        self._hub.publish_delta(
            turn.user_id,
            lambda: {
                "conversation_id": turn.conversation_id,
                "message_id": turn.id,
                "attempt": turn.attempt,
                "offset": offset,
                "text": text,
            },
        )


async def generate(
    running: RunningTurn, model: LanguageModel, request: ModelRequest, hub: Hub, guard: Guard, *, window_seconds: float
) -> Ending:
    """Runs the model to its end; every piece that arrived and may leave is in the stream when this returns or is
    cancelled."""
    pieces = Pieces(running, hub, guard.output, window_seconds=window_seconds)
    judgement = guard.judgement
    try:
        # The request's deadline bounds the model; this bounds a model that does not keep it.
        async with asyncio.timeout(max(0.0, request.deadline - time.monotonic()) + 1.0) as scope:
            if judgement is not None:
                judgement.on_refusal(lambda: None if scope.expired() else scope.reschedule(0))
            async with closing_stream(model.stream(request, running.calls)) as answer:
                async for item in answer:
                    if isinstance(item, Completion):
                        pieces.finish()
                        if judgement is not None and await judgement.wait():
                            raise refused_by_judge()
                        return _complete(running, item)
                    pieces.add(item.text)
        raise ModelFailure("unreachable", "the stream ended without a completion")
    except ModelFailure as failure:
        pieces.close()
        return failed(running, failure)
    except TimeoutError:
        pieces.close()
        if judgement is not None and judgement.is_refused:
            return failed(running, refused_by_judge())
        return failed(running, ModelFailure("timeout", "the turn took too long"))
    finally:
        pieces.close()
        if judgement is not None:
            await judgement.close(running.calls)


def refused_by_judge() -> ModelFailure:
    """The end of a reply whose question the judge refuses."""
    return ModelFailure("blocked", "the judge refuses the message", is_outage=False)


def _complete(running: RunningTurn, completion: Completion) -> Ending:
    return Ending(
        content=running.stream.text,
        outcome=completion.outcome,
        provider=completion.provider,
        model=completion.model,
        tokens=completion.usage.output,
        usage=completion.usage,
    )


def failed(running: RunningTurn, failure: ModelFailure) -> Ending:
    """What people see of a model's failure: a code and a refusal, never its words."""
    code, error = _refusal(failure)
    logger.warning(
        "turn.model_failed", turn_id=running.turn.id, outcome=failure.outcome, reason=failure.reason, code=code
    )
    last = running.calls[-1] if running.calls else None
    return Ending(
        content="" if code == "BLOCKED_CONTENT" else running.stream.text,
        error_code=code,
        error=error,
        outcome=failure.outcome,
        provider=last.provider if last else "",
        model=last.model if last else None,
    )


def _refusal(failure: ModelFailure) -> tuple[ErrorCode, AppError]:
    if failure.outcome == "blocked":
        return "BLOCKED_CONTENT", ContentBlocked()
    if isinstance(failure, NoUsableModel):
        return "NO_PROVIDER", NoModelProvider()
    if failure.outcome == "quota":
        retry_after = max(1, round(failure.retry_after)) if failure.retry_after else None
        return "TRANSIENT", ModelQuotaExhausted(retry_after=retry_after)
    return "TRANSIENT", ModelUnavailable()
