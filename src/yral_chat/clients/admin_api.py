"""Asks a running server of ours to do what only it may: it alone writes its database."""

from typing import Any

import aiohttp

TIMEOUT_SECONDS = 30.0


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
