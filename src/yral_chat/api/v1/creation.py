"""Making personas (contract section 11): generated, created, edited, imported and exported."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from yral_chat.api.deps import Caller, PathId, Services, absent_when_empty, json_response
from yral_chat.api.errors import errors
from yral_chat.api.multipart import Form, received_form
from yral_chat.api.v1.creation_schemas import (
    CreatedInfluencer,
    CreateInfluencer,
    GeneratedMetadata,
    GeneratedPrompt,
    GeneratedVideoPrompt,
    GeneratePrompt,
    ImportFields,
    ImportPreview,
    InstructionsBody,
    VideoPromptBody,
)
from yral_chat.core.errors import Invalid
from yral_chat.core.objects import Influencer
from yral_chat.resources import Resources
from yral_chat.services.cards import MAX_CARD_BYTES
from yral_chat.services.cards.service import CardFormat, CardSpec
from yral_chat.services.characters.creating import Created
from yral_chat.services.characters.records import NewPersona
from yral_chat.services.characters.revising import VersionList

PATH = "/api/v1/influencers"
IMPORT_PATH = f"{PATH}/import"

router = APIRouter(prefix=PATH, tags=["influencers"], responses=errors(401, 429, 500, 503))

VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("/generate-prompt", response_model=GeneratedPrompt, responses=errors(413, 422, 504))
async def generate_prompt(body: GeneratePrompt, caller: Caller, services: Services) -> Response:
    """System instructions for somebody's idea of a persona."""
    text = await services.characters.write_prompt(caller.user_id, body.prompt)
    return json_response({"system_instructions": text}, headers=_provider(services))


@router.post("/validate-and-generate-metadata", response_model=GeneratedMetadata, responses=errors(413, 422, 504))
async def validate_and_generate_metadata(body: InstructionsBody, caller: Caller, services: Services) -> Response:
    """Whether the concept may be used, and what a catalogue needs of it; 200 also for a refused one."""
    metadata = await services.characters.describe(caller.user_id, body.system_instructions)
    return json_response(msgspec.structs.asdict(metadata), headers=_provider(services))


@router.post(
    "/create",
    response_model=CreatedInfluencer,
    status_code=201,
    responses={200: {"model": CreatedInfluencer, "description": "Created before"}, **errors(403, 409, 413, 422)},
)
async def create_influencer(body: CreateInfluencer, caller: Caller, services: Services) -> Response:
    """A persona of the caller's; repeated with the same id by the same owner it is answered as stored."""
    return _created(services, await services.characters.create(caller, _persona(body)))


@router.post(
    "/import",
    response_model=CreatedInfluencer,
    status_code=201,
    responses={
        200: {"model": CreatedInfluencer | ImportPreview, "description": "Created before, or a preview"},
        **errors(400, 403, 409, 413, 415, 422),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {
                            "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                            "bot_principal_id": {"type": "string", "minLength": 1, "maxLength": 255},
                            "name": {"type": "string", "pattern": "^[A-Za-z0-9]{3,15}$"},
                            "preview": {"type": "boolean", "default": False},
                        },
                    }
                }
            },
        }
    },
)
async def import_card(request: Request, caller: Caller, services: Services) -> Response:
    """A persona from a character card (version 2 or 3, JSON or PNG)."""
    async with received_form(request, services.media.incoming, lambda _: MAX_CARD_BYTES) as form:
        fields = _fields(form)
        if form.path is None:
            raise Invalid.field(["body", "file"], "A file is required", "missing")
        made = await services.cards.import_card(
            caller,
            form.path,
            persona_id=fields.bot_principal_id,
            name=fields.name,
            is_preview=fields.preview is True,
        )
    if isinstance(made, NewPersona):
        return json_response(_preview(made))
    return _created(services, made)


