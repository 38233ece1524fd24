"""Who am I, and tokens for development (contract section 3.4)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from yral_chat.api.deps import Caller, Services, json_response
from yral_chat.api.errors import errors
from yral_chat.api.v1.schemas import DevToken, DevTokenRequest, Me
from yral_chat.clients.identity import issue_dev_token
from yral_chat.core.clock import SECOND, to_text
from yral_chat.core.errors import NotFound

router = APIRouter(prefix="/api/v1/auth", tags=["auth"], responses=errors(429, 500, 503))

DEFAULT_TTL_SECONDS = 3600


@router.get("/me", response_model=Me, responses=errors(401))
async def get_me(caller: Caller, services: Services) -> Response:
    """The caller, as the token says."""
    owned = await services.influencers.list_owned_ids(caller.user_id)
    body: dict[str, Any] = {
        "user_id": caller.user_id,
        "is_anonymous": caller.is_anonymous,
        "owned_bot_ids": owned,
    }
    return json_response(body)


async def _development_secret(services: Services) -> bytes:
    """A dependency, so that elsewhere the body is not looked at either. Raises NotFound."""
    if services.settings.environment != "development" or services.dev_secret is None:
        raise NotFound
    return services.dev_secret


@router.post("/dev-token", response_model=DevToken, responses=errors(404, 413, 422))
async def create_dev_token(
    body: DevTokenRequest, services: Services, secret: Annotated[bytes, Depends(_development_secret)]
) -> Response:
    """A token for any user id. Only in development; elsewhere this route does not exist."""
    ttl = DEFAULT_TTL_SECONDS if body.ttl_seconds is None else body.ttl_seconds
    token, expires_at = issue_dev_token(
        secret, services.settings.auth_dev_issuer, body.user_id, ttl, bool(body.is_anonymous)
    )
    return json_response(
        {
            "token": token,
            "token_type": "Bearer",
            "expires_in": ttl,
            "expires_at": to_text(expires_at * SECOND),
        }
    )
