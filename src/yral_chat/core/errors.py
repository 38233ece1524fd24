"""Every refusal the product can state, with its status and wire code (contract section 2).

AppError
├── BadRequest 400 ─ RequestTooSlow 408, AddressTooLong 414, HeadTooLarge 431
├── Unauthorized 401 ── Forbidden 403 ── NotFound 404 ── PayloadTooLarge 413 ── UnsupportedMedia 415
├── Conflict 409 ─ IdempotencyConflict, TurnCancelled, NotStreamable
├── Invalid 422 ─ ContentBlocked
├── TooManyTurns 429, RateLimitExceeded 429, QuotaExceeded 429, ModelQuotaExhausted 429
├── ServiceUnavailable 503 ─ Overloaded, StorageFull, StorageUnavailable, ModelUnavailable, NoModelProvider
└── TurnTimeout 504, GenerationTimeout 504
"""

from typing import Any

import orjson


class AppError(Exception):
    """A refusal with a readable sentence. Raised anywhere below the edge, rendered only in api/errors.py.

    `details` is JSON-ready; `retry_after` whole seconds for the header of that name.
    """

    status = 500
    code = "internal_server_error"
    message = "Something went wrong on our side."
    retry_after: int | None = None

    def __init__(
        self, message: str | None = None, *, details: dict[str, Any] | None = None, retry_after: int | None = None
    ) -> None:
        self.message = message or self.message
        self.details = details or {}
        self.retry_after = retry_after if retry_after is not None else self.retry_after
        self.headers: dict[str, str] = {}  # what the edge adds to the answer
        super().__init__(self.message)


class BadRequest(AppError):
    status, code, message = 400, "bad_request", "The request could not be read"


class RequestTooSlow(BadRequest):
    status, message = 408, "The request did not arrive in time"


class AddressTooLong(BadRequest):
    status, message = 414, "The address is too long"


class HeadTooLarge(BadRequest):
    status, message = 431, "The headers are too many or too long"


class Unauthorized(AppError):
    status, code, message = 401, "unauthorized", "Authentication failed"


class Forbidden(AppError):
    status, code, message = 403, "forbidden", "Not allowed"


class NotYourConversation(Forbidden):
    message = "Not your conversation"


class NotYourInfluencer(Forbidden):
    message = "Not your influencer"


class PrincipalNotOwned(Forbidden):
    message = "This principal is not yours"


class InfluencerDiscontinued(Forbidden):
    message = "This influencer is discontinued"


class MediaForbidden(Forbidden):
    code, message = "media_forbidden", "This file is not yours"


class BadSignature(Forbidden):
    message = "This address has expired or was altered"


class NotFound(AppError):
    status, code, message = 404, "not_found", "Not found"


class ConversationNotFound(NotFound):
    message = "Conversation not found"


class MessageNotFound(NotFound):
    message = "Message not found"


class InfluencerNotFound(NotFound):
    message = "Influencer not found"


class VersionNotFound(NotFound):
    message = "Version not found"


class MediaNotFound(NotFound):
    message = "File not found"


class MemoryNotFound(NotFound):
    message = "Memory not found"


class Conflict(AppError):
    status, code, message = 409, "conflict", "The present state does not allow this"


class IdempotencyConflict(Conflict):
    code, message = "idempotency_conflict", "This idempotency key was used with another body"


class TurnCancelled(Conflict):
    code, message = "turn_cancelled", "The reply was stopped"


class NotStreamable(Conflict):
    code, message = "not_streamable", "There is no model reply to stream"


class PayloadTooLarge(AppError):
    status, code, message = 413, "payload_too_large", "The request body is too large"


class UnsupportedMedia(AppError):
    """`details` is `{allowed: [mime type]}`."""

    status, code, message = 415, "unsupported_media_type", "The file is not of an allowed type, or is damaged"


class Invalid(AppError):
    """422. `errors` are `{type, loc, msg}` as in contract section 2."""

    status, code, message = 422, "validation_error", "The request is not valid"

    @classmethod
    def field(cls, loc: list[str | int], msg: str, kind: str = "value_error") -> "Invalid":
        return cls(details={"errors": [{"type": kind, "loc": loc, "msg": msg}]})


class ContentBlocked(AppError):
    status, code, message = 422, "content_blocked", "The reply was refused by the safety layer."


class TooManyTurns(AppError):
    status, code, message = 429, "rate_limit_exceeded", "Too many replies are being written at once"
    retry_after = 5


class RateLimitExceeded(AppError):
    """`details` is `{limit_type, limit, retry_after}`."""

    status, code, message = 429, "rate_limit_exceeded", "Too many requests. Please slow down."


class QuotaExceeded(AppError):
    """`details` is `{limit_type, limit, used, resets_at}`."""

    status, code, message = 429, "quota_exceeded", "The quota of this day is used up"


class ModelQuotaExhausted(AppError):
    status, code, message = 429, "ai_rate_limited", "The language model refuses for quota. Please try again later."
    retry_after = 30


class ServiceUnavailable(AppError):
    status, code, message = 503, "service_unavailable", "The service cannot do this right now"
    retry_after = 5


class Overloaded(ServiceUnavailable):
    """`reason` says what is full: one of the labels of `overload_refusals_total` (docs/operations.md)."""

    code, message = "overloaded", "Too many requests are waiting; nothing was stored. Please try again in a moment."
    retry_after = 2

    def __init__(self, reason: str = "other") -> None:
        self.reason = reason
        super().__init__()


class StorageFull(ServiceUnavailable):
    code, message = "storage_full", "The disk takes no more; nothing was stored"
    retry_after = 30


class StorageUnavailable(ServiceUnavailable):
    message = "Files cannot be stored or read right now"


class ModelUnavailable(ServiceUnavailable):
    code, message = "ai_unavailable", "The reply could not be generated. Please try again."


class NoModelProvider(ServiceUnavailable):
    code, message = "no_provider", "No language model can be reached right now."
    retry_after = 30


class TurnTimeout(AppError):
    status, code, message = 504, "turn_timeout", "The reply is not ready yet. It goes on; ask again in a moment."
    retry_after = 5


class GenerationTimeout(AppError):
    status, code, message = 504, "ai_timeout", "This took too long. Please try again."
    retry_after = 5


def envelope(
    code: str, message: str, details: dict[str, Any], correlation_id: str, *, with_detail: bool = False
) -> bytes:
    """The body of every failure, as JSON. `with_detail` repeats the message in `detail` (401 and 403)."""
    body: dict[str, Any] = {"error": code, "message": message, "details": details, "correlation_id": correlation_id}
    if with_detail:
        body["detail"] = message
    return orjson.dumps(body)
