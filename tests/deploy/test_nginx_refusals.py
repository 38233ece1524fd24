"""What nginx refuses by itself has the one envelope and the headers of every answer (contract 1.3 and 2)."""

import asyncio
import json
import re
import shutil
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest

from tests.deploy.conftest import Visit
from tests.deploy.proxy import ORIGIN, PrivateNginx
from tests.deploy.upstream import Upstream
from tests.files import UPLOAD
from tests.programs import require
from tests.waiting import there, until
from yral_chat.middleware.headers import SafeHeaders

MEGABYTE = 1024 * 1024
UPLOAD_BYTES = 20 * MEGABYTE + 64 * 1024
CARD_BYTES = 10 * MEGABYTE + 64 * 1024
ADDRESS_LIMIT = 512


def refused(response: httpx2.Response, status: int, code: str) -> dict[str, object]:
    """Raises AssertionError unless it is this refusal, dressed as ours; returns the details."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"error", "message", "details", "correlation_id"}
    assert body["error"] == code
    assert body["message"]
    headers = response.headers
    assert headers["content-type"] == "application/json"
    assert headers["x-correlation-id"] == body["correlation_id"]
    assert re.fullmatch(r"\d+\.\d\d", headers["x-response-time-ms"])
    assert headers["x-api-version"] in ("v1", "v2", "v3")
    assert headers["x-content-type-options"] == "nosniff"
    for name, value in SafeHeaders().of("/api"):  # `no-store` is one of them
        assert headers[name.decode()] == value.decode()
    assert headers["server"] == "nginx", "no version"
    assert ("retry-after" in headers) == (status in (429, 503))
    details: dict[str, object] = body["details"]
    return details


async def raw(nginx: PrivateNginx, request: bytes, *, is_plain: bool = False) -> httpx2.Response:
    """The answer to bytes that no client would send."""
    tls = None if is_plain else nginx.certificate.context
    port = nginx.plain_port if is_plain else nginx.tls_port
    async with connected(port, tls) as (reader, writer):
        writer.write(request)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().split("\r\n")
        headers = {name: value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        content = await reader.readexactly(int(headers["Content-Length"]))
        return httpx2.Response(int(head[0].split()[1]), headers=headers, content=content)


@asynccontextmanager
async def connected(
    port: int, tls: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to nginx."""
    name = "localhost" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_a_service_that_is_down_is_unavailable(lonely: PrivateNginx, visit: Visit) -> None:
    response = await visit(lonely).post("/api/v2/chat/conversations?token=secret", json={})
    assert refused(response, 503, "service_unavailable") == {"service": "api"}
    assert response.headers["x-api-version"] == "v2"
    assert uuid.UUID(response.headers["x-correlation-id"]).version == 4
    assert response.headers["vary"] == "Origin"
    assert response.headers["strict-transport-security"] == "max-age=31536000"
    assert "access-control-allow-origin" not in response.headers
    log = await lonely.access_log(1)
    assert "secret" not in log
    (line,) = map(json.loads, log.splitlines())
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/v2/chat/conversations", 503)


@pytest.mark.parametrize(("given", "is_kept"), [("req-1.A_b", True), ("x" * 129, False), ("no spaces", False)])
async def test_a_correlation_id_is_kept_when_it_is_one(
    lonely: PrivateNginx, visit: Visit, given: str, is_kept: bool
) -> None:
    response = await visit(lonely).get("/api/v1/influencers", headers={"X-Correlation-ID": given})
    refused(response, 503, "service_unavailable")
    assert (response.headers["x-correlation-id"] == given) == is_kept


async def test_pages_of_listed_origins_can_read_a_refusal(lonely: PrivateNginx, visit: Visit) -> None:
    response = await visit(lonely).get("/", headers={"Origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "X-Correlation-ID" in response.headers["access-control-expose-headers"]
    other = await visit(lonely).get("/", headers={"Origin": "https://elsewhere.test"})
    assert not [name for name in other.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/api/v1/chat/conversations/c/messages", MEGABYTE),
        ("/api/v1/media/upload", UPLOAD_BYTES),
        ("/api/v1/media/upload/", UPLOAD_BYTES),
        ("/api/v1/influencers/import", CARD_BYTES),
        ("/api/v1/influencers/import/", CARD_BYTES),
    ],
)
async def test_a_body_up_to_the_limit_of_its_route_passes_and_one_byte_more_is_refused(
    nginx: PrivateNginx, upstream: Upstream, visit: Visit, path: str, limit: int
) -> None:
    client = visit(nginx)
    response = await client.post(path, content=bytes(limit))
    assert response.status_code == 200, response.text
    assert upstream.seen.pop().size == limit
    too_large = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), limit + 1)
    assert refused(await raw(nginx, too_large), 413, "payload_too_large") == {"limit": limit, "unit": "bytes"}
    assert upstream.seen == [], "the service has not heard of it"