@router.patch("/{influencer_id}/system-prompt", response_model=Influencer, responses=errors(403, 404, 413, 422))
async def edit_system_prompt(
    influencer_id: PathId, body: InstructionsBody, caller: Caller, services: Services
) -> Response:
    """The owner's new text; the next turn uses it."""
    return json_response(await services.revisions.edit(caller.user_id, influencer_id, body.system_instructions))


@router.get("/{influencer_id}/versions", response_model=VersionList, responses=errors(403, 404))
async def list_versions(influencer_id: PathId, caller: Caller, services: Services) -> Response:
    """The owner's texts, newest first; the first is the current one."""
    return json_response(await services.revisions.list_versions(caller.user_id, influencer_id))


@router.post("/{influencer_id}/versions/{n}/restore", response_model=Influencer, responses=errors(403, 404, 422))
async def restore_version(influencer_id: PathId, n: VersionNumber, caller: Caller, services: Services) -> Response:
    """Goes back to an earlier text, as a new version."""
    return json_response(await services.revisions.restore(caller.user_id, influencer_id, n))


@router.delete("/{influencer_id}", response_model=Influencer, responses=errors(403, 404))
async def delete_influencer(influencer_id: PathId, caller: Caller, services: Services) -> Response:
    """Takes a persona out of use for good; what was said with it stays readable."""
    return json_response(await services.revisions.delete(caller.user_id, influencer_id))


@router.post(
    "/{influencer_id}/generate-video-prompt",
    response_model=GeneratedVideoPrompt,
    responses=errors(403, 404, 413, 422, 504),
)
async def generate_video_prompt(
    influencer_id: PathId, caller: Caller, services: Services, body: VideoPromptBody | None = None
) -> Response:
    """A prompt for a short video in which the persona is seen."""
    scene = (body and body.scene_description) or ""
    reference = (body and body.reference_image_url) or None
    made = await services.characters.write_video_prompt(caller.user_id, influencer_id, scene, reference)
    value = {**msgspec.structs.asdict(made), "prompt": made.video_prompt}
    return json_response(value, headers=_provider(services))


@router.get(
    "/{influencer_id}/card",
    response_class=Response,
    responses={
        200: {
            "content": {"application/json": {"schema": {"type": "object"}}, "image/png": {}},
            "description": "The card as a file",
        },
        **errors(403, 404, 422),
    },
)
async def export_card(
    influencer_id: PathId,
    caller: Caller,
    services: Services,
    format_: Annotated[CardFormat, Query(alias="format"), absent_when_empty("json")] = "json",
    spec: Annotated[CardSpec, Query(), absent_when_empty("v3")] = "v3",
) -> Response:
    """The owner's persona as a character card; a PNG has both versions in it."""
    file = await services.cards.export(caller.user_id, influencer_id, format_, spec)
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "private, no-store"}
    return Response(file.data, 200, headers, file.mime_type)


def _provider(services: Resources) -> dict[str, str]:
    """Says so when no model has answered but templates have."""
    return {"X-Model-Provider": "offline"} if services.characters.is_offline else {}


def _persona(body: CreateInfluencer) -> NewPersona:
    return NewPersona(
        id=body.bot_principal_id,
        name=body.name,
        display_name=body.display_name,
        system_instructions=body.system_instructions,
        description=body.description or "",
        category=body.category or "",
        avatar_url=body.avatar_url or "",
        initial_greeting=body.initial_greeting or "",
        suggested_messages=tuple(body.suggested_messages or ()),
        personality_traits=body.personality_traits or {},
    )


def _created(services: Resources, created: Created) -> Response:
    value = {**created.influencer, "starter_video_prompt": created.starter_video_prompt}
    if not created.is_new:
        return json_response(value)
    return json_response(value, 201, _provider(services))


def _preview(persona: NewPersona) -> dict[str, Any]:
    value = msgspec.structs.asdict(persona)
    del value["source"], value["card"]
    return {"bot_principal_id": value.pop("id"), **value}


def _fields(form: Form) -> ImportFields:
    """Raises RequestValidationError."""
    try:
        return ImportFields.model_validate(form.fields)
    except ValidationError as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from error
