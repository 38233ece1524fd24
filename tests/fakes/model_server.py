"""A model vendor on loopback: Gemini's, OpenAI's and Replicate's wire formats, and every way in which they fail.

In a test:      async with FakeModelServer() as server: … server.base_url_gemini …
As a program:   python -m tests.fakes.model_server --port 0     (prints its addresses as one line of JSON)

Each call takes the next behaviour of the script, else the one of its model, else the one of its kind (chat, structured
for JSON of a schema, transcription, picture), else the default. Over HTTP the same is set by `POST /control {"default":
{…}, "script": [{…}], "models": {"name": {…}}, "kinds": {"picture": {…}}, "reset": true}`; `GET /control` counts, `GET
/control/requests` shows what was received, `GET /control/invoice` what is billed.

Whether the fake is honest is proved with the vendors' own clients in
tests/clients/test_fake_is_honest.py; Replicate's is not installed, its wire is what its documentation says.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from tests.fakes.answers import bearer, delayed, echo_text, json_response, texts_of, words_of
from tests.fakes.behaviour import CACHED_TOKENS, PROMPT_TOKENS, Behaviour, Kind, Received, Wire
from tests.fakes.gemini_wire import gemini_complaint, gemini_error
from tests.fakes.invoices import Invoice, StreamBill
from tests.fakes.media import described, media_in, shortened
from tests.fakes.openai_wire import openai_complaint, openai_error
from tests.fakes.packets import Packet, packets_of, whole_answer
from tests.fakes.pictures import MadePictures
from tests.fakes.recordings import form_complaint, read_form, transcription
from tests.fakes.schemas import wants_schema

__all__ = ["CACHED_TOKENS", "PROMPT_TOKENS", "Behaviour", "FakeModelServer", "Received", "Wire", "echo_text"]


# What a busy machine needs to read what has arrived.
READING_SECONDS = 0.3


class FakeModelServer:
    """The vendor. `key` is the only accepted one; None accepts any, "" also none at all."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, key: str | None = None) -> None:
        self._host = host
        self._port = port
        self._key = key
        self._runner: web.AppRunner | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.pictures = MadePictures(self)
        self.reset()

    def reset(self) -> None:
        self.default = Behaviour()
        self.models: dict[str, Behaviour] = {}
        self.kinds: dict[Kind, Behaviour] = {}
        self.script: deque[Behaviour] = deque()
        self.requests: deque[Received] = deque(maxlen=1000)
        self.request_count = 0
        self._serving: set[object] = set()  # one for each answer since then; those from before count no more
        self.peak_streams = 0
        self.disconnects = 0
        self.invoice = Invoice()
        self.released = asyncio.Semaphore(0)  # events of held answers that may leave
        self.pictures.reset()

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def base_url_gemini(self) -> str:
        return f"{self.base_url}/v1beta"

    @property
    def base_url_openai(self) -> str:
        return f"{self.base_url}/v1"

    @property
    def base_url_replicate(self) -> str:
        return f"{self.base_url}/replicate/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=100 * 1024 * 1024)
        app.router.add_post("/v1beta/{kind:models|tunedModels}/{target}", self._gemini)
        app.router.add_get("/v1beta/{kind:models|tunedModels}/{target}", self._describe_gemini_model)
        app.router.add_post("/v1/chat/completions", self._openai)
        app.router.add_post("/v1/audio/transcriptions", self._transcriptions)
        app.router.add_get("/v1/models", self._list_openai_models)
        self.pictures.add_routes(app)
        app.router.add_post("/control", self._set_control)
        app.router.add_get("/control", self._get_control)
        app.router.add_get("/control/requests", self._get_requests)
        app.router.add_get("/control/invoice", self._get_invoice)
        # A handler is cancelled when its client leaves, which is how the fake sees it.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def until(self, condition: Callable[[], bool], *, timeout: float = 5.0) -> None:
        """Waits until `condition` holds; it is looked at whenever a request begins or ends."""
        async with asyncio.timeout(timeout):
            while not condition():
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter

    def changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- the wires

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        model, _, method = request.match_info["target"].partition(":")
        body = await self._receive(request, "gemini", model)
        key = request.headers.get("x-goog-api-key", "")
        if not self.accepts(key):
            # The vendor answers a missing key with 403 and a wrong one with 400.
            return gemini_error(400 if key else 403, "", Behaviour())
        if (complaint := gemini_complaint(body)) is not None:
            return gemini_error(400, complaint, Behaviour())
        if method not in ("generateContent", "streamGenerateContent"):
            return gemini_error(404, method, Behaviour())
        # Without alt=sse the vendor streams a JSON array, which nobody here wants by accident.
        if method == "streamGenerateContent" and request.query.get("alt") != "sse":
            return gemini_error(400, "only alt=sse is supported", Behaviour())
        prompt = body["contents"][-1]["parts"][-1].get("text", "")
        return await self._answer(request, "gemini", model, prompt, is_stream=method == "streamGenerateContent")

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = await self._receive(request, "openai", "")
        if not self.accepts(bearer(request)):
            return openai_error(401, "", Behaviour())
        if (complaint := openai_complaint(body)) is not None:
            return openai_error(400, complaint, Behaviour())
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else content[-1].get("text", "")
        wants_usage = not body.get("stream") or (body.get("stream_options") or {}).get("include_usage", False)
        return await self._answer(
            request, "openai", body["model"], prompt, is_stream=bool(body.get("stream")), wants_usage=wants_usage
        )

    async def _transcriptions(self, request: web.Request) -> web.StreamResponse:
        form = await read_form(request)
        self.remember(request, "openai", form.model, form.fields, [form.media])
        if not self.accepts(bearer(request)):
            return openai_error(401, "", Behaviour())
        if (complaint := form_complaint(form)) is not None:
            return openai_error(400, complaint, Behaviour())
        with self.serving():
            behaviour = self.take(form.model, "transcription")
            await delayed(behaviour)
            if behaviour.status != 200:
                return openai_error(behaviour.status, "", behaviour)
            output = len(behaviour.transcript.split())
            self.invoice.media("openai", form.model, output=output, is_told=behaviour.has_usage)
            return transcription(behaviour)

    async def _describe_gemini_model(self, request: web.Request) -> web.Response:
        """Every name is a model, unless its behaviour says otherwise."""
        model, key = request.match_info["target"], request.headers.get("x-goog-api-key", "")
        if not self.accepts(key):
            return gemini_error(400 if key else 403, "", Behaviour())
        behaviour = self.models.get(model, self.default)
        if behaviour.status != 200:
            return gemini_error(behaviour.status, "", behaviour)
        methods = ["generateContent", "countTokens"]
        return json_response({"name": f"models/{model}", "version": "001", "supportedGenerationMethods": methods})

    async def _list_openai_models(self, request: web.Request) -> web.Response:
        """The models whose behaviours were set."""
        if not self.accepts(bearer(request)):
            return openai_error(401, "", Behaviour())
        if self.default.status != 200:
            return openai_error(self.default.status, "", self.default)
        data = [{"id": name, "object": "model", "created": 1767225600, "owned_by": "fake"} for name in self.models]
        return json_response({"object": "list", "data": data})

    def accepts(self, key: str) -> bool:
        if self._key is None:
            return bool(key)
        return self._key == "" or key == self._key

    async def _receive(self, request: web.Request, wire: Wire, model: str) -> Any:
        try:
            body = msgspec.json.decode(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = None
        if wire == "openai" and isinstance(body, dict):
            model = str(body.get("model"))
        self.remember(request, wire, model, body, list(media_in(body)))
        return body

    async def receive(self, request: web.Request, wire: Wire, model: str) -> Any:
        """The decoded body, remembered."""
        return await self._receive(request, wire, model)

    def remember(self, request: web.Request, wire: Wire, model: str, body: Any, media: list[tuple[str, bytes]]) -> None:
        received = Received(
            wire=wire,
            model=model,
            target=request.raw_path,
            peer=str(request.transport.get_extra_info("peername")) if request.transport is not None else "",
            headers={name.lower(): value for name, value in request.headers.items()},
            body=shortened(body),
            media=[described(*medium) for medium in media],
        )
        self.requests.append(received)
        self.request_count += 1
        self.changed()

    def take(self, model: str, kind: Kind) -> Behaviour:
        """How this call is answered."""
        if self.script:
            return self.script.popleft()
        return self.models.get(model) or self.kinds.get(kind) or self.default

    @property
    def open_streams(self) -> int:
        return len(self._serving)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Counts an answer while it is given."""
        serving, answer = self._serving, object()
        serving.add(answer)
        self.peak_streams = max(self.peak_streams, self.open_streams)
        self.changed()
        try:
            yield
        except asyncio.CancelledError:
            if serving is self._serving:
                self.disconnects += 1
            raise
        finally:
            serving.remove(answer)
            self.changed()

    async def _answer(
        self,
        request: web.Request,
        wire: Wire,
        model: str,
        prompt: str,
        *,
        is_stream: bool,
        wants_usage: bool = True,
    ) -> web.StreamResponse:
        refuse = gemini_error if wire == "gemini" else openai_error
        kinds = {medium.mime_type.partition("/")[0] for medium in self.requests[-1].media}
        wish: Kind = "structured" if wants_schema(self.requests[-1].body) else "chat"
        behaviour = self.take(model, "transcription" if "audio" in kinds else wish)
        with self.serving():
            if behaviour.first_byte_delay:
                await asyncio.sleep(behaviour.first_byte_delay)
            if behaviour.status != 200:
                return refuse(behaviour.status, prompt, behaviour)
            if "image" in kinds and behaviour.picture_status is not None:
                return refuse(behaviour.picture_status, "image input is not supported by this model", behaviour)
            if behaviour.schema_status is not None and wants_schema(self.requests[-1].body):
                return refuse(behaviour.schema_status, "structured output is not supported", behaviour)
            if "audio" in kinds:
                transcript = behaviour.transcript
                behaviour = msgspec.structs.replace(behaviour, pieces=words_of(transcript) if transcript else ())
            elif behaviour.echo:
                behaviour = msgspec.structs.replace(behaviour, echo=False, pieces=words_of(echo_text(prompt)))
            if not is_stream or not behaviour.is_streamed:
                is_free = wire == "gemini" and behaviour.block_reason is not None
                output = 0 if is_free else len(texts_of(behaviour))
                self.invoice.answer(wire, model, behaviour, output=output, is_told=behaviour.has_usage)
                return json_response(whole_answer(wire, behaviour, model))
            return await self._stream(request, wire, behaviour, model, wants_usage=wants_usage)

    async def _stream(
        self, request: web.Request, wire: Wire, behaviour: Behaviour, model: str, *, wants_usage: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        bill = StreamBill()
        try:
            await self._write(request, response, behaviour, packets_of(wire, behaviour, model, wants_usage), bill)
        finally:
            if bill.output is not None:
                self.invoice.answer(wire, model, behaviour, output=bill.output, is_told=bill.is_told)
        if behaviour.stays_open_seconds:
            await asyncio.sleep(behaviour.stays_open_seconds)
        return response

    async def _write(
        self,
        request: web.Request,
        response: web.StreamResponse,
        behaviour: Behaviour,
        packets: tuple[Packet, ...],
        bill: StreamBill,
    ) -> None:
        sent = 0
        for packet in packets:
            if packet.stalls:
                await asyncio.Event().wait()  # until the client leaves
            if packet.pause:
                await asyncio.sleep(packet.pause)
            if behaviour.is_held:
                await self.released.acquire()
            data = packet.data
            if behaviour.cut_after_bytes is not None and sent + len(data) >= behaviour.cut_after_bytes:
                await response.write(data[: behaviour.cut_after_bytes - sent])
                # A client that is told of the end before it has read what came drops it.
                await asyncio.sleep(READING_SECONDS)
                if request.transport is not None:
                    request.transport.close()
                return
            sent += len(data)
            await response.write(data)
            bill.sent(packet)

    # --- control over HTTP

    async def _set_control(self, request: web.Request) -> web.Response:
        try:
            wish = msgspec.json.decode(await request.read(), type=_Control)
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=400)
        if wish.reset:
            self.reset()
        if wish.calm:
            self.models, self.kinds = {}, {}
            self.script.clear()
        if wish.default is not None:
            self.default = wish.default
        self.models.update(wish.models)
        self.kinds.update(wish.kinds)
        self.script.extend(wish.script)
        for _ in range(wish.release):
            self.released.release()
        return await self._get_control(request)

    async def _get_control(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self.request_count,
                "open_streams": self.open_streams,
                "peak_streams": self.peak_streams,
                "disconnects": self.disconnects,
                "script": len(self.script),
                "predictions": len(self.pictures.predictions.by_id),
                "cancelled": len(self.pictures.predictions.cancelled),
            }
        )

    async def _get_requests(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(list(self.requests)), content_type="application/json")

    async def _get_invoice(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.invoice.lines), content_type="application/json")


class _Control(msgspec.Struct, forbid_unknown_fields=True):
    default: Behaviour | None = None
    script: list[Behaviour] = []
    models: dict[str, Behaviour] = {}
    kinds: dict[Kind, Behaviour] = {}
    release: int = 0
    reset: bool = False
    calm: bool = False  # no behaviours of models and kinds, no script


# --- as a program


async def _serve(host: str, port: int, key: str, default: Behaviour) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with FakeModelServer(host=host, port=port, key=key) as server:
        server.default = default
        addresses = {
            "base_url": server.base_url,
            "base_url_gemini": server.base_url_gemini,
            "base_url_openai": server.base_url_openai,
            "base_url_replicate": server.base_url_replicate,
        }
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake model vendor on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="", help="the only key that is accepted; empty accepts everybody")
    parser.add_argument("--default", default="{}", help="the default behaviour, as JSON")
    options = parser.parse_args()
    default = msgspec.json.decode(options.default, type=Behaviour)
    asyncio.run(_serve(options.host, options.port, options.key, default))


if __name__ == "__main__":
    main()
