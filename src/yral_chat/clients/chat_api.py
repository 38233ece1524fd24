"""Our own HTTP API as a client uses it: what the terminal needs, and an example of how to lose or double nothing.

A message is sent under a key, so it can be sent again when nobody knows whether it arrived. A reply is followed to
its end: when the connection breaks, the stream is resumed behind the last event that came through.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec
import orjson

Json = dict[str, Any]

CONNECT_SECONDS = 5.0
# The server sends a heartbeat every 10 s and ends a silent stream after 28 s: beyond this the connection is dead.
SILENCE_SECONDS = 40.0
# How long a broken stream is tried to be resumed: a service that restarts is back well before.
RECONNECT_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
PAGE = 100
# What a proxy answers while the service behind it restarts.
_PASSING = frozenset({502, 503, 504})


class ChatApiError(Exception):
    """What went wrong, in a sentence that can be shown.

    ChatApiError
    ├── ServiceUnreachable   nobody answers, or the connection broke for good
    └── Refused              the service answered with an error
    """


class ServiceUnreachable(ChatApiError):
    pass


class Refused(ChatApiError):
    """`status` and `code` as in contract section 2."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Started(msgspec.Struct, frozen=True):
    """The service has the message, and the reply begins; a second one means that its text begins anew."""

    reply_id: str


class Piece(msgspec.Struct, frozen=True):
    text: str


class Done(msgspec.Struct, frozen=True):
    """The reply is complete; `message` is as stored."""

    message: Json


class Failed(msgspec.Struct, frozen=True):
    """The reply ended without being complete. `code` as in contract section 9.2."""

    code: str
    message: str
    is_retryable: bool


ReplyEvent = Started | Piece | Done | Failed


class _Frame(msgspec.Struct, frozen=True):
    """One server-sent event."""

    id: str
    event: str
    data: Json


class _Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    body: Json | None = None
    headers: dict[str, str] = {}


class ChatApi:
    """One user of one service: `async with ChatApi("http://127.0.0.1:8000", token) as api`.

    Every method raises ChatApiError.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.token = token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def is_there(self) -> bool:
        """Whether this service, and not something else, answers at the address."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS), self._open(_Request("GET", "/health/live")) as response:
                return "X-API-Version" in response.headers and await _read_json(response) == {"status": "alive"}
        except (ChatApiError, TimeoutError):
            return False

    async def health(self) -> Json:
        """The body of `/health`."""
        return await self._ask(_Request("GET", "/health"))

    async def get_dev_token(self, user_id: str) -> str:
        """A token of the development issuer; Refused with 404 where there is none."""
        answer = await self._ask(_Request("POST", "/api/v1/auth/dev-token", {"user_id": user_id}))
        return str(answer["token"])

    async def list_influencers(self) -> list[Json]:
        """All that can be talked to."""
        found: list[Json] = []
        while True:
            page = await self._ask(_Request("GET", f"/api/v1/influencers?limit={PAGE}&offset={len(found)}"))
            found += page["influencers"]
            if not page["has_more"]:
                return found

    async def open_conversation(self, influencer_id: str) -> Json:
        """The user's conversation with this influencer, new or reopened, with its newest messages."""
        return await self._ask(_Request("POST", "/api/v1/chat/conversations", {"influencer_id": influencer_id}))

    async def delete_conversation(self, conversation_id: str) -> None:
        await self._ask(_Request("DELETE", f"/api/v1/chat/conversations/{quote(conversation_id, safe='')}"))

    async def cancel(self, conversation_id: str, reply_id: str) -> None:
        """Stops a reply that is being written; its stream then ends with CANCELLED."""
        await self._ask(_Request("POST", f"{_messages(conversation_id)}/{reply_id}/cancel"))

    def send(self, conversation_id: str, content: str, key: str) -> AsyncGenerator[ReplyEvent, None]:
        """Sends a message and follows its reply. With the same `key` it may be called again: nothing is doubled."""
        body = {"message_type": "text", "content": content, "client_message_id": key}
        request = _Request("POST", f"{_messages(conversation_id)}/stream", body)
        return self._follow(conversation_id, request, may_repeat=True)

    def regenerate(self, conversation_id: str, reply_id: str) -> AsyncGenerator[ReplyEvent, None]:
        """Has the newest reply written anew and follows it."""
        request = _Request("POST", f"{_messages(conversation_id)}/{reply_id}/regenerate?stream=true")
        return self._follow(conversation_id, request, may_repeat=False)

    async def _follow(
        self, conversation_id: str, request: _Request, *, may_repeat: bool
    ) -> AsyncGenerator[ReplyEvent, None]:
        """A reply to its end, over as many connections as that takes."""
        reply_id = last_id = ""
        patience = _Patience()
        while True:
            try:
                async with aclosing(self._frames(request)) as frames:
                    async for frame in frames:
                        patience.renew()
                        event = _event(frame)
                        if isinstance(event, Started):
                            reply_id = event.reply_id
                        if isinstance(event, Started | Piece):
                            last_id = frame.id
                        if event is not None:
                            yield event
                        if isinstance(event, Done | Failed):
                            return
            except ServiceUnreachable:
                if not (reply_id or may_repeat) or patience.is_over:
                    raise
            except Refused as error:
                if not reply_id or error.status not in _PASSING or patience.is_over:
                    raise
            # Cut, or ended by a service that restarts or has waited long enough: the reply itself goes on.
            await patience.wait()
            if reply_id:
                headers = {"Last-Event-ID": last_id}
                request = _Request("GET", f"{_messages(conversation_id)}/{reply_id}/stream", headers=headers)

    async def _frames(self, request: _Request) -> AsyncGenerator[_Frame, None]:
        async with self._open(request) as response:
            await _raise_for_status(response)
            rest = b""
            async for packet in response.content.iter_any():
                *blocks, rest = (rest + packet).split(b"\n\n")
                for block in blocks:
                    if (frame := _parse(block)) is not None:
                        yield frame

    async def _ask(self, request: _Request) -> Json:
        async with self._open(request) as response:
            await _raise_for_status(response)
            answer = await _read_json(response)
            if not isinstance(answer, dict):
                raise ServiceUnreachable(f"{self.url} answered with something else than the API does.")
            return answer

    @asynccontextmanager
    async def _open(self, request: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends `request`. Whatever goes wrong below HTTP, also while the body is read, is ServiceUnreachable."""
        assert self._session is not None, "not entered"  # noqa: S101 - a mistake of the caller
        headers = dict(request.headers)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            async with self._session.request(
                request.method, f"{self.url}{request.path}", json=request.body, headers=headers, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServiceUnreachable(f"The service at {self.url} does not answer.") from error


class _Patience:
    """Growing pauses between attempts, and an end to them; whatever comes through renews it."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._pause = _FIRST_PAUSE
        self._deadline = time.monotonic() + RECONNECT_SECONDS

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    async def wait(self) -> None:
        await asyncio.sleep(self._pause)
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)


