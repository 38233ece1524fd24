"""nginx as we ship it: TLS, protocols, what reaches the service and what comes back."""

import asyncio
import gzip
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from aiohttp import web

from tests.deploy.conftest import Visit
from tests.deploy.proxy import SHIPPED, Certificate, PrivateNginx
from tests.deploy.test_nginx_refusals import connected
from tests.deploy.upstream import Upstream
from tests.programs import nginx_binary, require


def test_the_shipped_configuration_is_valid(tmp_path: Path, certificate: Certificate) -> None:
    """As it is, but for the certificate that every installation brings."""
    binary = require("nginx", nginx_binary())
    require("the right to listen on port 443 (root)", True if os.geteuid() == 0 else None)
    folder = tmp_path / "nginx"
    shutil.copytree(SHIPPED, folder)
    tls = folder / "site" / "tls.conf"
    text = tls.read_text()
    for shipped, ours in (("fullchain.pem", certificate.file), ("privkey.pem", certificate.key)):
        line = f"/etc/letsencrypt/live/chat.example.org/{shipped}"
        assert line in text
        text = text.replace(line, str(ours))
    tls.write_text(text)
    done = subprocess.run(
        [binary, "-t", "-p", folder, "-c", folder / "nginx.conf", "-g", f"pid {tmp_path}/pid;"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


# --- TLS and protocols


async def test_http_is_sent_to_https(nginx: PrivateNginx, upstream: Upstream) -> None:
    async with httpx2.AsyncClient(base_url=nginx.plain_url) as client:
        for method in ("GET", "POST"):
            response = await client.request(method, "/api/v1/influencers?limit=1", headers={"Host": "evil.test"})
            assert response.status_code == 308
            assert response.headers["location"] == "https://localhost/api/v1/influencers?limit=1"
            assert response.headers["x-correlation-id"]
    assert upstream.seen == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_of_today_is_spoken(nginx: PrivateNginx, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=nginx.certificate.file)
    context.minimum_version = context.maximum_version = version
    async with httpx2.AsyncClient(base_url=nginx.url, verify=context) as client:
        response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_of_yesterday_is_not(nginx: PrivateNginx, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=nginx.certificate.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol|alert"):
        async with connected(nginx.tls_port, context):
            pass


@pytest.mark.parametrize(("offered", "spoken"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")])
async def test_http_2_is_offered(nginx: PrivateNginx, offered: list[str], spoken: str) -> None:
    context = ssl.create_default_context(cafile=nginx.certificate.file)
    context.set_alpn_protocols(offered)
    async with connected(nginx.tls_port, context) as (_, writer):
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == spoken


async def test_http_2_carries_a_request(nginx: PrivateNginx, upstream: Upstream) -> None:
    told = await curled(
        nginx, "--http2", "--write-out", "%{stderr}%{http_version}", "--data", "12345", f"{nginx.url}/a?b=c"
    )
    assert told == ("ok", "2")
    (seen,) = upstream.seen
    assert (seen.method, seen.target, seen.size) == ("POST", "/a?b=c", 5)


async def curled(nginx: PrivateNginx, *arguments: str) -> tuple[str, str]:
    """What curl writes to its outputs."""
    curl = require("curl", shutil.which("curl"))
    process = await asyncio.create_subprocess_exec(
        *(curl, "--silent", "--cacert", str(nginx.certificate.file), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode(), errors.decode()


# --- what reaches the service


async def test_the_service_sees_the_client_and_nothing_that_the_client_made_up(
    nginx: PrivateNginx, upstream: Upstream, visit: Visit
) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "gopher",
        "Forwarded": "for=203.0.113.9",
        "X-Correlation-ID": "mine",
        "Upgrade": "h2c",
        "Connection": "Upgrade",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    await visit(nginx).get("/api/v1/influencers", headers=forged)
    seen = upstream.seen[0].headers
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert not {"forwarded", "upgrade", "connection"} & seen.keys()
    assert seen["x-correlation-id"] == "mine"
    assert seen["traceparent"] == forged["traceparent"]
    assert seen["host"] == "localhost"


async def test_an_id_is_made_for_a_request_without_one_and_is_logged(
    nginx: PrivateNginx, upstream: Upstream, visit: Visit
) -> None:
    await visit(nginx).get("/media/a/b.png?exp=1&sig=secret")
    await visit(nginx).get("/api/v1/chat/ws/inbox/somebody?token=secret")
    await visit(nginx).get("/api/v1/influencers?limit=1")
    lines = [json.loads(line) for line in (await nginx.access_log(3)).splitlines()]
    assert [line["correlation_id"] for line in lines] == [seen.headers["x-correlation-id"] for seen in upstream.seen]
    assert [line["path"] for line in lines] == [
        "/media/{key}", "/api/v1/chat/ws/inbox/{user_id}", "/api/v1/influencers",
    ]  # fmt: skip
    assert {line["status"] for line in lines} == {200}


async def test_a_person_is_not_logged_however_the_address_is_written(nginx: PrivateNginx, upstream: Upstream) -> None:
    for path in ("/%61pi/v1/chat/ws/inbox/somebody", "//media/somebody/b.png", "/x/../media/somebody/b.png"):
        await curled(nginx, "--path-as-is", nginx.url + path)
    log = await nginx.access_log(3)
    assert len(log.splitlines()) == len(upstream.seen) == 3
    assert "somebody" not in log


async def test_no_log_of_a_service_that_is_down_tells_a_token(lonely: PrivateNginx, visit: Visit) -> None:
    """nginx puts whole request lines into its error log."""
    for path in ("/api/v1/chat/ws/inbox/somebody?token=secret", "/media/a/b.png?sig=secret"):
        assert (await visit(lonely).get(path)).status_code == 503
    await visit(lonely).get("/api/v1/influencers")
    assert "connect() failed" in lonely.error_log, "else nothing is shown here"
    logs = await lonely.access_log(3) + lonely.error_log
    assert "secret" not in logs
    assert "somebody" not in logs


async def test_the_longest_token_passes_in_a_header_and_in_an_address(
    nginx: PrivateNginx, upstream: Upstream, visit: Visit
) -> None:
    token = "t" * 16_384
    await visit(nginx).get("/", headers={"Authorization": f"Bearer {token}"})
    await visit(nginx).get(f"/api/v1/chat/ws/inbox/somebody?token={token}")
    assert upstream.seen[0].headers["authorization"] == f"Bearer {token}"
    assert upstream.seen[1].target.endswith(token)
    await curled(nginx, "--http2", "--header", f"Authorization: Bearer {token}", f"{nginx.url}/?token={token}")
    assert upstream.seen[2].headers["authorization"] == f"Bearer {token}"
    assert upstream.seen[2].target.endswith(token)


async def test_a_file_reaches_the_service_while_it_is_sent(
    nginx: PrivateNginx, upstream: Upstream, visit: Visit
) -> None:
    """The second half is sent when the service has the first."""
    half = b"x" * 300_000

    async def halves() -> AsyncIterator[bytes]:
        yield half
        seen = 0
        while seen < len(half):
            seen += len(await upstream.bodies.get())
        yield half

    headers = {"Content-Length": str(2 * len(half))}
    async with asyncio.timeout(30):
        response = await visit(nginx).post("/api/v1/media/upload", content=halves(), headers=headers)
    assert response.status_code == 200
    assert upstream.seen[0].size == 2 * len(half)


# --- what comes back


async def test_an_answer_passes_as_it_is(nginx: PrivateNginx, upstream: Upstream, visit: Visit) -> None:
    """Whatever its status: only nginx's own refusals are written by nginx."""
    headers = {"Cache-Control": "public, max-age=300", "ETag": '"abc"', "Retry-After": "7", "X-Accel-Buffering": "no"}
    for status in (200, 404, 413, 429, 500, 502, 503, 504):
        upstream.answer = web.Response(status=status, body=b'{"error": "of the service"}', headers=headers)
        response = await visit(nginx).get("/")
        assert (response.status_code, response.content) == (status, b'{"error": "of the service"}')
        assert {name: response.headers.get(name) for name in headers} == headers
        assert "x-correlation-id" not in response.headers, "the service gives it, once"


async def test_nothing_is_compressed_but_what_the_service_compressed(
    nginx: PrivateNginx, upstream: Upstream, visit: Visit
) -> None:
    page = b"the same words " * 1000
    upstream.answer = web.Response(body=page, content_type="text/html")
    plain = await visit(nginx).get("/", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    packed = gzip.compress(page)
    upstream.answer = web.Response(body=packed, content_type="text/html", headers={"Content-Encoding": "gzip"})
    async with visit(nginx).stream("GET", "/", headers={"Accept-Encoding": "gzip"}) as response:
        raw = b"".join([piece async for piece in response.aiter_raw()])
    assert raw == packed
