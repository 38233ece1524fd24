"""The OpenAPI document says what the contract says (section 19), and every answer has the headers of section 1.3."""

import re
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from tests.api.expecting import open_fresh
from tests.client import Api, Document, Json, messages
from tests.service import FakeModel, Service

C = "/api/v1/chat/conversations"
M = f"{C}/{{conversation_id}}/messages"
H = "/api/v1/chat/human/conversations"
I = "/api/v1/influencers"  # noqa: E741 - as C and M
A = "/api/v1/admin/influencers"
NONE: list[Json] = []
TOKEN: list[Json] = [{"HTTPBearer": []}]
OPTIONAL: list[Json] = [{"HTTPBearer": []}, {}]
ADMIN: list[Json] = [{"APIKeyHeader": []}]
OPERATOR: list[Json] = [{"HTTPBearer": []}, {"APIKeyHeader": []}]

# Method, path, security, statuses that the contract names beside the success and 500.
ROUTES: list[tuple[str, str, list[Json], set[int]]] = [
    ("GET", "/", NONE, set()),
    ("GET", "/health", NONE, {503}),
    ("GET", "/health/live", NONE, set()),
    ("GET", "/health/ready", NONE, {503}),
    ("GET", "/status", OPERATOR, {401, 503}),
    ("GET", "/metrics", OPERATOR, {401, 503}),
    ("GET", "/api/v1/auth/me", TOKEN, {401, 429, 503}),
    ("POST", "/api/v1/auth/dev-token", NONE, {404, 413, 422, 429, 503}),
    ("POST", C, TOKEN, {401, 404, 413, 422, 429, 503}),
    ("GET", C, TOKEN, {401, 422, 429, 503}),
    ("GET", "/api/v2/chat/conversations", TOKEN, {401, 403, 422, 429, 503}),
    ("GET", "/api/v3/chat/conversations", TOKEN, {401, 422, 429, 503}),
    ("GET", H, TOKEN, {401, 422, 429, 503}),
    ("POST", H, TOKEN, {401, 413, 422, 429, 503}),
    ("POST", f"{H}/{{conversation_id}}/messages", TOKEN, {401, 403, 404, 409, 413, 422, 429, 503}),
    ("GET", f"{C}/{{conversation_id}}", TOKEN, {401, 403, 404, 429, 503}),
    ("DELETE", f"{C}/{{conversation_id}}", TOKEN, {401, 403, 404, 429, 503}),
    ("GET", M, TOKEN, {401, 403, 404, 422, 429, 503}),
    ("POST", M, TOKEN, {401, 403, 404, 409, 413, 422, 429, 503, 504}),
    ("POST", f"{M}/stream", TOKEN, {401, 403, 404, 409, 413, 422, 429, 503}),
    ("GET", f"{M}/{{message_id}}/stream", TOKEN, {401, 403, 404, 409, 429, 503}),
    ("POST", f"{M}/{{message_id}}/regenerate", TOKEN, {401, 403, 404, 409, 422, 429, 503, 504}),
    ("POST", f"{M}/{{message_id}}/cancel", TOKEN, {401, 403, 404, 409, 429, 503}),
    ("POST", f"{C}/{{conversation_id}}/read", TOKEN, {401, 403, 404, 429, 503}),
    ("POST", f"{C}/{{conversation_id}}/images", TOKEN, {401, 403, 404, 409, 413, 422, 429, 503, 504}),
    ("GET", f"{C}/{{conversation_id}}/memories", TOKEN, {401, 403, 404, 409, 429, 503}),
    ("DELETE", f"{C}/{{conversation_id}}/memories", TOKEN, {401, 403, 404, 409, 429, 503}),
    ("DELETE", f"{C}/{{conversation_id}}/memories/{{key}}", TOKEN, {401, 403, 404, 409, 429, 503}),
    ("GET", "/api/v1/users/me/export", TOKEN, {401, 429, 503}),
    ("DELETE", "/api/v1/users/me", TOKEN, {401, 429, 503}),
    ("GET", "/api/v1/users/me/settings", TOKEN, {401, 429, 503}),
    ("PUT", "/api/v1/users/me/settings", TOKEN, {401, 413, 422, 429, 503}),
    ("GET", "/api/v1/users/me/usage", TOKEN, {401, 422, 429, 503}),
    ("POST", "/api/v1/media/upload", TOKEN, {400, 401, 413, 415, 422, 429, 503}),
    ("GET", "/media/public/{key}", NONE, {404, 503}),
    ("GET", "/media/{key}", NONE, {403, 404, 416, 503}),
    ("GET", "/api/v1/chat/ws/docs", NONE, set()),
    ("GET", "/v1/models", TOKEN, {401, 429, 503}),
    ("POST", "/v1/chat/completions", TOKEN, {401, 403, 404, 409, 413, 422, 429, 503, 504}),
    ("GET", "/api/v1/influencers", OPTIONAL, {422, 429, 503}),
    ("GET", "/api/v1/influencers/trending", OPTIONAL, {422, 429, 503}),
    ("GET", "/api/v1/influencers/{influencer_id}", OPTIONAL, {404, 429, 503}),
    ("POST", f"{I}/generate-prompt", TOKEN, {401, 413, 422, 429, 503, 504}),
    ("POST", f"{I}/validate-and-generate-metadata", TOKEN, {401, 413, 422, 429, 503, 504}),
    ("POST", f"{I}/create", TOKEN, {401, 403, 409, 413, 422, 429, 503}),
    ("POST", f"{I}/import", TOKEN, {400, 401, 403, 409, 413, 415, 422, 429, 503}),
    ("PATCH", f"{I}/{{influencer_id}}/system-prompt", TOKEN, {401, 403, 404, 413, 422, 429, 503}),
    ("GET", f"{I}/{{influencer_id}}/versions", TOKEN, {401, 403, 404, 429, 503}),
    ("POST", f"{I}/{{influencer_id}}/versions/{{n}}/restore", TOKEN, {401, 403, 404, 422, 429, 503}),
    ("DELETE", f"{I}/{{influencer_id}}", TOKEN, {401, 403, 404, 429, 503}),
    ("POST", f"{I}/{{influencer_id}}/generate-video-prompt", TOKEN, {401, 403, 404, 413, 422, 429, 503, 504}),
    ("GET", f"{I}/{{influencer_id}}/card", TOKEN, {401, 403, 404, 422, 429, 503}),
    ("POST", f"{A}/{{id_or_name}}", ADMIN, {401, 404, 413, 422, 429, 503}),
    ("DELETE", f"{A}/{{id_or_name}}", ADMIN, {401, 404, 413, 422, 429, 503}),
    ("POST", f"{A}/{{id_or_name}}/ban", ADMIN, {401, 404, 413, 422, 429, 503}),
    ("POST", f"{A}/{{id_or_name}}/unban", ADMIN, {401, 404, 409, 413, 422, 429, 503}),
]


