"""Bodies are bounded before they are read, and while they are."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.middleware.application import Gates, application, client_of, serving
from yral_chat.core.metrics import Metrics
from yral_chat.middleware.limits import (
    MAX_BODY_BYTES,
    MAX_PATH_BYTES,
    MAX_QUERY_BYTES,
    MAX_QUERY_PARAMETERS,
    BodyLimitMiddleware,
)

pytestmark = pytest.mark.usefixtures("lines")

REFUSAL = {"limit": MAX_BODY_BYTES, "unit": "bytes"}


async def pieces(total: int, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, total, size):
        yield b"x" * min(size, total - start)


def assert_refused(response: httpx2.Response, limit: int = MAX_BODY_BYTES) -> None:
    assert response.status_code == 413
    body = response.json()
    assert body["error"] == "payload_too_large"
    assert body["details"] == {"limit": limit, "unit": "bytes"}
    assert body["correlation_id"] == response.headers["x-correlation-id"]


async def test_one_mebibyte_is_read_and_one_byte_more_is_not(client: httpx2.AsyncClient) -> None:
    assert MAX_BODY_BYTES == 1_048_576
    response = await client.post("/raw", content=b"x" * MAX_BODY_BYTES)
    assert response.json() == {"bytes": MAX_BODY_BYTES}
    assert_refused(await client.post("/raw", content=b"x" * (MAX_BODY_BYTES + 1)))


async def test_a_body_without_length_is_counted_while_it_is_read(client: httpx2.AsyncClient) -> None:
    response = await client.post("/raw", content=pieces(MAX_BODY_BYTES))
    assert response.json() == {"bytes": MAX_BODY_BYTES}
    assert_refused(await client.post("/raw", content=pieces(MAX_BODY_BYTES + 1)))


async def test_a_json_route_refuses_in_the_same_way(client: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert_refused(await client.post("/items", content=pieces(MAX_BODY_BYTES + 1), headers=headers))


async def test_an_announced_length_is_refused_before_a_byte_of_the_body(app: FastAPI) -> None:
    async with serving(app) as address, asyncio.timeout(10):
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /raw HTTP/1.1\r\nHost: test\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
        writer.close()
        await writer.wait_closed()


async def test_the_connection_lives_on_after_a_refusal(app: FastAPI) -> None:
    async with serving(app) as address, httpx2.AsyncClient(base_url=f"http://{address}") as client:
        assert_refused(await client.post("/raw", content=b"x" * (MAX_BODY_BYTES + 1)))
        assert_refused(await client.post("/raw", content=pieces(3 * MAX_BODY_BYTES)))
        assert (await client.get("/health/live")).status_code == 200


async def test_the_longest_prefix_decides(metrics: Metrics, gates: Gates) -> None:
    client = client_of(application(metrics, gates, by_prefix={"/r": 10, "/raw": 20}))
    assert (await client.post("/raw", content=b"x" * 20)).status_code == 200
    assert_refused(await client.post("/raw", content=b"x" * 21), limit=20)
    assert_refused(await client.post("/raw", content=pieces(21, 7)), limit=20)


async def test_the_headers_of_every_response_are_on_the_refusal(client: httpx2.AsyncClient) -> None:
    response = await client.post(
        "/raw", content=b"x" * (MAX_BODY_BYTES + 1), headers={"Origin": "https://page.example"}
    )
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    assert response.headers["cache-control"] == "no-store"


async def test_an_application_without_error_handlers_is_protected_too() -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await PlainTextResponse(str(len(body)))(scope, receive, send)

    transport = httpx2.ASGITransport(app=BodyLimitMiddleware(bare, max_bytes=10))
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
        assert (await client.post("/", content=pieces(10, 3))).text == "10"
        response = await client.post("/", content=pieces(11, 3))
        assert (response.status_code, response.json()["details"]) == (413, {"limit": 10, "unit": "bytes"})


@pytest.mark.parametrize("length", ["-1", "1_0", "+5", "", "five"])
async def test_an_odd_length_is_not_believed(length: str) -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await PlainTextResponse("read")(scope, receive, send)

    sent: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"x" * 11, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if isinstance(status := message.get("status"), int):
            sent.append(status)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", length.encode())]}
    await BodyLimitMiddleware(bare, max_bytes=10)(scope, receive, send)  # type: ignore[arg-type]  # plain dicts
    assert sent == [413]


# --- addresses


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        (f"limit=1&a={'x' * (MAX_QUERY_BYTES - 10)}", None),
        (f"limit=1&a={'x' * (MAX_QUERY_BYTES - 9)}", "query_too_long"),
        ("limit=1&" * (MAX_QUERY_PARAMETERS - 1) + "limit=1", None),
        ("limit=1&" * MAX_QUERY_PARAMETERS + "limit=1", "too_many_parameters"),
        ("&" * MAX_QUERY_BYTES, "too_many_parameters"),
        ("%00" * 10_000, "query_too_long"),
    ],
)
async def test_a_query_is_bounded_before_it_is_read(client: httpx2.AsyncClient, query: str, kind: str | None) -> None:
    response = await client.get(f"/items?{query}")
    assert response.status_code == (200 if kind is None else 422)
    if kind is not None:
        (error,) = response.json()["details"]["errors"]
        assert (error["type"], error["loc"]) == (kind, ["query"])
        assert response.json()["correlation_id"] == response.headers["x-correlation-id"]


@pytest.mark.parametrize("path", ["/" + "a" * MAX_PATH_BYTES, "/a" * MAX_PATH_BYTES, "/" + "%00" * MAX_PATH_BYTES])
async def test_a_path_longer_than_any_of_ours_is_unknown(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.post(path, content=pieces(MAX_BODY_BYTES + 1))
    assert (response.status_code, response.json()["error"]) == (404, "not_found")
