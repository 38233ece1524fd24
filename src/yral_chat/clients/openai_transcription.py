"""Transcriptions as OpenAI defined them and others offer them.

https://platform.openai.com/docs/api-reference/audio/createTranscription
"""

from collections.abc import AsyncIterator

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from yral_chat.clients.language_model import (
    CallRecord,
    Completion,
    Delta,
    ModelCall,
    ModelFailure,
    ModelRequest,
    Recording,
    Usage,
)
from yral_chat.clients.request_body import slices
from yral_chat.clients.vendor_answers import Demand, answer_to, plain_headers
from yral_chat.clients.vendor_http import VendorHttp
from yral_chat.core.decoding import decode

# The endpoint goes by the name of the file.
_EXTENSIONS = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/mp4": "m4a",
    "audio/m4a": "m4a",
    "audio/aac": "m4a",
    "audio/wav": "wav",
    "audio/ogg": "ogg",
    "audio/webm": "webm",
    "audio/flac": "flac",
}


class _File(Payload):
    """Bytes of known length that leave in slices. The library's own way to that copies them first, at once: 20 MB stop
    the event loop for 40 ms."""

    _value: bytes

    def __init__(self, value: bytes, *, content_type: str) -> None:
        super().__init__(value, content_type=content_type)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        async for piece in slices(self._value):
            await writer.write(piece)


class _TokenUsage(msgspec.Struct):
    input_tokens: int | None = None  # there are none where minutes are billed
    output_tokens: int | None = None


class _Transcription(msgspec.Struct):
    text: str
    usage: _TokenUsage | None = None


class OpenAITranscriptionClient:
    """One model behind `/audio/transcriptions`: it takes the recording of the last message and nothing else."""

    provider = "openai"

    def __init__(
        self, *, model: str, api_key: str, base_url: str, timeout_seconds: float = 60, http: VendorHttp | None = None
    ) -> None:
        self.model = model
        self._api_key = api_key
        self._url = f"{base_url.rstrip('/')}/audio/transcriptions"
        self._timeout_seconds = timeout_seconds
        self._http = http or VendorHttp()

    async def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        [recording] = request.messages[-1].recordings
        with CallRecord(calls, self.provider, self.model, "transcription") as record:
            demand = Demand(
                url=self._url,
                headers=plain_headers(request.correlation_id, self._api_key, record.span),
                body=self._form(recording),
                timeout_seconds=self._timeout_seconds,
                silence_seconds=self._timeout_seconds,  # it is silent until it has heard everything
            )
            try:
                answer = decode(await answer_to(self._http, demand, request.deadline), _Transcription)
            except msgspec.DecodeError as error:
                raise ModelFailure("unreachable", "an unreadable transcription") from error
            if answer.usage is not None:
                record.call.usage = Usage(answer.usage.input_tokens or 0, 0, answer.usage.output_tokens or 0)
            if answer.text.strip():
                record.token()
                yield Delta(answer.text)
            record.close("completed")
            yield Completion("completed", "stop", record.call.usage, self.provider, self.model)

    def _form(self, recording: Recording) -> aiohttp.FormData:
        form = aiohttp.FormData()
        name = f"recording.{_EXTENSIONS.get(recording.mime_type, 'mp3')}"
        form.add_field("file", _File(recording.data, content_type=recording.mime_type), filename=name)
        form.add_field("model", self.model)
        form.add_field("response_format", "json")
        return form

    async def close(self) -> None:
        await self._http.close()
