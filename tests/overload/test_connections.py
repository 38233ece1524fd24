"""What stands below the application: heads, bodies and ends of connections, as strangers may send them."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.client import Api, Document
from tests.overload.wire import Wire, head
from tests.service import Service

PAGE = "https://app.example"
LIVE = head("GET", "/health/live")
SOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": base64.b64encode(bytes(16)).decode(),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("connections")
    settings = {"SLOW_CLIENT_SECONDS": "1", "SEND_TIMEOUT_SECONDS": "0.1", "CORS_ORIGINS": PAGE, "LOG_LEVEL": "INFO"}
    with Service(folder, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def document(service: Service) -> Document:
    return Document.of(service)


@pytest.mark.parametrize("piece", [b"X-Trailer: " + b"a" * 4083 + b"\r\n", b"a" * 4096])
async def test_what_follows_a_chunked_body_without_end_is_cut_off_and_not_kept(service: Service, piece: bytes) -> None:
    async with Wire(service.url) as wire:
        await wire.send(head("POST", "/api/v1/chat/conversations", "u", Transfer_Encoding="chunked"))
        await wire.send(b"1\r\n{\r\n0\r\nX-First: ")
        sent = 0
        with suppress(ConnectionError):
            while not wire.reader.at_eof() and sent < 100 * 2**20:
                await wire.send(piece * 16)
                sent += 16 * len(piece)
        assert sent < 16 * 2**20  # what lies in the buffers of both kernels


async def test_trailers_are_no_headers(service: Service) -> None:
    async with Wire(service.url) as wire:
        token = head("POST", "/", "u").split(b"\r\n")[2]
        body = b"2\r\n{}\r\n0\r\n" + token + b"\r\n\r\n"
        await wire.send(head("POST", "/api/v1/chat/conversations", Transfer_Encoding="chunked") + body)
        assert (await wire.answer()).status == 401
        await wire.send(LIVE)
        assert (await wire.answer()).status == 200


@pytest.mark.parametrize("stray", [b"\r\n", b"\n\r\n"])
async def test_stray_line_ends_keep_no_connection_open(service: Service, stray: bytes) -> None:
    async with Wire(service.url) as wire:
        await wire.send(LIVE)
        assert (await wire.answer()).status == 200
        await wire.send(stray)
        await wire.ended()


async def test_a_body_that_comes_after_its_refusal_keeps_no_connection_open(service: Service) -> None:
    length = 1024 * 1024 + 1
    async with Wire(service.url) as wire:
        await wire.send(head("POST", "/api/v1/chat/conversations", "u", Content_Length=str(length)))
        assert (await wire.answer()).status == 413
        with suppress(ConnectionError):
            await wire.send(b"a" * length)
        await wire.ended()


async def test_a_body_that_is_refused_and_never_comes_gets_one_answer(service: Service) -> None:
    request = head("POST", "/api/v1/chat/conversations", "u", Content_Length="9999999", Expect="100-continue")
    async with Wire(service.url) as wire:
        await wire.send(request)
        assert (await wire.answer()).status == 413
        assert await wire.ended() == b""


async def test_a_refusal_below_the_application_has_all_headers(service: Service) -> None:
    own = {"Origin": PAGE, "X_Correlation_ID": "mine", "X_Last": "is read with the next"}
    requests = [
        (408, head("PUT", "/api/v2/nothing", **own)[:-2] + b"X-More: "),
        (431, head("GET", "/api/v2/nothing", **own)[:-2] + b"X-Long: " + b"a" * 400_000),
        (400, head("GET", "/api/v2/nothing", **own)[:-2] + b"No header\r\n\r\n"),
    ]
    for status, request in requests:
        async with Wire(service.url) as wire:
            with suppress(ConnectionError):
                await wire.send(request)
            answer = await wire.answer()
            assert (answer.status, answer.error["error"]) == (status, "bad_request")
            told = {name: answer.headers.get(name) for name in ("x-correlation-id", "x-api-version")}
            assert told == {"x-correlation-id": "mine", "x-api-version": "v2"}
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "Retry-After" in answer.headers["access-control-expose-headers"]
            for name in ("x-response-time-ms", "x-content-type-options", "cache-control", "content-security-policy"):
                assert name in answer.headers
            assert answer.headers["connection"] == "close"


async def test_so_has_the_end_of_a_body_that_does_not_come(service: Service) -> None:
    own = {"Origin": PAGE, "X_Correlation_ID": "mine"}
    async with Wire(service.url) as wire:
        await wire.send(head("POST", "/api/v1/chat/conversations", "u", Content_Length="9", **own) + b"{")
        answer = await wire.answer()
        assert (answer.status, answer.error["correlation_id"]) == (408, "mine")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert await wire.ended() == b""


@pytest.mark.long
async def test_the_time_that_a_body_takes_to_come_is_its_clients(service: Service) -> None:
    """It may take longer than the whole of an answer, and is not refused for that as if we were too slow."""
    body = b'{"influencer_id": "nobody", "ignored": "' + b"a" * 30_000 + b'"}'
    length = {"Content_Type": "application/json", "Content_Length": str(len(body))}
    async with Wire(service.url) as wire:
        await wire.send(head("POST", "/api/v1/chat/conversations", "u", **length))
        for start in range(0, len(body), 1000):
            await wire.send(body[start : start + 1000])
            await asyncio.sleep(0.1)
        assert (await wire.answer()).error["message"] == "Influencer not found"


async def test_nobody_gets_the_answer_of_a_request_that_came_later(service: Service) -> None:
    """The one in front is at work: the refusal of what follows would be taken for its answer."""
    async with Wire(service.url) as wire:
        await wire.send(head("GET", "/api/v1/influencers") + LIVE + b"GARBAGE\r\n\r\n")
        assert await wire.ended() == b""
    assert "Traceback" not in service.process.output


async def test_a_head_may_begin_right_behind_a_body(service: Service) -> None:
    body = b"a" * 100_000
    async with Wire(service.url) as wire:
        await wire.send(head("POST", "/api/v1/nothing", Content_Length=str(len(body))) + body + LIVE[:20])
        assert (await wire.answer()).status == 404
        await wire.send(LIVE[20:])
        assert (await wire.answer()).status == 200


async def test_an_offer_of_another_protocol_is_ignored(service: Service, api: Api) -> None:
    """Java's client offers HTTP/2 with its first request."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABkAAQAAP__"}
    body = b'{"influencer_id": "nobody"}'
    length = {"Content_Type": "application/json", "Content_Length": str(len(body))}
    async with Wire(service.url) as wire:
        for pieces in ((body,), (body[:5], body[5:])):
            first, *rest = pieces
            await wire.send(head("POST", "/api/v1/chat/conversations", api.user_id, **offer, **length) + first)
            for piece in rest:
                await wire.send(piece)
            assert (await wire.answer()).error["message"] == "Influencer not found"
        await wire.send(LIVE)
        assert (await wire.answer()).status == 200


