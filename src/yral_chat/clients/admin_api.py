"""Asks a running server of ours to do what only it may: it alone writes its database."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import orjson

TIMEOUT_SECONDS = 30.0
# Of silence on an answer that comes line by line.
SILENCE_SECONDS = 300.0


class AdminApiError(Exception):
    """A sentence for the operator."""


async def call_admin_api(url: str, key: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POSTs `body` to `path` of the server at `url`; returns its answer. Raises AdminApiError."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{url}{path}", json=body, headers={"X-Admin-Key": key}, allow_redirects=False) as response,
        ):
            answer = await response.json() if response.content_type == "application/json" else {}
            if response.status != 200:
                raise AdminApiError(f"The server refuses: {answer.get('message', response.status)}")
            return dict(answer)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise AdminApiError(f"The server at {url} does not answer. Is this its HOST and PORT?") from error


async def stream_admin_api(url: str, key: str, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """The same for an answer of many lines, each a JSON object; one with `error` ends it. Raises AdminApiError."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=SILENCE_SECONDS)
    headers = {"X-Admin-Key": key, "Accept-Encoding": "identity"}  # a compressor would hold lines back
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{url}{path}", json=body, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != 200:
                answer = await response.json() if response.content_type == "application/json" else {}
                raise AdminApiError(f"The server refuses: {_reason(answer) or response.status}")
            async for line in response.content:
                step = orjson.loads(line)
                if "error" in step:
                    raise AdminApiError(f"The server has given up: {step['error']['message']}")
                yield step
    except (aiohttp.ClientError, TimeoutError) as error:
        raise AdminApiError(f"The server at {url} does not answer, or has gone away in the middle.") from error


def _reason(answer: dict[str, Any]) -> str:
    """What people read of a refusal, with what is wrong with the input."""
    problems = [problem["msg"] for problem in answer.get("details", {}).get("errors", [])]
    return ". ".join([answer.get("message", ""), *problems]).strip(". ")
