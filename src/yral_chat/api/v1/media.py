"""Uploads (contract section 12.1)."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from yral_chat.api.deps import Caller, Services, json_response
from yral_chat.api.errors import errors
from yral_chat.api.multipart import Form, received_form
from yral_chat.core.errors import Invalid
from yral_chat.services.media import UploadResult

PATH = "/api/v1/media/upload"

router = APIRouter(
    prefix="/api/v1/media", tags=["media"], responses=errors(400, 401, 403, 413, 415, 422, 429, 500, 503)
)

# The body is read by hand, part by part, so the document is told what it looks like.
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["type", "file"],
                    "properties": {
                        "type": {"type": "string", "enum": ["image", "audio"]},
                        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                    },
                }
            }
        },
    }
}


@router.post("/upload", response_model=UploadResult, openapi_extra=_FORM)
async def upload_media(request: Request, caller: Caller, services: Services) -> Response:
    """Keeps an image or a recording, to be used in messages."""
    media = services.media
    async with received_form(request, media.incoming, lambda fields: media.limit_of(_kind(fields))) as form:
        path, kind = _checked(form)
        return json_response(await media.upload(caller.user_id, kind, path))


def _kind(fields: dict[str, str]) -> str | None:
    return fields["type"].lower() if "type" in fields else None


def _checked(form: Form) -> Any:
    """(path, kind). Raises Invalid that names everything that is missing."""
    kind = _kind(form.fields)
    wrong = []
    if kind not in ("image", "audio"):
        wrong.append({"type": "enum" if kind else "missing", "loc": ["body", "type"], "msg": "image or audio"})
    if form.path is None:
        wrong.append({"type": "missing", "loc": ["body", "file"], "msg": "A file is required"})
    elif form.size == 0:
        wrong.append({"type": "empty_file", "loc": ["body", "file"], "msg": "The file is empty"})
    if wrong:
        raise Invalid(details={"errors": wrong})
    return form.path, kind
