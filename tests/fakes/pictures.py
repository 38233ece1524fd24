"""Pictures that the fake vendors make, and the files in which they lie."""

import asyncio
import itertools
from base64 import b64encode
from contextlib import AbstractContextManager
from typing import Any, Protocol

from aiohttp import web

from tests.fakes.answers import bearer, delayed, json_response
from tests.fakes.behaviour import PROMPT_TOKENS, Behaviour, Kind, Wire
from tests.fakes.invoices import Invoice
from tests.fakes.media import sample_picture
from tests.fakes.openai_wire import openai_error
from tests.fakes.replicate_wire import Prediction, Predictions, replicate_complaint, replicate_error

MADE_TOKENS = 4160
HUGE_BYTES = 26 * 1024 * 1024


class Vendor(Protocol):
    """What the endpoints of pictures need of the server to which they belong."""

    @property
    def base_url(self) -> str: ...
    @property
    def base_url_replicate(self) -> str: ...
    def accepts(self, key: str) -> bool: ...
    def take(self, model: str, kind: Kind) -> Behaviour: ...
    @property
    def invoice(self) -> Invoice: ...
    def serving(self) -> AbstractContextManager[None]: ...
    def changed(self) -> None: ...
    async def receive(self, request: web.Request, wire: Wire, model: str) -> Any: ...


class MadePictures:
    """`…/predictions` of Replicate, `/images/generations` of OpenAI, and `/files/…` of both."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self.reset()

    def reset(self) -> None:
        self.predictions = Predictions()
        self.file_keys: list[str] = []  # the keys with which files were fetched; "" is none
        self._files: dict[str, tuple[str, Behaviour]] = {}  # name → prompt, behaviour
        self._numbers = itertools.count(1)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/images/generations", self._generate)
        app.router.add_post("/replicate/v1/models/{owner}/{name}/predictions", self._create)
        app.router.add_post("/replicate/v1/predictions", self._create)
        app.router.add_get("/replicate/v1/predictions/{id}", self._look)
        app.router.add_post("/replicate/v1/predictions/{id}/cancel", self._cancel)
        app.router.add_get("/files/{name}", self._file)

    # --- OpenAI: https://platform.openai.com/docs/api-reference/images/create

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await self._vendor.receive(request, "openai", "")
        if not self._vendor.accepts(bearer(request)):
            return openai_error(401, "", Behaviour())
        if not isinstance(body, dict) or not body.get("prompt") or not body.get("model"):
            return openai_error(400, "prompt and model are required", Behaviour())
        with self._vendor.serving():
            behaviour = self._vendor.take(body["model"], "picture")
            await delayed(behaviour)
            if behaviour.prediction == "nsfw":
                error = {"message": "Rejected by the safety system.", "code": "moderation_blocked", "type": "user"}
                return json_response({"error": error}, status=400)
            if behaviour.status != 200:
                return openai_error(behaviour.status, "", behaviour)
            usage = {"usage": _usage()} if behaviour.has_usage else {}
            made = 0 if behaviour.output == "missing" else 1
            output = MADE_TOKENS if behaviour.has_usage else 0
            self._vendor.invoice.media("openai", body["model"], output=output, pictures=made)
            return json_response({"created": 1767225600, "data": self._data(body["prompt"], behaviour), **usage})

    def _data(self, prompt: str, behaviour: Behaviour) -> list[dict[str, str]]:
        if behaviour.output == "missing":
            return []
        if behaviour.output in ("natural", "data"):
            return [{"b64_json": b64encode(sample_picture(prompt)).decode()}]
        name = f"image{next(self._numbers)}"
        self._files[name] = (prompt, behaviour)
        return [{"url": behaviour.output_url or f"{self._vendor.base_url}/files/{name}"}]

    # --- Replicate

    async def _create(self, request: web.Request) -> web.StreamResponse:
        model = "/".join(request.match_info[part] for part in ("owner", "name") if part in request.match_info)
        body = await self._vendor.receive(request, "replicate", model)
        if not self._vendor.accepts(bearer(request)):
            return replicate_error(401, "", Behaviour())
        if (complaint := replicate_complaint(body)) is not None:
            return replicate_error(422, complaint, Behaviour())
        with self._vendor.serving():
            behaviour = self._vendor.take(model, "picture")
            await delayed(behaviour)
            if behaviour.status != 200:
                return replicate_error(behaviour.status, "", behaviour)
            prediction = self.predictions.add(model, body["input"]["prompt"], behaviour)
            self._files[prediction.id] = (prediction.prompt, behaviour)
            return self._shown(prediction, status=201)

    async def _look(self, request: web.Request) -> web.StreamResponse:
        prediction = self._found(request)
        if prediction is None:
            return replicate_error(404, "", Behaviour())
        was = prediction.status
        prediction.look()
        if prediction.status == "succeeded" != was and prediction.behaviour.output != "missing":
            self._vendor.invoice.media("replicate", prediction.model, pictures=1)
        self._vendor.changed()
        if prediction.looks <= prediction.behaviour.failing_polls:
            return replicate_error(503, "", Behaviour())
        return self._shown(prediction)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        prediction = self._found(request)
        if prediction is None:
            return replicate_error(404, "", Behaviour())
        self.predictions.cancel(prediction)
        self._vendor.changed()
        return self._shown(prediction)

    def _found(self, request: web.Request) -> Prediction | None:
        """None also for whoever has no key."""
        if not self._vendor.accepts(bearer(request)):
            return None
        return self.predictions.by_id.get(request.match_info["id"])

    def _shown(self, prediction: Prediction, status: int = 200) -> web.Response:
        shown = prediction.shown(self._vendor.base_url_replicate, self._vendor.base_url)
        if prediction.behaviour.output == "data" and shown["output"] is not None:
            shown["output"] = f"data:image/png;base64,{b64encode(sample_picture(prediction.prompt)).decode()}"
        return json_response(shown, status=status)

    # --- files

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.file_keys.append(bearer(request))
        prompt, behaviour = self._files.get(name, (name, Behaviour()))
        picture = sample_picture(prompt)
        if behaviour.output == "redirect":
            return web.Response(status=302, headers={"Location": "/files/elsewhere"})
        if behaviour.output == "gone":
            return web.Response(status=404)
        if behaviour.output == "lying":
            return web.Response(body=b"<html><script>alert(1)</script>", content_type="image/png")
        if behaviour.output in ("huge", "endless", "cut"):
            return await _long(request, picture, behaviour)
        return web.Response(body=picture, content_type="image/png")


async def _long(request: web.Request, picture: bytes, behaviour: Behaviour) -> web.StreamResponse:
    """A file that is too long, whether it says so or not, or that ends before its end."""
    response = web.StreamResponse(headers={"Content-Type": "image/png"})
    if behaviour.output != "endless":
        response.content_length = HUGE_BYTES if behaviour.output == "huge" else len(picture) + 1
    await response.prepare(request)
    await response.write(picture)
    if behaviour.output == "cut":
        assert request.transport is not None
        request.transport.close()
    for _ in range(HUGE_BYTES // 65536 if behaviour.output != "cut" else 0):
        await response.write(bytes(65536))
        await asyncio.sleep(0)
    return response


def _usage() -> dict[str, Any]:
    return {
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"text_tokens": PROMPT_TOKENS, "image_tokens": 0},
        "output_tokens": MADE_TOKENS,
        "total_tokens": PROMPT_TOKENS + MADE_TOKENS,
    }
