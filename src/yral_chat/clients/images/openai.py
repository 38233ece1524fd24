"""Pictures as OpenAI's images endpoint makes them: https://platform.openai.com/docs/api-reference/images/create"""

import msgspec

from yral_chat.clients.images.guard import Guard
from yral_chat.clients.images.model import MadePicture
from yral_chat.clients.images.output import MAX_ENCODED_BYTES, checked, picture_at
from yral_chat.clients.language_model import CallRecord, ModelCall, ModelFailure, Picture, Usage
from yral_chat.clients.openai import BASE_URL
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.clients.vendor_answers import Demand, answer_to, plain_headers
from yral_chat.clients.vendor_http import VendorHttp
from yral_chat.core.decoding import decode

# The one size that every model behind this protocol knows.
SIZE = "1024x1024"
# A large picture takes a model most of a minute, in silence.
TIMEOUT_SECONDS = 120.0


class _Item(msgspec.Struct):
    b64_json: bytes | None = None  # msgspec decodes it
    url: str | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Response(msgspec.Struct):
    data: list[_Item] | None = None
    usage: _Usage | None = None


class OpenAIImagesClient:
    """From text only: this endpoint takes no reference."""

    provider = "openai"

    def __init__(
        self,
        *,
        model: str,
        breaker: CircuitBreaker,
        api_key: str = "",
        base_url: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        guard: Guard | None = None,
        http: VendorHttp | None = None,
    ) -> None:
        self._model = model
        self._api_key = api_key
        self._base_url = (base_url or BASE_URL).rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._guard = guard or Guard(breaker)
        self._http = http or VendorHttp()

    @property
    def models(self) -> tuple[str, ...]:
        return (self._model,)

    async def make(
        self,
        prompt: str,
        reference: Picture | None,  # noqa: ARG002 - see the class
        *,
        deadline: float,
        correlation_id: str,
        calls: list[ModelCall],
    ) -> MadePicture:
        return await self._guard.ask(lambda: self._make(prompt, deadline, correlation_id, calls), deadline)

    async def _make(self, prompt: str, deadline: float, correlation_id: str, calls: list[ModelCall]) -> MadePicture:
        with CallRecord(calls, self.provider, self._model, "image_generation") as record:
            demand = Demand(
                url=f"{self._base_url}/images/generations",
                headers={
                    **plain_headers(correlation_id, self._api_key, record.span),
                    "Content-Type": "application/json",
                },
                body=msgspec.json.encode({"model": self._model, "prompt": prompt, "n": 1, "size": SIZE}),
                timeout_seconds=self._timeout_seconds,
                silence_seconds=self._timeout_seconds,
                max_bytes=MAX_ENCODED_BYTES,
            )
            try:
                answer = decode(await answer_to(self._http, demand, deadline), _Response)
            except msgspec.DecodeError as error:
                raise ModelFailure("unreachable", "an unreadable answer") from error
            told = answer.usage or _Usage()
            record.call.usage = Usage(
                told.input_tokens or 0, 0, told.output_tokens or 0, pictures=1 if answer.data else 0
            )
            data = await self._picture(answer, deadline, correlation_id)
            record.close("completed")
        return MadePicture(data, self.provider, self._model)

    async def _picture(self, answer: _Response, deadline: float, correlation_id: str) -> bytes:
        item = answer.data[0] if answer.data else _Item()
        if item.b64_json is not None:
            return checked(item.b64_json)
        if item.url is None:
            raise ModelFailure("empty", "no picture in the answer")
        return await picture_at(
            self._http,
            item.url,
            base_url=self._base_url,
            key=self._api_key,
            deadline=deadline,
            correlation_id=correlation_id,
        )

    def circuits(self) -> dict[str, CircuitBreaker]:
        return {self._model: self._guard.breaker}

    async def close(self) -> None:
        await self._http.close()
