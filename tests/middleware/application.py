"""A small application with one route of every kind, inside the real middleware, and a real server for it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx2
import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request, Response, WebSocket
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import StreamingResponse
from starlette.staticfiles import StaticFiles

from yral_chat.api import errors
from yral_chat.core.config import Settings
from yral_chat.core.errors import InfluencerNotFound, NotYourConversation, Unauthorized
from yral_chat.core.logging import correlation_id
from yral_chat.core.metrics import Metrics
from yral_chat.middleware.cors import cors_options
from yral_chat.middleware.limits import BodyLimitMiddleware
from yral_chat.middleware.request_context import RequestContextMiddleware

PAGE = "https://page.example"


class Item(BaseModel):
    name: str = Field(max_length=20)
    numbers: list[int] = []


class Gates:
    """What a test waits for, and what it lets happen."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.next_chunk = asyncio.Event()
        self.has_ended = asyncio.Event()


def application(
    metrics: Metrics,
    gates: Gates,
    *,
    cors_origins: str = PAGE,
    by_prefix: Mapping[str, int] | None = None,
) -> FastAPI:
    settings = Settings(_env_file=None, environment="test", cors_origins=cors_origins)
    app = FastAPI(
        redirect_slashes=False,
        middleware=[
            Middleware(RequestContextMiddleware, metrics=metrics, cors=cors_options(settings)),
            Middleware(GZipMiddleware, minimum_size=1024),
            Middleware(BodyLimitMiddleware, by_prefix=by_prefix),
        ],
    )
    errors.install(app)
    _add_plain_routes(app)
    _add_streams(app, gates)
    _add_sockets(app)
    app.include_router(_influencers(), prefix="/api/v1")
    app.include_router(_versioned(), prefix="/api")

    app.mount("/static", StaticFiles(directory=Path(__file__).parent))
    return app


def _add_plain_routes(app: FastAPI) -> None:
    @app.get("/")
    async def root() -> dict[str, str]:
        return {"service": "test"}

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/media/{key:path}")
    async def media(key: str) -> Response:
        return Response(key.encode() * 100, media_type="image/png", headers={"Cache-Control": "private, max-age=60"})

    @app.get("/context")
    async def context(request: Request) -> dict[str, str]:
        request.state.user_id = "user-1"
        return {"state": request.state.correlation_id, "variable": correlation_id.get()}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail of the inside")

    @app.get("/misshapen", response_model=list[Item])
    async def misshapen() -> Any:
        return [{"name": "a secret thought", "numbers": ["of somebody"]}]

    @app.get("/unauthorized")
    async def unauthorized() -> None:
        raise Unauthorized("Token has expired")

    @app.get("/forbidden")
    async def forbidden() -> None:
        raise NotYourConversation

    @app.post("/items", responses=errors.errors(401, 404))
    async def add_item(item: Item) -> Item:
        return item

    @app.get("/items")
    async def list_items(limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[Item]:
        return [Item(name="item")] * limit

    @app.get("/items/{item_id}")
    async def get_item(item_id: Annotated[str, PathParameter(max_length=10)]) -> dict[str, str]:
        return {"id": item_id}

    @app.post("/raw")
    async def raw(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.get("/encoded")
    async def encoded() -> Response:
        return Response(b"\x1f\x8b" + b"0" * 4000, headers={"Content-Encoding": "gzip"}, media_type="application/json")


def _add_streams(app: FastAPI, gates: Gates) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        gates.has_begun.set()
        try:
            yield b"data: first\n\n"
            await gates.next_chunk.wait()
            yield b"data: second\n\n"
        finally:
            gates.has_ended.set()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(chunks(), media_type="text/event-stream")

    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 2000
        raise RuntimeError("in the middle")

    @app.get("/breaking")
    async def breaking_stream() -> StreamingResponse:
        return StreamingResponse(breaking(), media_type="text/event-stream")


def _add_sockets(app: FastAPI) -> None:
    router = APIRouter()

    @router.websocket("/inbox/{user_id}")
    async def inbox(socket: WebSocket, user_id: str) -> None:
        await socket.accept()
        await socket.send_text(f"{user_id} {socket.state.correlation_id} {correlation_id.get()}")
        await socket.receive_text()
        await socket.close(4001, "gone")

    @router.websocket("/broken-socket")
    async def broken_socket(socket: WebSocket) -> None:
        await socket.accept()
        raise RuntimeError("secret detail of the socket")

    @router.websocket("/refused-socket")
    async def refused_socket(socket: WebSocket) -> None:
        await socket.close(4003)

    @router.websocket("/broken-handshake")
    async def broken_handshake(socket: WebSocket) -> None:
        raise RuntimeError("before the handshake")

    app.include_router(router, prefix="/ws")


def _influencers() -> APIRouter:
    router = APIRouter(prefix="/influencers")

    @router.get("")
    async def list_influencers(response: Response) -> list[str]:
        response.headers["Cache-Control"] = "public, max-age=300"
        return ["a persona"] * 500

    @router.get("/{influencer_id}")
    async def get_influencer(influencer_id: str) -> dict[str, str]:
        if influencer_id == "nobody":
            raise InfluencerNotFound
        return {"id": influencer_id}

    @router.post("/{influencer_id}")
    async def change_influencer(influencer_id: str) -> dict[str, str]:
        return {"id": influencer_id}

    @router.get("/{influencer_id}/card")
    async def card(influencer_id: str) -> dict[str, str]:
        return {"id": influencer_id}

    return router


def _versioned() -> APIRouter:
    """One function under several paths."""
    router = APIRouter()

    @router.get("/v1/thing")
    @router.get("/v2/thing")
    @router.get("/v3/thing")
    async def thing() -> dict[str, str]:
        return {}

    return router


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    """Calls the application in this process; what it raises is a failure of the test."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://testserver")


@asynccontextmanager
async def serving(app: Callable[..., Any]) -> AsyncIterator[str]:
    """The host and port at which a real uvicorn serves `app`."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=5))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield "{}:{}".format(*listener.getsockname())
    finally:
        server.should_exit = True
        await task
