"""What `yral-chat jobs` asks of a running server. Not a part of the public contract."""

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from yral_chat.api.deps import Id, Services, admin, json_response

router = APIRouter(prefix="/api/v1/admin/jobs", include_in_schema=False, dependencies=[admin])


class RetryBody(BaseModel):
    """Which dead job; null: all."""

    id: Id | None = None


@router.post("/retry")
async def retry_jobs(body: RetryBody, services: Services) -> Response:
    """Dead jobs begin anew."""
    return json_response({"count": await services.jobs.revive(body.id)})


@router.post("/purge")
async def purge_jobs(services: Services) -> Response:
    """Dead jobs are forgotten."""
    return json_response({"count": await services.jobs.purge_dead()})
