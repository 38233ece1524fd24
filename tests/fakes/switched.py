"""A server on loopback that works, or does not, as it is told; it counts what it is asked."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SwitchedServer:
    """Answers as `handle` does while `is_good`, else with 503. `url` has no slash at its end."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self.is_good = True
        self.count = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=100 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.count += 1
        await request.read()
        return await self._handle(request) if self.is_good else web.Response(status=503)
