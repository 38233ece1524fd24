"""Influencers: the public reads (contract section 11), served from encoded bytes."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from yral_chat.api.deps import Offset, OptionalCaller, PageLimit50, PathId, Services
from yral_chat.api.errors import errors
from yral_chat.api.v1.schemas import InfluencerList
from yral_chat.core.cache import EncodedBody
from yral_chat.core.objects import Influencer

router = APIRouter(prefix="/api/v1/influencers", tags=["influencers"], responses=errors(422, 429, 500, 503))

PUBLIC = "public, max-age=300"
PRIVATE = "private, no-store"
# FastAPI lists the token's scheme; this adds the alternative: none at all.
TOKEN_IS_OPTIONAL: dict[str, list[dict[str, list[str]]]] = {"security": [{}]}


@router.get("", response_model=InfluencerList, openapi_extra=TOKEN_IS_OPTIONAL)
async def list_influencers(
    request: Request,
    services: Services,
    _: OptionalCaller,
    limit: PageLimit50 = 50,
    offset: Offset = 0,
) -> Response:
    """All that can be talked to: active ones first, newest first."""
    return _respond(request, await services.influencers.list_page("all", limit, offset))


@router.get("/trending", response_model=InfluencerList, openapi_extra=TOKEN_IS_OPTIONAL)
async def list_trending_influencers(
    request: Request,
    services: Services,
    _: OptionalCaller,
    limit: PageLimit50 = 50,
    offset: Offset = 0,
) -> Response:
    """Active ones, most talked to first."""
    return _respond(request, await services.influencers.list_page("trending", limit, offset))


@router.get("/{influencer_id}", response_model=Influencer, responses=errors(404), openapi_extra=TOKEN_IS_OPTIONAL)
async def get_influencer(
    request: Request, services: Services, influencer_id: PathId, caller: OptionalCaller
) -> Response:
    """One influencer; its owner also sees the system prompt."""
    viewer_id = caller.user_id if caller is not None else None
    body, is_private = await services.influencers.get(influencer_id, viewer_id)
    return _respond(request, body, is_private=is_private)


def _respond(request: Request, body: EncodedBody, *, is_private: bool = False) -> Response:
    """The bytes as they lie in the cache, compressed if the client can; 304 when it has them."""
    headers = {"Cache-Control": PRIVATE if is_private else PUBLIC, "Vary": "Authorization, Accept-Encoding"}
    if not is_private:
        headers["ETag"] = body.etag
        if _has(request.headers.get("if-none-match"), body.etag):
            return Response(None, 304, headers)
    if body.gzip is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(body.gzip, 200, headers, "application/json")
    return Response(body.body, 200, headers, "application/json")


def _has(if_none_match: str | None, etag: str) -> bool:
    """RFC 9110, section 13.1.2: a list of validators, weak ones equal strong ones here, `*` fits all."""
    if if_none_match is None:
        return False
    candidates = (candidate.strip().removeprefix("W/") for candidate in if_none_match.split(","))
    return any(candidate in (etag, "*") for candidate in candidates)
