"""create_app: middleware in their order, routers, error handlers, and the life of the resources."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Scope

from yral_chat import jobs
from yral_chat.api import errors, health, media, openai
from yral_chat.api.multipart import OVERHEAD_BYTES
from yral_chat.api.v1 import (
    accounts,
    admin,
    auth,
    conversations,
    creation,
    human,
    inbox,
    influencers,
    memories,
    messages,
    pictures,
    users,
)
from yral_chat.api.v1 import jobs as job_routes
from yral_chat.api.v1 import logs as log_routes
from yral_chat.api.v1 import media as uploads
from yral_chat.api.v1 import restores as restore_routes
from yral_chat.api.v2 import conversations as conversations_v2
from yral_chat.api.v3 import conversations as conversations_v3
from yral_chat.clients.identity import Identity
from yral_chat.core.config import Settings
from yral_chat.core.metrics import Metrics
from yral_chat.core.version import SERVICE_NAME, VERSION
from yral_chat.middleware.cors import cors_options
from yral_chat.middleware.gate import GateMiddleware
from yral_chat.middleware.headers import safe_headers
from yral_chat.middleware.limits import BodyLimitMiddleware
from yral_chat.middleware.rate_limits import RateLimitMiddleware
from yral_chat.middleware.request_context import RequestContextMiddleware
from yral_chat.resources import Resources
from yral_chat.services.cards import MAX_CARD_BYTES
from yral_chat.web import routes as web

# In the order of their use: each request is matched against one after the other. No path fits two of them; within a
# router fixed paths stand before parameterised ones (contract section 19).
ROUTERS = (
    messages.router,
    conversations_v2.router,
    conversations_v3.router,
    conversations.router,
    human.router,
    influencers.router,
    pictures.router,
    uploads.router,
    memories.router,
    users.router,
    accounts.router,
    auth.router,
    inbox.router,
    media.router,
    openai.router,
    creation.router,
    admin.router,
    job_routes.router,
    log_routes.router,
    restore_routes.router,
    health.router,
)

# Event streams are not to be held back by a compressor (contract section 1.1); the others would gain nothing.
COMPRESSED_ALREADY = (
    "text/event-stream", "image/gif", "image/jpeg", "image/png", "image/webp", "audio/*", "video/*",
)  # fmt: skip


def create_app(settings: Settings | None = None, opened: Resources | None = None) -> FastAPI:
    """The application. Its lifespan opens the resources, unless they are `opened` already, and closes them."""
    settings = settings or Settings()
    metrics = opened.metrics if opened is not None else Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        resources = opened or Resources(settings, metrics)
        if opened is None:
            await resources.open()
        app.state.resources = resources
        resources.jobs.start(jobs.handlers(resources), jobs.chores(resources))
        try:
            yield
        finally:
            await resources.close()

    app = FastAPI(
        title=SERVICE_NAME,
        version=VERSION,
        summary="Conversations with AI personas",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        redirect_slashes=False,
        middleware=[
            Middleware(
                RequestContextMiddleware, metrics=metrics, cors=cors_options(settings), safe=safe_headers(settings)
            ),
            *([Middleware(RateLimitMiddleware)] if settings.rate_limit_enabled else []),
            Middleware(
                GateMiddleware,
                metrics=metrics,
                send_seconds=settings.send_timeout_seconds,
                max_per_user=settings.max_requests_per_user,
                user_of=_known_user,
            ),
            # Level 9 takes twice the time of level 4 for 1.6 % of a 25 KB page. The list is read for each request,
            # so it names only what we send.
            Middleware(GZipMiddleware, minimum_size=1024, compresslevel=4, exclude_content_types=COMPRESSED_ALREADY),
            Middleware(BodyLimitMiddleware, by_prefix=_body_limits(settings)),
        ],
    )
    for router in ROUTERS:
        # Not include_router: an included router is matched twice and through three more calls, 8 to 20 µs a request.
        # These bring their prefixes, tags and documented errors themselves, so that it would add nothing.
        app.router.routes.extend(router.routes)
    errors.install(app)
    web.install(app, settings, VERSION)
    return app


def _known_user(scope: Scope, authorization: str) -> str | None:
    caller = scope["state"].get("caller")  # verified already where requests are counted
    if isinstance(caller, Identity):
        return caller.user_id
    resources: Resources = scope["app"].state.resources
    return resources.verifier.known_user(authorization)


def _body_limits(settings: Settings) -> dict[str, int]:
    """The largest body by path where files come in: a file of the larger kind, and what stands around it."""
    megabytes = max(settings.max_image_size_mb, settings.max_audio_size_mb)
    return {
        uploads.PATH: megabytes * 1024 * 1024 + OVERHEAD_BYTES,
        creation.IMPORT_PATH: MAX_CARD_BYTES + OVERHEAD_BYTES,
    }
