"""A profile service on loopback, which can break."""

import asyncio
import json
from types import TracebackType
from typing import Self

from aiohttp import web


class ProfileServer:
    """`names` are those who have a name of their own; everybody else gets `body`. `url` is what PROFILE_URL wants."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.names: dict[str, str] = {}
        self.status = 200
        self.is_slow = False
        self.body = b'{"username": "ravi", "profile_picture_url": "https://pictures.example/ravi.png", "more": 1}'
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/people/{principal:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/people/"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        name = self.names.get(request.match_info["principal"])
        body = self.body if name is None else json.dumps({"username": name}).encode()
        if self.is_slow:
            return await self._answer_in_pieces(request, body)
        return web.Response(status=self.status, body=body, content_type="application/json")

    async def _answer_in_pieces(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(body), 20):
            await response.write(body[start : start + 20])
            await asyncio.sleep(0.01)  # so that each is a packet of its own
        return response
