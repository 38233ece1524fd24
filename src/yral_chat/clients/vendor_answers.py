"""One whole answer of a vendor, where nothing is streamed: an object, or a file."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from yral_chat.clients.language_model import ModelFailure
from yral_chat.clients.resilience import seconds_left
from yral_chat.clients.sse import EventTooLarge
from yral_chat.clients.vendor_http import (
    SILENCE_SECONDS,
    VendorHttp,
    failure_of_status,
    read_error,
    read_whole,
    time_limits,
    typed_failures,
)
from yral_chat.core.tracing import NO_SPAN, Span, trace_headers

MAX_ANSWER_BYTES = 4 * 1024 * 1024


class Demand(msgspec.Struct, frozen=True):
    """One request and how long it may take. `body` is what the HTTP client takes: bytes, pieces or a form."""

    url: str
    headers: dict[str, str]
    method: str = "POST"
    body: bytes | AsyncIterator[bytes] | Any = None
    timeout_seconds: float = 60.0
    silence_seconds: float = SILENCE_SECONDS
    max_bytes: int = MAX_ANSWER_BYTES  # of the answer


async def answer_to(http: VendorHttp, demand: Demand, deadline: float) -> bytes:
    """The body of a 2xx answer. Raises ModelFailure; redirects are refused, because the key would follow them."""
    left = seconds_left(deadline)
    if left <= 0:
        raise ModelFailure("timeout", "no time left", is_outage=False)
    with typed_failures(is_our_haste=left < min(demand.timeout_seconds, demand.silence_seconds)):
        async with http.session.request(
            demand.method,
            demand.url,
            data=demand.body,
            headers=demand.headers,
            timeout=time_limits(min(demand.timeout_seconds, left), demand.silence_seconds),
            allow_redirects=False,
        ) as response:
            if not 200 <= response.status < 300:
                raise failure_of_status(response.status, await read_error(response), response.headers)
            try:
                return await read_whole(response, demand.max_bytes)
            except EventTooLarge as error:
                raise ModelFailure("empty", "an answer beyond the size limit") from error


def plain_headers(correlation_id: str, key: str | None = None, span: Span = NO_SPAN) -> dict[str, str]:
    """What every such request carries; `key` as a bearer token, `span` is the call's own."""
    headers = {"Accept": "application/json", "User-Agent": "yral-chat", **trace_headers(span)}
    if correlation_id:
        headers["X-Correlation-ID"] = correlation_id
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return headers
