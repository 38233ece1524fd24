"""What the operator does to personas (contract section 16)."""

from fastapi import APIRouter
from starlette.responses import Response

from yral_chat.api.deps import PathId, Services, admin, json_response
from yral_chat.api.errors import errors
from yral_chat.api.v1.creation_schemas import BanBody, BannedInfluencer

router = APIRouter(
    prefix="/api/v1/admin/influencers",
    tags=["admin"],
    dependencies=[admin],
    responses=errors(401, 404, 413, 422, 429, 500, 503),
)


@router.post("/{id_or_name}/ban", response_model=BannedInfluencer)
async def ban_influencer(id_or_name: PathId, services: Services, body: BanBody | None = None) -> Response:
    """Takes a persona out of use until it is unbanned. May be repeated."""
    return await _ban(services, id_or_name, body)


@router.post("/{id_or_name}", response_model=BannedInfluencer)
async def ban_influencer_by_post(id_or_name: PathId, services: Services, body: BanBody | None = None) -> Response:
    """As `…/ban`, for existing clients."""
    return await _ban(services, id_or_name, body)


@router.delete("/{id_or_name}", response_model=BannedInfluencer)
async def ban_influencer_by_delete(id_or_name: PathId, services: Services, body: BanBody | None = None) -> Response:
    """As `…/ban`, for existing clients."""
    return await _ban(services, id_or_name, body)


@router.post("/{id_or_name}/unban", response_model=BannedInfluencer, responses=errors(409))
async def unban_influencer(id_or_name: PathId, services: Services, body: BanBody | None = None) -> Response:
    """Brings a banned persona back as it was."""
    influencer, is_banned = await services.bans.unban(id_or_name, (body and body.reason) or "")
    return json_response({**influencer, "banned": is_banned})


async def _ban(services: Services, id_or_name: str, body: BanBody | None) -> Response:
    influencer, is_banned = await services.bans.ban(id_or_name, (body and body.reason) or "")
    return json_response({**influencer, "banned": is_banned})
