"""How a turn's end looks to those who listen: the last event of the stream, and the refusal of a waiting sender."""

import msgspec

from yral_chat.clients.language_model import Usage
from yral_chat.core.errors import (
    AppError,
    ContentBlocked,
    ConversationNotFound,
    ModelUnavailable,
    NoModelProvider,
    TurnCancelled,
)
from yral_chat.core.objects import FAILURES, ErrorCode, Message
from yral_chat.db.repositories.messages import StoredMessage
from yral_chat.realtime.hub import ReplyStream, sse_frame
from yral_chat.services.turns.records import Ending

_REFUSALS: dict[ErrorCode, type[AppError]] = {
    "BLOCKED_CONTENT": ContentBlocked,
    "NO_PROVIDER": NoModelProvider,
    "CANCELLED": TurnCancelled,
    "TRANSIENT": ModelUnavailable,
}


class TurnResult(msgspec.Struct, frozen=True):
    """How a turn ended for those who listen.

    `error` is the refusal that a waiting sender gets; None: the reply is there. `is_running`: the turn goes on
    elsewhere, or later.
    """

    user_message: Message | None
    assistant_message: Message | None
    provider: str = "unknown"
    model: str | None = None
    error_code: ErrorCode | None = None
    error_message: str = ""
    error: AppError | None = None
    is_running: bool = False
    is_retryable: bool = True
    usage: Usage | None = None  # None: this reply was written before
    is_truncated: bool = False

    def frame(self, attempt: int, place: int | None = None) -> bytes:
        """The last event of the stream: `done` or `error` (contract section 9.2).

        `place` is where the reader stands in a reply that goes on: the event's id lets a resume begin there.
        """
        if self.error_code is None:
            assert self.assistant_message is not None  # noqa: S101 - a complete reply has its message
            return sse_frame(
                "done",
                f"{attempt}-done",
                {
                    "assistant_message": self.assistant_message,
                    "provider": self.provider,
                    "model": self.model,
                    "tokens": self.assistant_message["token_count"] or 0,
                    "blocked": self.assistant_message["origin"] == "safety",
                },
            )
        return sse_frame(
            "error",
            f"{attempt}-{'error' if place is None else place}",
            {
                "code": self.error_code,
                "message": self.error_message,
                "retryable": self.is_retryable,
                "turn_running": self.is_running,
            },
        )


def result_of(user_message: Message | None, message: Message | None, outcome: Ending) -> TurnResult:
    """The result of an attempt that ended with `outcome` and left `message`."""
    if outcome.error_code is None:
        return TurnResult(
            user_message,
            message,
            outcome.provider or "unknown",
            outcome.model,
            usage=outcome.usage,
            is_truncated=outcome.outcome == "truncated",
        )
    failure = FAILURES[outcome.error_code]
    error = outcome.error or ModelUnavailable()
    details = {"user_message": user_message, "assistant_message": message} if message is not None else {}
    return TurnResult(
        user_message,
        message,
        error_code=outcome.error_code,
        error_message=failure["message"],
        error=type(error)(error.message, details=details, retry_after=error.retry_after),
        is_retryable=failure["retryable"],
    )


def replay_of(user_message: Message, reply: StoredMessage) -> ReplyStream:
    """The stream of a reply that has ended, as its readers would have seen it."""
    message = reply.message
    stream = ReplyStream(user_message, message["id"], message["attempt"])
    if message["content"]:
        stream.append(message["content"])
    result = stored_result(user_message, reply)
    stream.end(result.frame(message["attempt"]), result)
    return stream


def stored_result(user_message: Message | None, reply: StoredMessage) -> TurnResult:
    """The result that a reply which has ended speaks of."""
    error = reply.message["error"]
    if error is None:
        return TurnResult(user_message, reply.message, reply.provider or "unknown", reply.model)
    outcome = Ending(reply.message["content"], error["code"], _REFUSALS[error["code"]]())
    return result_of(user_message, reply.message, outcome)


def failed_picture(code: ErrorCode) -> TurnResult:
    """The result of a picture that could not be made."""
    return result_of(None, None, Ending("", code, _REFUSALS[code]()))


def handed_back(user_message: Message | None) -> TurnResult:
    """The turn goes on in another process, or after the next start of this one."""
    return TurnResult(
        user_message,
        None,
        error_code="TRANSIENT",
        error_message="The service is restarting; the reply will follow.",
        is_running=True,
    )


def deleted(user_message: Message | None) -> TurnResult:
    """The conversation went away under the turn."""
    return TurnResult(
        user_message,
        None,
        error_code="CANCELLED",
        error_message="The conversation was deleted.",
        error=ConversationNotFound(),
    )


def idle_frame(attempt: int, place: int) -> bytes:
    """The last event for a reader whose time is up while the turn goes on."""
    silent = TurnResult(
        None,
        None,
        error_code="TRANSIENT",
        error_message="The reply takes long; it goes on. Resume the stream.",
        is_running=True,
    )
    return silent.frame(attempt, place)
