"""Replicate's wire, as far as pictures need it: https://replicate.com/docs/reference/http"""

import itertools
from typing import Any

import msgspec
from aiohttp import web

from tests.fakes.answers import json_response, redirect_of
from tests.fakes.behaviour import Behaviour
from tests.fakes.media import kind_of, parse_data_url

TITLES = {401: "Unauthenticated", 402: "Insufficient credit", 404: "Not found", 422: "Input validation failed"}
NSFW = "NSFW content detected. Try running it again, or try a different prompt."


class Prediction(msgspec.Struct):
    """One prediction; each look at it brings it nearer to its end."""

    id: str
    model: str
    prompt: str
    behaviour: Behaviour
    looks: int = 0
    status: str = "starting"

    def look(self) -> None:
        self.looks += 1
        if self.status not in ("starting", "processing"):
            return
        if self.behaviour.prediction == "stuck" or self.looks < self.behaviour.polls + self.behaviour.failing_polls:
            self.status = "processing"
        else:
            self.status = "failed" if self.behaviour.prediction == "nsfw" else self.behaviour.prediction

    def shown(self, base_url: str, origin: str) -> dict[str, Any]:
        """As the vendor shows it."""
        has_failed = self.status == "failed"
        error = (NSFW if self.behaviour.prediction == "nsfw" else "CUDA out of memory") if has_failed else None
        return {
            "id": self.id,
            "model": self.model,
            "version": "hidden",
            "input": {"prompt": self.prompt},
            "logs": "",
            "output": self._output(origin) if self.status == "succeeded" else None,
            "data_removed": False,
            "error": error,
            "status": self.status,
            "created_at": "2026-03-01T09:30:00.123Z",
            "urls": {
                "get": f"{base_url}/predictions/{self.id}",
                "cancel": f"{base_url}/predictions/{self.id}/cancel",
            },
        }

    def _output(self, origin: str) -> Any:
        if self.behaviour.output == "missing":
            return None
        url = self.behaviour.output_url or f"{origin}/files/{self.id}"
        # flux-dev gives a list, flux-kontext-dev one address.
        return url if "kontext" in self.model else [url]


class Predictions:
    """Those that were made since the last reset."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.by_id: dict[str, Prediction] = {}
        self.cancelled: list[str] = []  # ids

    def add(self, model: str, prompt: str, behaviour: Behaviour) -> Prediction:
        prediction = Prediction(f"prediction{next(self._numbers)}", model, prompt, behaviour)
        self.by_id[prediction.id] = prediction
        return prediction

    def cancel(self, prediction: Prediction) -> None:
        self.cancelled.append(prediction.id)
        if prediction.status in ("starting", "processing"):
            prediction.status = "canceled"


def replicate_complaint(body: Any) -> str | None:
    """What the vendor refuses about a prediction."""
    given = body.get("input") if isinstance(body, dict) else None
    if not isinstance(given, dict):
        return "- input is required"
    if not isinstance(given.get("prompt"), str):
        return "- input.prompt is required"
    if "input_image" in given:
        parsed = parse_data_url(given["input_image"])
        if parsed is None or kind_of(parsed[1]) != parsed[0]:
            return "- input.input_image: Does not match format 'uri'"
    return None


def replicate_error(status: int, detail: str, behaviour: Behaviour) -> web.Response:
    headers = redirect_of(status)
    if behaviour.retry_after is not None:
        headers["Retry-After"] = f"{behaviour.retry_after:g}"
    detail = detail or (
        "Request was throttled. Expected available in 1 second." if status == 429 else f"It failed with {status}."
    )
    body = {"title": TITLES.get(status, "Error"), "detail": detail, "status": status}
    return json_response(body, status=status, headers=headers)