def _messages(conversation_id: str) -> str:
    return f"/api/v1/chat/conversations/{quote(conversation_id, safe='')}/messages"


def _parse(block: bytes) -> _Frame | None:
    """An event as the service writes it, one line each for id, event and data; None for a heartbeat."""
    fields: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        fields[name] = value.removeprefix(b" ")
    if b"data" not in fields:
        return None
    try:
        return _Frame(
            fields.get(b"id", b"").decode(), fields.get(b"event", b"").decode(), orjson.loads(fields[b"data"])
        )
    except ValueError as error:
        raise ServiceUnreachable("The service sent something unreadable.") from error


def _event(frame: _Frame) -> ReplyEvent | None:
    """None for an event that a newer service may send, and for one that says: resume."""
    data = frame.data
    match frame.event:
        case "start":
            return Started(data["assistant_message_id"])
        case "token":
            return Piece(data["text"])
        case "done":
            return Done(data["assistant_message"])
        case "error" if not data["turn_running"]:
            return Failed(data["code"], data["message"], data["retryable"])
    return None


async def _read_json(response: aiohttp.ClientResponse) -> Any:
    try:
        return orjson.loads(await response.read())
    except orjson.JSONDecodeError:
        return None


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status < 300:
        return
    body = await _read_json(response)
    if not isinstance(body, dict) or "error" not in body:
        raise Refused(response.status, "", f"The server answered with status {response.status}.")
    raise Refused(response.status, str(body["error"]), _sentence(body))


def _sentence(body: Mapping[str, Any]) -> str:
    """The message of an error, with what is wrong about the input where it says so."""
    message = str(body.get("message", "")).rstrip(".")
    details = body.get("details")
    details = details if isinstance(details, dict) else {}
    if "retry_after" in details:
        message = f"{message}. Try again in {details['retry_after']} s"
    errors = details.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        message = f"{message}: {errors[0].get('msg', '')}".rstrip(".")
    return f"{message}."