@pytest.mark.parametrize(("path", "limit"), [("/api/v1/chat/conversations", MEGABYTE), (UPLOAD, UPLOAD_BYTES)])
async def test_too_large_a_body_over_http_2_is_refused_in_the_same_way(
    nginx: PrivateNginx, upstream: Upstream, path: str, limit: int
) -> None:
    response = await over_http_2(nginx, path, bytes(limit + 1))
    assert refused(response, 413, "payload_too_large") == {"limit": limit, "unit": "bytes"}
    assert upstream.seen == []


async def over_http_2(nginx: PrivateNginx, path: str, body: bytes) -> httpx2.Response:
    curl = await asyncio.create_subprocess_exec(
        *(require("curl", shutil.which("curl")), "--silent", "--http2", "--include", "--data-binary", "@-"),
        *("--cacert", str(nginx.certificate.file), nginx.url + path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await curl.communicate(body)
    head, _, content = output.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    protocol, status = first.split()
    assert protocol == "HTTP/2"
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return httpx2.Response(int(status), headers=headers, content=content)


async def test_a_body_of_unannounced_length_is_counted(nginx: PrivateNginx, upstream: Upstream, visit: Visit) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield bytes(64 * 1024)

    refused(await visit(nginx).post("/api/v1/chat/conversations", content=pieces()), 413, "payload_too_large")
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 21_000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Many: %s\r\n" % (b"x" * 10_000) * 9 + b"\r\n", 400),
        (b"GET /" + b"x" * 21_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400),
    ],
    ids=["nonsense", "no host", "length", "encoding", "two lengths", "long header", "many headers", "long line", "9.9"],
)
async def test_what_cannot_be_read_is_a_bad_request(
    nginx: PrivateNginx, upstream: Upstream, request_bytes: bytes, status: int
) -> None:
    refused(await raw(nginx, request_bytes), status, "bad_request")
    assert upstream.seen == []


async def test_http_on_the_tls_port_is_a_bad_request(nginx: PrivateNginx) -> None:
    async with connected(nginx.tls_port, None) as (reader, writer):
        writer.write(b"GET /?token=secret HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"error":"bad_request"' in answer


async def test_trace_is_not_allowed(nginx: PrivateNginx, visit: Visit) -> None:
    response = await visit(nginx).request("TRACE", "/api/v1/influencers")
    refused(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


async def test_the_error_pages_are_no_paths(nginx: PrivateNginx, visit: Visit) -> None:
    for path in ("/-/503", "/-/413/7", "/-/else"):
        refused(await visit(nginx).get(path), 404, "not_found")


async def test_a_proof_that_is_not_there_is_not_found(nginx: PrivateNginx) -> None:
    request = b"GET /.well-known/acme-challenge/absent HTTP/1.1\r\nHost: localhost\r\n\r\n"
    response = await raw(nginx, request, is_plain=True)
    refused(response, 404, "not_found")
    assert "strict-transport-security" not in response.headers


async def test_one_address_holds_so_many_requests_at_once_and_others_are_refused(
    nginx: PrivateNginx, upstream: Upstream, visit: Visit
) -> None:
    """As many as are open, over however many connections: HTTP/2 puts a hundred into one."""
    upstream.is_silent = True
    command = (
        *(require("curl", shutil.which("curl")), "--silent", "--http2", "--parallel", "--parallel-max", "300"),
        *("--cacert", str(nginx.certificate.file), f"{nginx.url}/[1-{ADDRESS_LIMIT // 2}]"),
    )
    clients = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL) for _ in range(2)]
    try:
        await until(there(lambda: upstream.waiting == ADDRESS_LIMIT), what="all of them", seconds=60)
        details = refused(await visit(nginx).get("/api/v1/influencers"), 429, "rate_limit_exceeded")
        assert details == {"limit_type": "connections", "limit": ADDRESS_LIMIT, "retry_after": 5}
    finally:
        for process in clients:
            process.kill()
            await process.wait()
    upstream.is_silent = False

    async def is_welcome() -> bool:
        return (await visit(nginx).get("/api/v1/influencers")).status_code == 200

    await until(is_welcome, what="room again")


@pytest.mark.long
async def test_clients_that_are_slow_with_their_request_are_cut(nginx: PrivateNginx, upstream: Upstream) -> None:
    """Ten seconds of silence, in the headers or in a body that the service waits for or not."""
    beginnings = (
        b"GET / HTTP/1.1\r\nHost: loc",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf",
        b"POST /api/v1/media/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf",
    )

    async def left_alone(beginning: bytes) -> None:
        async with connected(nginx.tls_port, nginx.certificate.context) as (reader, writer):
            writer.write(beginning)
            with suppress(ConnectionError):  # cut all the same
                assert await asyncio.wait_for(reader.read(), 60) == b""

    await asyncio.gather(*map(left_alone, beginnings))
    assert all(seen.target != "/" for seen in upstream.seen), "it hears of whole bodies only"
