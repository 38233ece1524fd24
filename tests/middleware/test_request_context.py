"""What is true of every response, whatever made it."""

import asyncio
import re

import httpx2
import pytest
import websockets
from fastapi import FastAPI

from tests.middleware.application import PAGE, Gates, application, client_of, serving
from tests.middleware.conftest import LogLines
from yral_chat.core.logging import hashed
from yral_chat.core.metrics import Metrics

pytestmark = pytest.mark.usefixtures("lines")

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# One request for every way in which a response comes about.
EVERY_KIND = [
    ("GET", "/", 200),
    ("GET", "/nowhere", 404),
    ("PUT", "/items", 405),
    ("GET", "/unauthorized", 401),
    ("GET", "/forbidden", 403),
    ("GET", "/items?limit=many", 422),
    ("POST", "/items", 422),
    ("GET", "/broken", 500),
    ("GET", "/stream", 200),
    ("GET", "/static/application.py", 200),
    ("HEAD", "/", 200),
    ("HEAD", "/items", 405),
    ("OPTIONS", "/items", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), EVERY_KIND)
async def test_every_response_has_the_common_headers(
    client: httpx2.AsyncClient, gates: Gates, method: str, path: str, status: int
) -> None:
    gates.next_chunk.set()
    response = await client.request(method, path, headers={"Origin": PAGE, "X-Correlation-ID": "my-id.1"})
    assert response.status_code == status
    assert response.headers.get_list("x-correlation-id") == ["my-id.1"]
    assert response.headers["x-api-version"] == "v1"
    assert re.fullmatch(r"\d+\.\d\d", response.headers["x-response-time-ms"])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["access-control-allow-credentials"] == "true"
    if status >= 400 and method != "HEAD":
        assert response.json()["correlation_id"] == "my-id.1"
        assert ("detail" in response.json()) == (status in (401, 403))


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "id\u00e9", "a/b", "a\tb"])
async def test_an_unfit_correlation_id_is_replaced_by_a_uuid(client: httpx2.AsyncClient, given: str | None) -> None:
    headers = {} if given is None else {b"X-Correlation-ID": given.encode()}
    response = await client.get("/nowhere", headers=headers)
    assert UUID.fullmatch(response.headers["x-correlation-id"])
    assert response.json()["correlation_id"] == response.headers["x-correlation-id"]


@pytest.mark.parametrize("given", ["a", "x" * 128, "A-Z_0.9"])
async def test_a_fit_correlation_id_comes_back_and_reaches_the_route(client: httpx2.AsyncClient, given: str) -> None:
    response = await client.get("/context", headers={"X-Correlation-ID": given})
    assert response.headers["x-correlation-id"] == given
    assert response.json() == {"state": given, "variable": given}


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/api/v1/thing", "v1"),
        ("/api/v2/thing", "v2"),
        ("/api/v3/thing", "v3"),
        ("/api/v2", "v2"),
        ("/api/v22/thing", "v1"),
        ("/health/live", "v1"),
        ("/x/api/v2/thing", "v1"),
    ],
)
async def test_the_version_follows_the_path_and_nothing_else(
    client: httpx2.AsyncClient, path: str, version: str
) -> None:
    response = await client.get(path, headers={"X-API-Version": "v9"})
    assert response.headers["x-api-version"] == version


async def test_a_route_may_say_how_it_is_cached(client: httpx2.AsyncClient) -> None:
    response = await client.get("/api/v1/influencers")
    assert response.headers.get_list("cache-control") == ["public, max-age=300"]


