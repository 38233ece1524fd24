"""Asks a vendor whether a key and a model are good, without having anything written: for the doctor.

Gemini describes one model (https://ai.google.dev/api/models#method:-models.get), OpenAI-compatible servers list
theirs (https://platform.openai.com/docs/api-reference/models/list).
"""

import os
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
import msgspec

from yral_chat.clients.openai import BASE_URL as OPENAI_BASE_URL
from yral_chat.clients.vendor_http import VendorHttp, failure_of_status
from yral_chat.core.decoding import decode

PROBE_SECONDS = 10.0
MAX_BODY_BYTES = 8 * 1024 * 1024  # some routers list thousands of models

Verdict = Literal[
    "good",
    "key_refused",
    "unknown_model",
    "not_listed",  # it answers, but does not tell which models it has
    "unreachable",
    "busy",  # quota or load: nothing is wrong with the settings
]


class Probe(msgspec.Struct, frozen=True):
    """`reason` is ours, never the vendor's words; `offered` are names of models that there are instead."""

    verdict: Verdict
    reason: str = ""
    offered: tuple[str, ...] = ()


async def probe_gemini(http: VendorHttp, *, api_key: str, base_url: str, model: str) -> Probe:
    """Whether this key may use this model."""
    path = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
    answer = await _get(http, f"{base_url.rstrip('/')}/{quote(path)}", {"x-goog-api-key": api_key})
    return answer if isinstance(answer, Probe) else Probe("good")


async def probe_openai(http: VendorHttp, *, api_key: str, base_url: str | None, models: tuple[str, ...]) -> list[Probe]:
    """For each of `models`, whether the server offers it. A server may list its models without asking for a key."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    answer = await _get(http, f"{(base_url or OPENAI_BASE_URL).rstrip('/')}/models", headers)
    if isinstance(answer, Probe):
        if answer.verdict == "unknown_model":  # it is the list that is not known there
            answer = Probe("not_listed", answer.reason)
        return [answer] * len(models)
    offered = _offered(answer)
    if offered is None:
        return [Probe("not_listed", "no list of models")] * len(models)
    return [_find(model, offered) for model in models]


async def _get(http: VendorHttp, url: str, headers: Mapping[str, str]) -> bytes | Probe:
    """The body of a good answer, or what is wrong."""
    timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
    try:
        # No redirects: the key would follow to wherever they lead.
        async with http.session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            body = bytearray()
            async for packet in response.content.iter_any():
                body += packet
                if len(body) > MAX_BODY_BYTES:
                    return Probe("unreachable", "its answer is endless")
            return bytes(body) if response.status == 200 else _refused(response.status, bytes(body))
    except TimeoutError:
        return Probe("unreachable", f"no answer within {PROBE_SECONDS:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a key that no header can hold
        return Probe("unreachable", _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.InvalidURL):
        return "not a URL"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name is not known"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.errno) if error.errno else "no connection"
    return type(error).__name__


def _refused(status: int, body: bytes) -> Probe:
    failure = failure_of_status(status, body)
    reason = f"HTTP {status}"
    if failure.outcome == "rejected" and failure.is_outage:
        return Probe("key_refused", reason)
    if failure.outcome == "model_gone":
        return Probe("unknown_model", reason)
    if failure.outcome in ("overloaded", "quota", "timeout"):
        return Probe("busy", reason)
    return Probe("unreachable", f"it answers with {reason}")


def _offered(body: bytes) -> tuple[str, ...] | None:
    try:
        decoded = decode(body, dict[str, Any])
        return tuple(str(entry["id"]) for entry in decoded["data"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


def _find(model: str, offered: tuple[str, ...]) -> Probe:
    # Ollama lists llama3.2:latest and answers to llama3.2.
    if any(name == model or name == f"{model}:latest" for name in offered):
        return Probe("good")
    return Probe("unknown_model", f"not among the {len(offered)} that it offers", offered)
