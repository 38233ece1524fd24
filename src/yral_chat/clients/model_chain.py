"""An ordered chain of models with one way to fail over, and its assembly from the settings."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from pydantic import SecretStr

from yral_chat.clients.circuits import build_breaker
from yral_chat.clients.language_model import (
    Completion,
    Delta,
    LanguageModel,
    ModelCall,
    ModelFailure,
    ModelRequest,
    NoUsableModel,
    Outcome,
    closing_stream,
)
from yral_chat.clients.resilience import Backoff, CircuitBreaker, Clock, Random, seconds_left
from yral_chat.clients.retries import settle, wait_before_retry
from yral_chat.clients.sight import Showing, Sight
from yral_chat.core.config import Settings

# When the models failed for different reasons, the first of these is the one to tell: what may pass by itself comes
# before what the operator has to mend, because the answer to it is "try again".
_MEANING: dict[Outcome, int] = {
    "overloaded": 0,
    "timeout": 1,
    "unreachable": 2,
    "quota": 3,
    "empty": 4,
    "truncated": 5,
    "rejected": 6,
    "model_gone": 7,
}


class NamedModel(LanguageModel, Protocol):
    """A single model of a single provider."""

    provider: str
    model: str


class ChainLink(msgspec.Struct, frozen=True):
    """One model of the chain with the circuit that guards it."""

    provider: str
    model: str
    client: LanguageModel
    breaker: CircuitBreaker


class ModelChain:
    """Asks its models in order until one begins to answer.

    Before the first token: a transient failure is tried again with the same model, then the next model is asked; any
    other failure goes to the next model at once; a refusal by a safety layer ends the chain, because asking around
    for a vendor that does not mind would defeat it. After the first token nothing is restarted. A model that refuses
    a request with pictures is asked once more without them, and for a while shown none; one that refuses a schema is
    asked without. Everything happens inside `request.deadline`.

    `stops_when_billed`: a request is not asked again once something was billed for it, so that it never costs more
    than one call may.
    """

    def __init__(
        self,
        links: Sequence[ChainLink],
        *,
        nsfw_provider: str | None = None,
        stops_when_billed: bool = False,
        backoff: Backoff | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Random = random.random,
    ) -> None:
        self._links = tuple(links)
        # Stable: the order within a provider, and of the rest, stays.
        self._nsfw_links = tuple(sorted(links, key=lambda link: link.provider != nsfw_provider))
        self._stops_when_billed = stops_when_billed
        self._sights = {(link.provider, link.model): Sight(clock) for link in links}
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._sleep = sleep
        self._draw = draw

    def circuits(self) -> dict[str, dict[str, CircuitBreaker]]:
        """provider → model → circuit, in the order of the chain."""
        circuits: dict[str, dict[str, CircuitBreaker]] = {}
        for link in self._links:
            circuits.setdefault(link.provider, {})[link.model] = link.breaker
        return circuits

    async def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        links = self._nsfw_links if request.persona.is_nsfw else self._links
        failures: list[ModelFailure] = []
        before = len(calls)
        for link in links:
            showing = Showing(request, self._sights[link.provider, link.model])
            attempt = 0
            while True:
                if seconds_left(request.deadline, self._clock) <= 0:
                    raise _verdict(links, failures) if failures else _out_of_time()
                if failures and self._stops_when_billed and any(call.usage.tokens for call in calls[before:]):
                    raise _verdict(links, failures)
                if (admission := link.breaker.admit()) is None:
                    break
                has_begun = False
                with admission:
                    try:
                        async with closing_stream(link.client.stream(showing.request, calls)) as answer:
                            async for item in answer:
                                has_begun = True
                                if type(item) is Completion:
                                    admission.succeed()
                                    showing.answered()
                                    yield item
                                    return
                                yield item
                        raise ModelFailure("unreachable", "the stream ended without a completion")
                    except ModelFailure as failure:
                        if not has_begun and showing.gives_way_to(failure):
                            continue
                        settle(admission, failure)
                        if has_begun or failure.outcome == "blocked":
                            raise
                        failures.append(failure)
                wait = self._wait_before_retry(failures[-1], attempt, is_last=link is links[-1])
                if wait is None or link.breaker.state != "closed":
                    break
                if wait >= seconds_left(request.deadline, self._clock):
                    break
                await self._sleep(wait)
                attempt += 1
        raise _verdict(links, failures)

    async def close(self) -> None:
        for link in self._links:
            await link.client.close()

    def _wait_before_retry(self, failure: ModelFailure, attempt: int, *, is_last: bool) -> float | None:
        """Seconds until the same model is asked again; None when it is not."""
        if failure.outcome == "timeout" and not is_last:
            return None  # it has had its time; what is left belongs to the others
        return wait_before_retry(failure, attempt, self._backoff, self._draw)


def _out_of_time() -> ModelFailure:
    return ModelFailure("timeout", "no time left", is_outage=False)


def _verdict(links: Sequence[ChainLink], failures: Sequence[ModelFailure]) -> ModelFailure:
    """The one failure to tell when no model answered."""
    if not failures:
        reason = "every circuit is open" if links else "no model is configured"
        return NoUsableModel(reason, retry_after=min((link.breaker.retry_after for link in links), default=None))
    worst = min(failures, key=lambda failure: _MEANING.get(failure.outcome, len(_MEANING)))
    if all(failure.outcome == "quota" for failure in failures):
        delays = [failure.retry_after for failure in failures if failure.retry_after is not None]
        return ModelFailure("quota", worst.reason, retry_after=min(delays, default=None))
    return worst


def build_model(settings: Settings) -> ModelChain:
    """The chain that the settings describe: Gemini, then the OpenAI-compatible models, and the offline persona only
    when there is neither and it is allowed. Without any model every call raises NoUsableModel."""
    models = _vendor_models(settings)
    if not models and settings.is_offline_model_allowed:
        from yral_chat.clients.offline import OfflinePersona

        models = [OfflinePersona(settings.offline_words_per_second)]
    return ModelChain(
        [link(model, settings) for model in models],
        nsfw_provider=settings.nsfw_provider,
        stops_when_billed=settings.has_quotas,
    )


def _vendor_models(settings: Settings) -> list[NamedModel]:
    has_openai = settings.openai_base_url is not None or settings.openai_api_key is not None
    openai_models = settings.openai_models if has_openai else ()
    gemini_models = settings.gemini_models if settings.gemini_api_key is not None else ()
    if not gemini_models and not openai_models:
        return []
    # Only here: what the offline persona never needs would be a third of its start-up time.
    from yral_chat.clients.gemini import GeminiClient
    from yral_chat.clients.openai import OpenAIClient
    from yral_chat.clients.vendor_http import VendorHttp

    # Beside the reply to a message there may be a judge, and what is drawn from it afterwards.
    http = VendorHttp(max_connections=2 * settings.max_turns)
    models: list[NamedModel] = [
        GeminiClient(
            api_key=secret(settings.gemini_api_key),
            model=model,
            base_url=settings.gemini_base_url,
            thinking_budget=settings.gemini_thinking_budget,
            safety_threshold=settings.gemini_safety_threshold,
            timeout_seconds=settings.model_timeout_seconds,
            http=http,
        )
        for model in gemini_models
    ]
    models += [
        OpenAIClient(
            api_key=secret(settings.openai_api_key),
            model=model,
            base_url=settings.openai_base_url,
            timeout_seconds=settings.model_timeout_seconds,
            http=http,
        )
        for model in openai_models
    ]
    return models


def secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def link(model: NamedModel, settings: Settings, service: str | None = None) -> ChainLink:
    """`service` is what the model is used for, as its circuit's name says it."""
    breaker = build_breaker(settings, f"{service or f'llm_{model.provider}'}:{model.model}")
    return ChainLink(provider=model.provider, model=model.model, client=model, breaker=breaker)