@pytest.fixture
def written(document: Document) -> Json:
    return document.document


def operations(written: Json) -> list[tuple[str, str, Json]]:
    return [
        (method.upper(), path, operation)
        for path, found in written["paths"].items()
        for method, operation in found.items()
    ]


@pytest.mark.parametrize(("method", "path", "security", "statuses"), ROUTES, ids=lambda value: str(value)[:60])
def test_every_route_is_documented(
    written: Json, method: str, path: str, security: list[Json], statuses: set[int]
) -> None:
    operation = written["paths"][path][method.lower()]
    assert operation.get("security", []) == security
    responses = operation["responses"]
    assert {str(status) for status in statuses} <= responses.keys()
    makes = (C, H, f"{C}/{{conversation_id}}/images", f"{I}/create", f"{I}/import")
    success = "201" if method == "POST" and path in makes else "200"
    assert success in responses
    for status, response in responses.items():
        is_health = path.startswith("/health")
        if int(status) >= 400 and not (is_health and status == "503"):
            schema = response["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (path, status)
    assert operation["summary"]


def test_nothing_is_documented_that_the_contract_does_not_have(written: Json) -> None:
    documented = {(method, path) for method, path, _ in operations(written)}
    assert documented == {(method, path) for method, path, _, _ in ROUTES}


def test_the_document_is_sound(written: Json) -> None:
    assert written["openapi"].startswith("3.1")
    assert written["components"]["securitySchemes"]["HTTPBearer"] == {
        **written["components"]["securitySchemes"]["HTTPBearer"],
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
    }
    assert written["components"]["securitySchemes"]["APIKeyHeader"]["name"] == "X-Admin-Key"
    names = [operation["operationId"] for _, _, operation in operations(written)]
    assert len(names) == len(set(names))
    for schema in written["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    references = set(re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', httpx2.Response(200, json=written).text))
    assert references == written["components"]["schemas"].keys(), "each is there and each is used"


def test_responses_have_every_field(written: Json) -> None:
    """Contract section 1.2: every field is always present; null only where it is marked."""
    for name in (
        "Message",
        "Conversation",
        "ConversationSummary",
        "ConversationInfluencer",
        "Influencer",
        "LastMessage",
    ):
        schema = written["components"]["schemas"][name]
        assert set(schema["required"]) == set(schema["properties"]), name
    nullable = {
        name
        for name, field in written["components"]["schemas"]["Message"]["properties"].items()
        if {"type": "null"} in field.get("anyOf", [])
    }
    assert nullable == {
        "audio_url", "audio_duration_seconds", "transcription", "token_count", "completed_at", "sender_id",
        "client_message_id", "reply_to", "error",
    }  # fmt: skip


def test_parameters_tell_their_limits(written: Json) -> None:
    parameters = {parameter["name"]: parameter for parameter in written["paths"][M]["get"]["parameters"]}
    assert parameters.keys() == {"conversation_id", "limit", "offset", "order", "before", "after", "include"}
    limit = parameters["limit"]["schema"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 200, 50)
    headers = [
        parameter["name"] for parameter in written["paths"][M]["post"]["parameters"] if parameter["in"] == "header"
    ]
    assert headers == ["Idempotency-Key"]
    resume = {
        (parameter["in"], parameter["name"])
        for parameter in written["paths"][f"{M}/{{message_id}}/stream"]["get"]["parameters"]
    }
    assert {("header", "Last-Event-ID"), ("query", "last_event_id")} <= resume


def test_streams_are_event_streams(written: Json) -> None:
    for method, path in (("post", f"{M}/stream"), ("get", f"{M}/{{message_id}}/stream")):
        content = written["paths"][path][method]["responses"]["200"]["content"]
        assert list(content) == ["text/event-stream"]
        event = content["text/event-stream"]["itemSchema"]
        assert event["required"] == ["id", "event", "data"]
        assert event["properties"]["event"]["enum"] == ["start", "token", "done", "error"]
    either = written["paths"][f"{M}/{{message_id}}/regenerate"]["post"]["responses"]["200"]["content"]
    assert either.keys() == {"application/json", "text/event-stream"}


# --- headers


def check_headers(response: httpx2.Response, *, version: str = "v1", cache: str | None = "no-store") -> None:
    headers = response.headers
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", headers["x-correlation-id"])
    assert headers["x-api-version"] == version
    assert re.fullmatch(r"\d+\.\d\d", headers["x-response-time-ms"])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers
    exposed = {name.strip().lower() for name in headers["access-control-expose-headers"].split(",")}
    assert exposed >= {"x-correlation-id", "x-api-version", "retry-after", "idempotency-replayed", "etag", "ratelimit"}
    if cache is not None:
        assert headers["cache-control"] == cache
    for name in ("x-correlation-id", "x-api-version", "cache-control", "content-type", "x-content-type-options"):
        assert len(headers.get_list(name)) <= 1, name


async def test_every_answer_has_its_headers(api: Api, other: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    origin = {"Origin": "https://app.example", "X-API-Version": "v9"}

    async def ask(method: str, path: str, who: httpx2.AsyncClient = api.http, **more: Any) -> httpx2.Response:
        return await who.request(method, path, headers={**origin, **more.pop("headers", {})}, **more)

    body = {"message_type": "text", "content": "Hello"}
    good = [
        await ask("GET", f"{C}/{conversation['id']}"),
        await ask("POST", messages(conversation["id"]), json=body),
        await ask("POST", C, json={"influencer_id": conversation["influencer_id"]}),
        await ask("GET", "/health"),
        await ask("GET", "/metrics"),
    ]
    for response in good:
        assert response.status_code in (200, 201)
        check_headers(response)
    model.tell(default={"status": 400})
    bad = {
        401: await ask("GET", C, headers={"Authorization": "Bearer x"}),
        403: await ask("GET", f"{C}/{conversation['id']}", other.http),
        404: await ask("GET", f"{C}/unknown"),
        405: await ask("PATCH", C),
        409: await ask("POST", f"{messages(conversation['id'])}/{conversation['recent_messages'][0]['id']}/regenerate"),
        413: await ask("POST", C, content=b"x" * 2_000_000),
        422: await ask("POST", messages(conversation["id"]), json={}),
        503: await ask("POST", messages(conversation["id"]), json={**body, "content": "Fail"}),
    }
    for status, response in bad.items():
        assert response.status_code == status, response.text
        check_headers(response)
        assert response.json()["correlation_id"] == response.headers["x-correlation-id"]
        assert ("retry-after" in response.headers) == (status == 503)
        assert ("www-authenticate" in response.headers) == (status == 401)
    check_headers(await ask("GET", "/api/v2/chat/conversations"), version="v2")
    check_headers(await ask("GET", "/api/v3/chat/conversations"), version="v3")
    check_headers(await ask("GET", "/api/v1/influencers"), cache="public, max-age=300")
    model.reset()
    async with api.http.stream("POST", f"{messages(conversation['id'])}/stream", json=body, headers=origin) as response:
        check_headers(response)


async def test_a_preflight_is_answered(api: Api) -> None:
    wish = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, idempotency-key",
    }
    response = await api.http.options(C, headers=wish)
    assert response.status_code == 200
    assert response.headers["access-control-max-age"] == "600"
    allowed = response.headers["access-control-allow-headers"].lower()
    assert "idempotency-key" in allowed
    assert "authorization" in allowed
    assert "POST" in response.headers["access-control-allow-methods"]


async def test_large_answers_are_compressed_and_small_ones_are_not(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    for number in range(3):
        await api.said(conversation["id"], f"Message {number}")
    large = await api.http.get(messages(conversation["id"]), headers={"Accept-Encoding": "gzip"})
    assert large.headers["content-encoding"] == "gzip"
    plain = await api.http.get(messages(conversation["id"]), headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert large.json() == plain.json()
    small = await api.http.get("/health/live", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers
