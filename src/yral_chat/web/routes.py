"""The page at `/`, its files, and the documentation pages. All of it comes from this host: no CDN, no inline script."""

import os
import re
from pathlib import Path, PurePath
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from yral_chat.core.config import Settings
from yral_chat.core.version import SERVICE_NAME
from yral_chat.personas import PICTURES_DIR
from yral_chat.web.accept import prefers_html

STATIC = Path(__file__).parent / "static"

# Avatars may live anywhere (an owner names any http or https address), and so may storage that signs its own addresses;
# blobs are what somebody is about to send. Scripts and styles come only from here.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data: https: http:; "
    "media-src 'self' blob: https: http:; connect-src 'self' ws: wss:; font-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI and Redoc write style elements and attributes while they run; Redoc searches in a worker made of a blob.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self' data:; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# For voice notes; nothing here looks through a camera, asks where somebody is, or takes money.
PERMISSIONS = "microphone=(self), camera=(), geolocation=(), payment=(), usb=()"

# Also the list of what may leave a folder: pages go out only with their policy, a persona's text not at all.
# Written down here because the system's own table may call a script text/plain, which browsers then refuse to run.
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
}
VERSIONED_NAME = re.compile(r"-\d+\.\d+\.\d+\.\w+$")


class ServiceInfo(BaseModel):
    """Where things are, for whoever calls the bare address."""

    service: str
    version: str
    status: Literal["running"] = "running"
    docs: str = "/docs"
    health: str = "/health"
    metrics: str = "/metrics"


class StaticFolder(StaticFiles):
    """Files of one folder with the given suffixes; everything else in it does not exist."""

    def __init__(self, directory: Path, *, suffixes: frozenset[str], cache_control: str) -> None:
        super().__init__(directory=directory)
        self.suffixes = suffixes
        self.cache_control = cache_control

    async def get_response(self, path: str, scope: Scope) -> Response:
        if PurePath(path).suffix not in self.suffixes:
            raise HTTPException(404)
        return await super().get_response(path, scope)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        name = PurePath(full_path)
        is_versioned = VERSIONED_NAME.search(name.name) is not None
        response = FileResponse(
            full_path,
            status_code=status_code,
            stat_result=stat_result,
            media_type=MEDIA_TYPES[name.suffix],
            headers={"Cache-Control": "public, max-age=31536000, immutable" if is_versioned else self.cache_control},
        )
        if self.is_not_modified(response.headers, Request(scope).headers):
            return NotModifiedResponse(response.headers)
        return response


def install(app: FastAPI, settings: Settings, version: str) -> None:
    """Adds `/`, `/static/*`, `/favicon.*` and, where DOCS_ENABLED, `/docs` and `/redoc` (contract section 6).

    The app must have been made with `docs_url=None, redoc_url=None`: FastAPI's own pages load from a CDN.
    """
    _install_root(app, version)
    if settings.docs_enabled:
        _install_docs(app, "/docs", "swagger.html")
        _install_docs(app, "/redoc", "redoc.html")
    for name in ("favicon.ico", "favicon.svg"):
        _install_file(app, f"/{name}", STATIC / "icons" / name)
    pictures = StaticFolder(PICTURES_DIR, suffixes=frozenset({".webp", ".png"}), cache_control="public, max-age=3600")
    app.mount("/static/personas", pictures, name="personas")
    # Revalidated at each load: the modules of a page must all be of one version.
    files = StaticFolder(STATIC, suffixes=frozenset(MEDIA_TYPES), cache_control="no-cache")
    app.mount("/static", files, name="static")


def _install_root(app: FastAPI, version: str) -> None:
    page = (STATIC / "chat/index.html").read_bytes()
    info = ServiceInfo(service=SERVICE_NAME, version=version)

    async def get_root(request: Request, response: Response) -> Response | ServiceInfo:
        """Where things are; a browser gets the chat page instead."""
        # Several Accept lines are one list.
        if prefers_html(",".join(request.headers.getlist("accept"))):
            return _page_response(page, PAGE_POLICY, {"Vary": "Accept"})
        response.headers["Vary"] = "Accept"
        return info

    app.add_api_route(
        "/",
        get_root,
        methods=["GET"],
        response_model=ServiceInfo,
        tags=["service"],
        summary="Service information, or the chat page",
        operation_id="get_root",
        responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    )


def _page_response(content: bytes, policy: str, headers: dict[str, str] | None = None) -> HTMLResponse:
    return HTMLResponse(
        content,
        headers={
            "Cache-Control": "no-cache",
            "Content-Security-Policy": policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Permissions-Policy": PERMISSIONS,
            **(headers or {}),
        },
    )


def _install_docs(app: FastAPI, path: str, name: str) -> None:
    content = (STATIC / "docs" / name).read_bytes()

    async def get_page(_: Request) -> Response:
        return _page_response(content, DOCS_POLICY)

    app.add_route(path, get_page, methods=["GET", "HEAD"], include_in_schema=False)


def _install_file(app: FastAPI, path: str, file: Path) -> None:
    async def get_file(_: Request) -> Response:
        headers = {"Cache-Control": "public, max-age=86400"}
        return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=headers)

    app.add_route(path, get_file, methods=["GET", "HEAD"], include_in_schema=False)
