"""OpenAI's transcriptions: https://platform.openai.com/docs/api-reference/audio/createTranscription"""

import msgspec
from aiohttp import BodyPartReader, web

from tests.fakes.answers import json_response
from tests.fakes.behaviour import PROMPT_TOKENS, Behaviour

EXTENSIONS = frozenset({"flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm"})
MAX_BYTES = 25 * 1024 * 1024  # https://platform.openai.com/docs/guides/speech-to-text


class Form(msgspec.Struct):
    """`fields` as text; of the file its name."""

    fields: dict[str, str] = {}
    media: tuple[str, bytes] = ("", b"")

    @property
    def model(self) -> str:
        return self.fields.get("model", "")


async def read_form(request: web.Request) -> Form:
    form = Form()
    if request.content_type != "multipart/form-data":
        return form
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        if part.filename is None:
            form.fields[part.name or ""] = await part.text()
        else:
            form.fields[part.name or ""] = part.filename
            form.media = (part.headers.get("Content-Type", ""), bytes(await part.read()))
    return form


def form_complaint(form: Form) -> str | None:
    """What the vendor refuses about a form."""
    if not form.model:
        return "you must provide a model parameter"
    if not form.media[1]:
        return "Audio file is too short. Minimum audio length is 0.1 seconds."
    if form.fields["file"].rpartition(".")[2] not in EXTENSIONS:
        return f"Unrecognized file format. Supported formats: {sorted(EXTENSIONS)}"
    if len(form.media[1]) > MAX_BYTES:
        return "Maximum content size limit exceeded"
    if form.fields.get("response_format", "json") != "json":
        return "response_format: only json is supported"
    return None


def transcription(behaviour: Behaviour) -> web.Response:
    body: dict[str, object] = {"text": behaviour.transcript}
    if behaviour.has_usage:
        output = len(behaviour.transcript.split())
        body["usage"] = {
            "type": "tokens",
            "input_tokens": PROMPT_TOKENS,
            "input_token_details": {"text_tokens": 0, "audio_tokens": PROMPT_TOKENS},
            "output_tokens": output,
            "total_tokens": PROMPT_TOKENS + output,
        }
    return json_response(body)
