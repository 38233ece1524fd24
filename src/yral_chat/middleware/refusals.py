"""What is refused outside of a route, in the shape of every failure (contract section 2)."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from yral_chat.core.errors import AppError, envelope
from yral_chat.core.logging import correlation_id


async def refuse(error: AppError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with `error`, and names it to the access log."""
    scope.setdefault("state", {})["error_code"] = error.code
    await rendered(error)(scope, receive, send)


def rendered(error: AppError) -> Response:
    """The answer that says `error`."""
    body = envelope(error.code, error.message, error.details, correlation_id.get(), with_detail=error.status == 403)
    headers = None if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(body, error.status, headers, media_type="application/json")
