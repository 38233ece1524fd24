"""A service that tells what reached it, and answers as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

# Room for the longest token.
LINE_BYTES = 32 * 1024


class Seen(NamedTuple):
    method: str
    target: str  # path and query, undecoded
    headers: dict[str, str]  # names in lower case; of repeated ones all values, joined by `, `
    size: int  # of the body


class Upstream:
    """Listens while `running`. `answer` is what it says next; with `is_silent` nothing, ever."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answer = web.Response(text="ok")
        self.is_silent = False
        self.waiting = 0  # requests that will never be answered
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue()  # pieces of bodies, as they came
        self.address = ""

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
            self.bodies.put_nowait(piece)
        names = {name.lower() for name in request.headers}
        headers = {name: ", ".join(request.headers.getall(name)) for name in names}
        self.seen.append(Seen(request.method, request.raw_path, headers, size))
        if self.is_silent:
            self.waiting += 1
            await asyncio.Event().wait()
        answer = self.answer
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Upstream"]:
        server = web.Server(
            self._handle, handler_cancellation=True, max_line_size=LINE_BYTES, max_field_size=LINE_BYTES
        )
        # Zero would be "as long as it takes".
        runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = site.name.removeprefix("http://")
        try:
            yield self
        finally:
            await runner.cleanup()
