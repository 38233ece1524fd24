"""A client of the inbox socket that holds every frame to the service's own description of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.client import PLAIN, Api, Json
from tests.service import token

DURABLE = {"new_message", "message_updated", "conversation_read", "conversation_deleted"}
WAIT_SECONDS = 30


class Frames:
    """The service's document of its events, as a judge of its frames."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._validators = {
            name: Draft202012Validator(event["schema"], format_checker=Draft202012Validator.FORMAT_CHECKER)
            for name, event in document["events"].items()
        }

    def check(self, frame: Json) -> None:
        """Raises AssertionError when the frame is not as described."""
        errors = [error.message[:300] for error in self._validators[frame["event"]].iter_errors(frame)]
        assert not errors, f"{frame['event']}: {errors}"


async def describe(url: str) -> Frames:
    async with httpx2.AsyncClient(base_url=url, verify=PLAIN) as client:
        return Frames((await client.get("/api/v1/chat/ws/docs")).json())


class Inbox:
    """One open socket."""

    def __init__(self, socket: ClientConnection, frames: Frames) -> None:
        self.socket = socket
        self._frames = frames

    async def take(self) -> Json:
        """The next frame, whatever it is."""
        frame: Json = json.loads(await asyncio.wait_for(self.socket.recv(decode=True), WAIT_SECONDS))
        self._frames.check(frame)
        return frame

    async def take_until(self, event: str, **data: Any) -> list[Json]:
        """All frames up to and with the one of this name and data."""
        taken = []
        while True:
            frame = await self.take()
            taken.append(frame)
            if frame["event"] == event and all(frame["data"][name] == value for name, value in data.items()):
                return taken

    async def settle(self) -> list[Json]:
        """All frames that were on their way before now: what was published has left when the pong comes."""
        await self.socket.send("ping")
        taken = []
        while (text := await asyncio.wait_for(self.socket.recv(decode=True), WAIT_SECONDS)) != "pong":
            frame: Json = json.loads(text)
            self._frames.check(frame)
            taken.append(frame)
        return taken

    async def closed(self) -> tuple[int, str]:
        """Code and reason, once the server has closed."""
        return await closing(self.socket)


async def _drain(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


async def closing(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the server closes, whatever it still sends before."""
    with pytest.raises(ConnectionClosed) as ended:
        await asyncio.wait_for(_drain(socket), WAIT_SECONDS)
    assert ended.value.rcvd is not None, "cut without a close frame"
    return ended.value.rcvd.code, ended.value.rcvd.reason


def address(url: str, user_id: str, **query: Any) -> str:
    """Of a user's inbox, without a token."""
    return str(httpx2.URL(f"{url.replace('http', 'ws', 1)}/api/v1/chat/ws/inbox/{user_id}", params=query))


@asynccontextmanager
async def socket_at(where: str, *protocols: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A bare socket."""
    offered = [Subprotocol(name) for name in protocols] or None
    # A bounded queue would stop reading behind what a test does not take, and then not see the close frame either.
    async with connect(where, subprotocols=offered, proxy=None, compression=None, max_queue=None, **options) as socket:
        yield socket


@asynccontextmanager
async def inbox_of(api: Api, frames: Frames, **query: Any) -> AsyncIterator[Inbox]:
    """The user's inbox, open and listening."""
    async with socket_at(address(api.url, api.user_id, token=token(api.user_id), **query)) as socket:
        inbox = Inbox(socket, frames)
        if "since" not in query:
            # An answer says that the server listens for this socket; before it nothing has happened.
            await socket.send("ping")
            assert await asyncio.wait_for(socket.recv(), WAIT_SECONDS) == "pong"
        yield inbox


def seqs(frames: list[Json]) -> list[int]:
    """The numbers of the durable ones."""
    return [frame["seq"] for frame in frames if frame["event"] in DURABLE]


def names(frames: list[Json]) -> list[str]:
    return [frame["event"] for frame in frames]