@pytest.mark.parametrize("path", ["/items/", "/items/a/", "/api/v1/influencers/", "/health/live/"])
async def test_one_trailing_slash_is_the_same_route(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200
    assert (await client.get(path + "/")).status_code == 404


# ---- HEAD

HEAD_ROUTES = [
    "/",
    "/health/live",
    "/media/a/b.png",
    "/static/application.py",
    "/api/v1/influencers",
    "/api/v1/influencers/ada",
]


@pytest.mark.parametrize("path", HEAD_ROUTES)
async def test_head_is_get_without_the_body(app: FastAPI, lines: LogLines, path: str) -> None:
    async with serving(app) as address, httpx2.AsyncClient(base_url=f"http://{address}") as client:
        got = await client.get(path)
        response = await client.head(path)
        assert response.status_code == got.status_code == 200
        assert response.content == b""
        for name in ("content-type", "content-length", "content-encoding", "cache-control"):
            assert response.headers.get(name) == got.headers.get(name)
        # A body sent by mistake would be read as the beginning of this answer.
        assert (await client.get("/health/live")).json() == {"status": "alive"}
    [line] = [line for line in lines.of("request.finished") if line["method"] == "HEAD"]
    assert line["bytes"] == 0


async def test_head_tells_of_failures_too(client: httpx2.AsyncClient) -> None:
    response = await client.head("/api/v1/influencers/nobody")
    assert (response.status_code, response.content) == (404, b"")


@pytest.mark.parametrize("path", ["/items", "/api/v1/influencers/ada/card", "/api/v1/thing"])
async def test_head_is_not_for_other_routes(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.head(path)
    assert response.status_code == 405
    assert "HEAD" not in response.headers["allow"]


async def test_allow_names_head_where_it_works(client: httpx2.AsyncClient) -> None:
    response = await client.delete("/api/v1/influencers/ada")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, POST"


# ---- failures


async def test_an_unhandled_exception_is_one_envelope_and_one_traceback(
    client: httpx2.AsyncClient, lines: LogLines
) -> None:
    response = await client.get("/broken")
    body = response.json()
    assert response.status_code == 500
    assert body["error"] == "internal_server_error"
    assert body["details"] == {}
    assert "secret" not in response.text
    [failure] = lines.of("request.failed")
    # The line of code is there, the text of somebody else's exception is not: it may be what a person wrote.
    assert failure["exception"].endswith('raise RuntimeError("secret detail of the inside")\nRuntimeError\n')
    assert failure["correlation_id"] == body["correlation_id"]
    assert [line["level"] for line in lines.of("request.finished")] == ["WARNING"]


async def test_a_misshapen_answer_is_logged_without_its_content(client: httpx2.AsyncClient, lines: LogLines) -> None:
    response = await client.get("/misshapen")
    assert (response.status_code, response.json()["error"]) == (500, "internal_server_error")
    [failure] = lines.of("request.failed")
    assert failure["exception"] == "ResponseValidationError"
    assert failure["problems"] == ["int_parsing at response.0.numbers.0"]
    assert not any(b"secret thought" in line or b"of somebody" in line for line in lines.written)


async def test_a_failure_after_the_headers_cuts_the_connection(app: FastAPI, lines: LogLines) -> None:
    async with serving(app) as address, httpx2.AsyncClient(base_url=f"http://{address}") as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/breaking")
    assert sum(b"in the middle" in line for line in lines.written) == 1
    assert lines.of("request.finished")[0]["bytes"] == 2000


# ---- streams


async def test_streams_are_neither_held_back_nor_compressed(app: FastAPI, gates: Gates) -> None:
    async with serving(app) as address, httpx2.AsyncClient(base_url=f"http://{address}") as client:
        response = await client.send(client.build_request("GET", "/stream"), stream=True)
        assert "content-encoding" not in response.headers
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"data: first\n\n"
        gates.next_chunk.set()  # only now may the second chunk be made
        assert await anext(chunks) == b"data: second\n\n"
        await response.aclose()


async def test_a_client_that_leaves_a_stream_is_no_failure(app: FastAPI, gates: Gates, lines: LogLines) -> None:
    async with serving(app) as address:
        async with httpx2.AsyncClient(base_url=f"http://{address}") as client, client.stream("GET", "/stream"):
            pass
        async with asyncio.timeout(10):
            await gates.has_ended.wait()
    assert lines.of("request.failed") == []
    assert [line["status"] for line in lines.of("request.finished")] == [200]
    assert [line for line in lines.written if b'"ERROR"' in line] == []


async def test_a_client_that_leaves_its_body_unfinished_is_no_failure(app: FastAPI, lines: LogLines) -> None:
    async with serving(app) as address:
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /raw HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nabc")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await lines.was_written("request.finished")
    assert lines.of("request.failed") == []
    assert [(line["endpoint"], line["status"]) for line in lines.of("request.finished")] == [("/raw", 499)]
    assert [line for line in lines.written if b'"ERROR"' in line] == []


async def test_a_cancelled_request_is_accounted_for(
    client: httpx2.AsyncClient, metrics: Metrics, gates: Gates, lines: LogLines
) -> None:
    call = asyncio.create_task(client.get("/stream"))
    await gates.has_begun.wait()
    assert b"http_requests_in_progress 1.0" in metrics.render()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert b"http_requests_in_progress 0.0" in metrics.render()
    assert len(lines.of("request.finished")) == 1


# ---- compression


async def test_long_answers_are_compressed_and_short_ones_not(client: httpx2.AsyncClient) -> None:
    long = await client.get("/api/v1/influencers", headers={"Accept-Encoding": "gzip"})
    assert long.headers["content-encoding"] == "gzip"
    assert long.json() == ["a persona"] * 500
    assert "content-encoding" not in (await client.get("/health/live", headers={"Accept-Encoding": "gzip"})).headers


async def test_what_is_encoded_already_is_left_alone(app: FastAPI) -> None:
    async with (
        client_of(app) as client,
        client.stream("GET", "/encoded", headers={"Accept-Encoding": "gzip"}) as response,
    ):
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert raw == b"\x1f\x8b" + b"0" * 4000
    assert response.headers.get_list("content-encoding") == ["gzip"]


# ---- log and metrics


async def test_the_access_log_names_the_route_and_never_the_query(client: httpx2.AsyncClient, lines: LogLines) -> None:
    await client.get("/context?token=secret-token", headers={"X-Correlation-ID": "c1"})
    [line] = lines.of("request.finished")
    assert line.pop("duration_ms") >= 0
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "event": "request.finished",
        "correlation_id": "c1",
        "method": "GET",
        "endpoint": "/context",
        "status": 200,
        "bytes": len(b'{"state":"c1","variable":"c1"}'),
        "user": hashed("user-1"),
    }
    assert not any(b"secret-token" in written or b"user-1" in written for written in lines.written)


async def test_the_access_log_names_the_error(client: httpx2.AsyncClient, lines: LogLines) -> None:
    await client.get("/api/v1/influencers/nobody")
    assert [line["error"] for line in lines.of("request.finished")] == ["not_found"]


async def test_probes_are_logged_quietly(client: httpx2.AsyncClient, lines: LogLines) -> None:
    await client.get("/health/live")
    assert [line["level"] for line in lines.of("request.finished")] == ["DEBUG"]


@pytest.mark.parametrize(
    ("method", "path", "endpoint", "status"),
    [
        ("GET", "/items/abc", "/items/{item_id}", 200),
        ("GET", "/api/v1/influencers/ada/card", "/api/v1/influencers/{influencer_id}/card", 200),
        ("GET", "/api/v1/thing", "/api/v1/thing", 200),
        ("GET", "/api/v2/thing", "/api/v2/thing", 200),
        ("GET", "/api/v3/thing", "/api/v3/thing", 200),
        ("HEAD", "/api/v1/influencers/ada", "/api/v1/influencers/{influencer_id}", 200),
        ("GET", "/media/a/b/c", "/media/{key}", 200),
        ("GET", "/static/application.py", "/static/{path}", 200),
        ("DELETE", "/items", "/items", 405),
        ("GET", "/nowhere/at/all", "unmatched", 404),
        ("GET", "/broken", "/broken", 500),
        ("GET", "/openapi.json", "/openapi.json", 200),
    ],
)
async def test_metrics_count_by_route_template(
    client: httpx2.AsyncClient, metrics: Metrics, method: str, path: str, endpoint: str, status: int
) -> None:
    await client.request(method, path)
    series = f'http_requests_total{{endpoint="{endpoint}",method="{method}",status_code="{status}"}} 1.0'
    assert series in metrics.render().decode()


# ---- CORS


async def test_a_preflight_is_answered_with_everything_the_page_may_do(client: httpx2.AsyncClient) -> None:
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization, x-anything",
    }
    response = await client.options("/items", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-max-age"] == "600"
    assert response.headers["access-control-allow-headers"] == "authorization, x-anything"
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        assert method in response.headers["access-control-allow-methods"].split(", ")
    assert response.headers["x-correlation-id"]


async def test_a_refused_preflight_is_the_envelope(client: httpx2.AsyncClient) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    response = await client.options("/items", headers=headers)
    assert (response.status_code, response.json()["error"]) == (400, "bad_request")
    assert int(response.headers["content-length"]) == len(response.content)
    assert "access-control-allow-origin" not in response.headers


async def test_caches_are_told_that_the_origin_matters_even_without_one(client: httpx2.AsyncClient) -> None:
    plain = await client.get("/api/v1/influencers")
    assert "Origin" in plain.headers["vary"]
    assert "Accept-Encoding" in plain.headers["vary"]
    assert "access-control-expose-headers" not in plain.headers
    assert "Origin" in (await client.get("/api/v1/influencers", headers={"Origin": PAGE})).headers["vary"]
    assert "Origin" in (await client.get("/broken")).headers["vary"]


async def test_another_origin_gets_the_answer_but_no_permission(client: httpx2.AsyncClient) -> None:
    response = await client.get("/", headers={"Origin": "https://evil.example"})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


async def test_a_star_never_goes_with_credentials(metrics: Metrics, gates: Gates) -> None:
    client = client_of(application(metrics, gates, cors_origins="*"))
    for response in (
        await client.get("/", headers={"Origin": PAGE, "Cookie": "a=b"}),
        await client.options("/", headers={"Origin": PAGE, "Access-Control-Request-Method": "GET"}),
    ):
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers


async def test_scripts_may_read_our_headers(client: httpx2.AsyncClient) -> None:
    exposed = (await client.get("/", headers={"Origin": PAGE})).headers["access-control-expose-headers"].split(", ")
    assert {
        "X-Correlation-ID",
        "Retry-After",
        "ETag",
        "Idempotency-Replayed",
        "RateLimit",
        "X-Response-Time-Ms",
    } <= set(exposed)


# ---- WebSockets


async def test_a_socket_has_its_correlation_id_and_is_counted(app: FastAPI, metrics: Metrics, lines: LogLines) -> None:
    async with serving(app) as address:
        uri = f"ws://{address}/ws/inbox/user-7/?token=secret-token"
        async with websockets.connect(uri, additional_headers={"X-Correlation-ID": "sock-1"}) as socket:
            assert await socket.recv() == "user-7 sock-1 sock-1"
            assert socket.response is not None
            assert socket.response.headers["X-Correlation-ID"] == "sock-1"
            assert b"ws_connections 1.0" in metrics.render()
            await socket.send("bye")
            await socket.wait_closed()
            assert socket.close_code == 4001
    assert b"ws_connections 0.0" in metrics.render()
    [line] = lines.of("websocket.finished")
    assert (line["endpoint"], line["close_code"], line["correlation_id"]) == ("/ws/inbox/{user_id}", 4001, "sock-1")
    assert not any(b"secret-token" in written for written in lines.written)


async def test_a_client_that_closes_its_socket_is_no_failure(app: FastAPI, metrics: Metrics, lines: LogLines) -> None:
    async with serving(app) as address, websockets.connect(f"ws://{address}/ws/inbox/user-7") as socket:
        await socket.recv()
    assert lines.of("websocket.failed") == []
    assert b"ws_connections 0.0" in metrics.render()


async def test_a_failing_socket_closes_with_1011_and_is_logged_once(app: FastAPI, lines: LogLines) -> None:
    async with serving(app) as address, websockets.connect(f"ws://{address}/ws/broken-socket") as socket:
        await socket.wait_closed()
        assert socket.close_code == 1011
        assert socket.close_reason == ""
    assert sum(b"secret detail of the socket" in line for line in lines.written) == 1


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nowhere", 404, "not_found"),
        ("/ws/refused-socket", 403, "forbidden"),
        ("/ws/broken-handshake", 500, "internal_server_error"),
    ],
)
async def test_a_refused_handshake_is_the_envelope(app: FastAPI, path: str, status: int, code: str) -> None:
    async with serving(app) as address:
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(f"ws://{address}{path}", additional_headers={"X-Correlation-ID": "sock-2"})
    response = caught.value.response
    assert response.status_code == status
    assert response.headers["X-Correlation-ID"] == "sock-2"
    assert f'"error":"{code}"'.encode() in (response.body or b"")
