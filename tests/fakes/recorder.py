"""A server on loopback that takes whatever comes and remembers it: for calls of which only the request counts."""

import asyncio
import threading
from types import TracebackType
from typing import NamedTuple, Self

from aiohttp import web


class Received(NamedTuple):
    """One request; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Recorder:
    """In a thread of its own, so that tests of any kind can use it. `hangs`: it takes everything and answers never."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.received: list[Received] = []
        self.url = ""
        self._hangs = hangs
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def of(self, path: str) -> list[Received]:
        """What came in at addresses that begin so."""
        return [request for request in self.received if request.path.startswith(path)]

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._receive)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://127.0.0.1:{1}".format(*runner.addresses[0])
        self._ready.set()
        await self._ending.wait()
        await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.method, request.path, headers, body))
        if self._hangs:
            await self._ending.wait()
        return web.json_response({})
