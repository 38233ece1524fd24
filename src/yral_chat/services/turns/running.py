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
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub, ReplyStream
from yral_chat.services.turns.records import Ending, StopReason
from yral_chat.services.turns.results import TurnResult


class RunningTurn:
    """A turn that this process is in charge of. `stream.user_message` is what a reply answers; a picture has none."""

    def __init__(self, turn: StoredTurn, influencer_id: str, stream: ReplyStream, correlation_id: str) -> None:
        self.turn = turn
        self.influencer_id = influencer_id
        self.stream = stream
        self.correlation_id = correlation_id  # of the request that began it
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
    """Gathers the model's pieces: the first leaves at once, later ones together after the coalescing window."""

    def __init__(self, running: RunningTurn, hub: Hub, *, window_seconds: float) -> None:
        self._running = running
        self._hub = hub
        self._window = window_seconds
        self._waiting: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_first = True

    def add(self, text: str) -> None:
        if "\x00" in text:  # PostgreSQL cannot store it, and nobody can read it
            text = text.replace("\x00", "")
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
    running: RunningTurn, model: LanguageModel, request: ModelRequest, hub: Hub, *, window_seconds: float
) -> Ending:
    """Runs the model to its end; every piece that arrived is in the stream when this returns or is cancelled."""
    pieces = Pieces(running, hub, window_seconds=window_seconds)
    try:
        # The request's deadline bounds the model; this bounds a model that does not keep it.
        async with asyncio.timeout(max(0.0, request.deadline - time.monotonic()) + 1.0):
            async with closing_stream(model.stream(request, running.calls)) as answer:
                async for item in answer:
                    if isinstance(item, Completion):
                        pieces.flush()
                        return _complete(running, item)
                    pieces.add(item.text)
        raise ModelFailure("unreachable", "the stream ended without a completion")
    except ModelFailure as failure:
        pieces.flush()
        return failed(running, failure)
    except TimeoutError:
        pieces.flush()
        return failed(running, ModelFailure("timeout", "the turn took too long"))
    finally:
        pieces.flush()


def _complete(running: RunningTurn, completion: Completion) -> Ending:
    return Ending(
        content=running.stream.text,
        outcome=completion.outcome,
        provider=completion.provider,
        model=completion.model,
        tokens=completion.usage.output,
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