async def test_a_socket_may_bring_the_longest_token(service: Service) -> None:
    token = "a" * 16_384
    for path, headers in (
        (f"/api/v1/chat/ws/inbox/u?token={token}", SOCKET),
        ("/api/v1/chat/ws/inbox/u", {**SOCKET, "Sec_WebSocket_Protocol": f"bearer, {token}"}),
    ):
        async with Wire(service.url) as wire:
            await wire.send(head("GET", path, **headers))
            assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            assert b"Invalid token format" in await wire.reader.read(100)


@pytest.mark.parametrize(
    ("status", "path", "changed"),
    [
        (431, "/api/v1/chat/ws/inbox/u", {f"X_{number}": "a" for number in range(200)}),
        (431, "/api/v1/chat/ws/inbox/u", {"X_Long": "a" * 50_000}),
        (414, "/api/v1/chat/ws/inbox/u?token=" + "a" * 30_000, {}),
        (400, "/api/v1/chat/ws/inbox/u", {"Sec_WebSocket_Version": "99"}),
        (400, "/api/v1/chat/ws/inbox/u", {"Sec_WebSocket_Key": "short"}),
        (400, "/api/v1/chat/ws/inbox/u", {"X_Odd": "a\x7fb"}),
    ],
)
async def test_a_handshake_that_cannot_be_is_refused_like_everything_else(
    service: Service, status: int, path: str, changed: dict[str, str]
) -> None:
    async with Wire(service.url) as wire:
        await wire.send(head("GET", path, **{**SOCKET, **changed}))
        answer = await wire.answer()
        assert (answer.status, answer.error["error"]) == (status, "bad_request")
        assert await wire.ended() == b""
