"""Replicate over REST: https://replicate.com/docs/reference/http

A prediction is created, asked for until it has ended, and its output fetched. No webhooks, and no `Prefer: wait`: with
it the id, and with the id the chance to cancel, would come only when the picture is there.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec

from yral_chat.clients.images.guard import Guard
from yral_chat.clients.images.model import MadePicture
from yral_chat.clients.images.output import origin_of, picture_at
from yral_chat.clients.language_model import TRANSIENT_OUTCOMES, CallRecord, ModelCall, ModelFailure, Picture, Usage
from yral_chat.clients.request_body import Base64, JsonBody
from yral_chat.clients.resilience import Backoff, CircuitBreaker, seconds_left
from yral_chat.clients.vendor_answers import Demand, answer_to, plain_headers
from yral_chat.clients.vendor_http import SILENCE_SECONDS, VendorHttp
from yral_chat.core.decoding import decode

BASE_URL = "https://api.replicate.com/v1"

# https://replicate.com/docs/topics/predictions/lifecycle
UNFINISHED = ("starting", "processing")

# Between two looks at a prediction: flux-dev takes two to four seconds, a cold start a minute.
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 3.0
# A look or a fetch that fails is repeated: the picture is being made, and paid for, all the same.
MAX_FAILED_LOOKS = 3
CANCEL_SECONDS = 5.0
# The shortest deadline that the vendor takes: https://replicate.com/changelog/2025-10-16-prediction-deadlines
MIN_LIFETIME_SECONDS = 5

# What the models' safety checkers say in `error`: it is all there is, a prediction that was refused has just failed.
_REFUSED = re.compile(r"nsfw|flagged as sensitive|safety|content policy|moderat", re.IGNORECASE)


class _Urls(msgspec.Struct):
    get: str = ""
    cancel: str = ""


class Prediction(msgspec.Struct):
    """As much of it as we look at. `output` is an address, a list of them, or whatever else a model gives."""

    id: str
    status: str
    output: Any = None
    error: Any = None
    urls: _Urls = msgspec.field(default_factory=_Urls)


class ReplicateClient:
    """`models`: the first makes pictures from text, the second, if there is one, from text and a picture that it takes
    as `input_image`. Each is `owner/name`, or `owner/name:version`."""

    provider = "replicate"

    def __init__(
        self,
        *,
        token: str,
        models: tuple[str, ...],
        breaker: CircuitBreaker,
        base_url: str = BASE_URL,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
        backoff: Backoff | None = None,
        guard: Guard | None = None,
        http: VendorHttp | None = None,
    ) -> None:
        self._token = token
        self._models = models
        self._base_url = base_url.rstrip("/")
        self._first_wait_seconds = first_wait_seconds
        self._backoff = backoff or Backoff()
        self._guard = guard or Guard(breaker, backoff=self._backoff)
        self._http = http or VendorHttp()
        self._cancelling: set[asyncio.Task[None]] = set()

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._models)

    async def make(
        self, prompt: str, reference: Picture | None, *, deadline: float, correlation_id: str, calls: list[ModelCall]
    ) -> MadePicture:
        def ask(model: str, given: dict[str, Any]) -> Awaitable[MadePicture]:
            return self._guard.ask(lambda: self._make(model, given, deadline, correlation_id, calls), deadline)

        if reference is not None and len(self._models) > 1:
            image = Base64(reference.data, prefix=f"data:{reference.mime_type};base64,")
            try:
                return await ask(self._models[1], {"prompt": prompt, "input_image": image})
            except ModelFailure as failure:
                # Without its likeness is better than not at all; a refused key would be refused again.
                if failure.outcome != "model_gone" and (failure.outcome != "rejected" or failure.is_outage):
                    raise
        return await ask(self._models[0], {"prompt": prompt})

    def circuits(self) -> dict[str, CircuitBreaker]:
        return {self._models[0]: self._guard.breaker}

    async def close(self) -> None:
        """Lets predictions that are being cancelled be cancelled."""
        await asyncio.gather(*self._cancelling)
        await self._http.close()

    async def _make(
        self, model: str, given: dict[str, Any], deadline: float, correlation_id: str, calls: list[ModelCall]
    ) -> MadePicture:
        with CallRecord(calls, self.provider, model, "image_generation") as record:
            headers = plain_headers(correlation_id, self._token, record.span)
            prediction = await self._create(model, given, deadline, headers)
            try:
                prediction = await self._finished(prediction, deadline, headers)
            except BaseException:
                # Whatever the reason, also our own cancellation: nobody waits for this picture any more.
                self._cancel_later(prediction, headers)
                raise
            url = output_of(prediction)
            record.call.usage = Usage(pictures=1)  # paid for, also when it cannot be fetched
            data = await self._patiently(
                lambda: picture_at(
                    self._http,
                    url,
                    base_url=self._base_url,
                    key=self._token,
                    deadline=deadline,
                    correlation_id=correlation_id,
                ),
                deadline,
            )
            record.close("completed")
        return MadePicture(data, self.provider, model)

    async def _create(self, model: str, given: dict[str, Any], deadline: float, headers: dict[str, str]) -> Prediction:
        name, _, version = model.partition(":")
        path = "predictions" if version else f"models/{quote(name)}/predictions"
        body = JsonBody({"version": version, "input": given} if version else {"input": given})
        # Should we die, the vendor ends it by itself.
        lifetime = max(MIN_LIFETIME_SECONDS, math.ceil(seconds_left(deadline)))
        demand = Demand(
            url=f"{self._base_url}/{path}",
            headers={
                **headers, **body.headers, "Content-Type": "application/json", "Cancel-After": f"{lifetime}s",
            },
            body=body.content(),
        )  # fmt: skip
        return _read(await answer_to(self._http, demand, deadline))

    async def _finished(self, prediction: Prediction, deadline: float, headers: dict[str, str]) -> Prediction:
        """Looks until it has ended. Raises ModelFailure, with outcome timeout when it does not end in time."""
        budget = seconds_left(deadline)
        wait = self._first_wait_seconds
        demand = Demand(
            url=self._own(prediction.urls.get, f"predictions/{quote(prediction.id)}"), headers=headers, method="GET"
        )
        while prediction.status in UNFINISHED:
            if wait >= seconds_left(deadline):
                raise ModelFailure("timeout", "no picture in time", is_outage=budget >= SILENCE_SECONDS)
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, MAX_WAIT_SECONDS)
            prediction = _read(await self._patiently(lambda: answer_to(self._http, demand, deadline), deadline))
        return prediction

    async def _patiently(self, ask: Callable[[], Awaitable[bytes]], deadline: float) -> bytes:
        """What `ask` gives, also when it fails at first."""
        for attempt in range(MAX_FAILED_LOOKS):
            try:
                return await ask()
            except ModelFailure as failure:
                wait = max(self._backoff.delay(attempt), failure.retry_after or 0)
                is_last = attempt == MAX_FAILED_LOOKS - 1
                if is_last or failure.outcome not in TRANSIENT_OUTCOMES - {"empty"} or wait >= seconds_left(deadline):
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def _own(self, url: str, path: str) -> str:
        """The vendor's address for something when the token may go there, else ours."""
        return url if origin_of(url) == origin_of(self._base_url) else f"{self._base_url}/{path}"

    def _cancel_later(self, prediction: Prediction, headers: dict[str, str]) -> None:
        """In a task of its own: whoever is being cancelled cannot wait, and whoever is late should not."""
        task = asyncio.get_running_loop().create_task(self._cancel(prediction, headers))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, prediction: Prediction, headers: dict[str, str]) -> None:
        url = self._own(prediction.urls.cancel, f"predictions/{quote(prediction.id)}/cancel")
        demand = Demand(url=url, headers=headers, timeout_seconds=CANCEL_SECONDS)
        with suppress(ModelFailure):  # then its own deadline ends it
            await answer_to(self._http, demand, asyncio.get_running_loop().time() + CANCEL_SECONDS)


def _read(body: bytes) -> Prediction:
    try:
        return decode(body, Prediction)
    except msgspec.DecodeError as error:
        raise ModelFailure("unreachable", "an unreadable prediction") from error


def output_of(prediction: Prediction) -> str:
    """The address of the first picture. Raises ModelFailure for every end but a good one."""
    if prediction.status in ("canceled", "aborted"):
        raise ModelFailure("timeout", f"the prediction was {prediction.status}", is_outage=False)
    if prediction.status != "succeeded":
        if isinstance(prediction.error, str) and _REFUSED.search(prediction.error):
            raise ModelFailure("blocked", "the prediction was refused by the safety checker")
        # It may be the input as well as the model: it says nothing about the vendor.
        raise ModelFailure("empty", "the prediction failed")
    output = prediction.output[0] if isinstance(prediction.output, list) and prediction.output else prediction.output
    if not isinstance(output, str) or not output:
        raise ModelFailure("empty", "the prediction has no output")
    return output
