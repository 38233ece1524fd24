"""Which web pages of other origins may call us (contract 1.3)."""

from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Send

from yral_chat.core.config import Settings
from yral_chat.core.errors import BadRequest, envelope
from yral_chat.core.logging import correlation_id

EXPOSED_HEADERS: Final = (
    "X-Correlation-ID",
    "X-API-Version",
    "X-Response-Time-Ms",
    "Retry-After",
    "WWW-Authenticate",
    "X-Content-Type-Options",
    "Cache-Control",
    "Idempotency-Replayed",
    "X-Model-Provider",
    "ETag",
    "X-RateLimit-Limit-Minute",
    "X-RateLimit-Limit-Hour",
    "X-RateLimit-Remaining-Minute",
    "X-RateLimit-Remaining-Hour",
    "RateLimit-Policy",
    "RateLimit",
)
ALLOWED_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def cors_options(settings: Settings) -> dict[str, Any]:
    """The arguments of `CORS`. Credentials only for origins that are named one by one."""
    origins = settings.resolved_cors_origins
    return {
        "allow_origins": origins,
        "allow_methods": ALLOWED_METHODS,
        "allow_headers": ("*",),
        "allow_credentials": bool(origins) and "*" not in origins,
        "expose_headers": EXPOSED_HEADERS,
        "max_age": 600,
    }


class CORS(CORSMiddleware):
    """Starlette's, with our envelope where it refuses a preflight, and not one word to origins that are not listed."""

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        if message["type"] == "http.response.start" and not self._is_told(request_headers):
            MutableHeaders(scope=message).add_vary_header("Origin")
            await send(message)
            return
        await super().send(message, send, request_headers)

    def _is_told(self, request_headers: Headers) -> bool:
        origin = request_headers.get("Origin")
        return origin is None or self.is_allowed_origin(origin)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code != BadRequest.status:
            return response
        refusal = bytes(response.body).decode()
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        body = envelope(BadRequest.code, refusal, {}, correlation_id.get())
        return Response(body, BadRequest.status, headers=kept, media_type="application/json")
