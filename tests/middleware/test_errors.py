"""Every failure has the one shape, and the OpenAPI document says so."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx2
import pytest
from fastapi import FastAPI, Header, Query
from pydantic import BaseModel, Field, model_validator
from starlette.exceptions import HTTPException

from tests.middleware.application import client_of
from yral_chat.api import errors
from yral_chat.core.errors import AppError, Invalid, ModelUnavailable, TooManyTurns

pytestmark = pytest.mark.usefixtures("lines")

JSON = {"Content-Type": "application/json"}


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Everything(BaseModel):
    text: str = Field(max_length=5)
    count: int = Field(1, ge=1)
    numbers: list[int] = []
    traits: dict[str, int] = {}
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def _not_bad(self) -> "Everything":
        if self.text == "bad":
            raise ValueError("bad is not good")
        return self


def every_error(cls: type[AppError] = AppError) -> Iterator[type[AppError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from every_error(child)


@pytest.fixture
async def api() -> httpx2.AsyncClient:
    app = FastAPI(redirect_slashes=False)
    errors.install(app)

    @app.post("/everything")
    async def everything(body: Everything) -> Everything:
        return body

    @app.get("/numbers/{number}")
    async def number(
        number: int, limit: Annotated[int, Query(ge=1)] = 1, x_level: Annotated[int, Header()] = 0
    ) -> dict[str, int]:
        return {"number": number}

    @app.get("/raise/{name}")
    async def raising(name: str) -> None:
        raise next(error for error in every_error() if error.__name__ == name)

    @app.get("/http/{status}")
    async def framework(status: int) -> None:
        raise HTTPException(status, "A framework's words", headers={"X-Own": "kept"})

    @app.get("/busy")
    async def busy() -> None:
        raise TooManyTurns(details={"limit_type": "concurrent_turns", "limit": 5, "retry_after": 7}, retry_after=7)

    @app.get("/field")
    async def field() -> None:
        raise Invalid.field(["body", "media_urls", 0], "Not yours", "foreign_key")

    return client_of(app)


async def refused(api: httpx2.AsyncClient, content: str | bytes) -> list[dict[str, Any]]:
    response = await api.post("/everything", content=content, headers=JSON)
    assert response.status_code == 422
    body = response.json()
    assert set(body) == {"error", "message", "details", "correlation_id"}
    assert body["error"] == "validation_error"
    listed: list[dict[str, Any]] = body["details"]["errors"]
    assert all(set(item) == {"type", "loc", "msg"} for item in listed)
    return listed


@pytest.mark.parametrize("name", sorted({error.__name__ for error in every_error()}))
async def test_every_error_of_ours_has_the_one_shape(api: httpx2.AsyncClient, name: str) -> None:
    error = next(error for error in every_error() if error.__name__ == name)
    response = await api.get(f"/raise/{name}")
    assert response.status_code == error.status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert (body["error"], body["message"], body["details"]) == (error.code, error.message, {})
    assert body.get("detail") == (error.message if error.status in (401, 403) else None)
    assert response.headers.get("www-authenticate") == ("Bearer" if error.status == 401 else None)
    if error.status in (429, 503, 504):
        assert int(response.headers["retry-after"]) >= 1
    else:
        assert "retry-after" not in response.headers


async def test_details_and_retry_after_come_from_the_error(api: httpx2.AsyncClient) -> None:
    response = await api.get("/busy")
    assert response.headers["retry-after"] == "7"
    assert response.json()["details"] == {"limit_type": "concurrent_turns", "limit": 5, "retry_after": 7}
    assert ModelUnavailable(retry_after=0).retry_after == 0


async def test_our_own_validation_errors_look_like_the_framework_ones(api: httpx2.AsyncClient) -> None:
    details = (await api.get("/field")).json()["details"]
    assert details == {"errors": [{"type": "foreign_key", "loc": ["body", "media_urls", 0], "msg": "Not yours"}]}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (406, "bad_request"),
        (413, "payload_too_large"),
        (415, "unsupported_media_type"),
        (500, "internal_server_error"),
        (503, "service_unavailable"),
    ],
)
async def test_the_framework_errors_get_a_code(api: httpx2.AsyncClient, status: int, code: str) -> None:
    response = await api.get(f"/http/{status}")
    assert (response.status_code, response.json()["error"]) == (status, code)
    assert response.headers["x-own"] == "kept"
    assert ("retry-after" in response.headers) == (status == 503)
    assert ("www-authenticate" in response.headers) == (status == 401)


async def test_an_unknown_path_is_404_and_a_wrong_method_405_with_all_methods(client: httpx2.AsyncClient) -> None:
    response = await client.get("/nowhere")
    assert (response.status_code, response.json()["error"]) == (404, "not_found")
    response = await client.put("/items")
    assert (response.status_code, response.json()["error"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"


# ---- bodies that cannot be read


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        ("{", 1),
        ("", None),
        ('{"text": }', 9),
        ('{"é€😀": }', len('{"é€😀": '.encode())),
        ('{"text": "a",}', None),
        ('{"text": "a"} x', 14),
        (b'{"text": "\xff"}', 10),
        ('{"count": ' + "1" * 5000 + "}", 0),
        ("[" * 100_000, 0),
        ("nul", 0),
    ],
)
async def test_invalid_json_is_told_with_its_byte_offset(
    api: httpx2.AsyncClient, content: str | bytes, offset: int | None
) -> None:
    [item] = await refused(api, content)
    if content == "":
        assert item["type"] == "missing"
        return
    assert item["type"] == "json_invalid"
    assert item["loc"][0] == "body"
    if offset is not None:
        assert item["loc"][1] == offset


# ---- bodies that can be read and are wrong


async def test_locations_are_arrays_of_strings_and_integers(api: httpx2.AsyncClient) -> None:
    listed = await refused(api, json.dumps({"text": 5, "count": 0, "numbers": [1, "two"], "traits": {"a": "b"}}))
    assert [item["loc"] for item in listed] == [
        ["body", "text"],
        ["body", "count"],
        ["body", "numbers", 1],
        ["body", "traits", "a"],
    ]
    assert [item["type"] for item in listed] == ["string_type", "greater_than_equal", "int_parsing", "int_parsing"]


@pytest.mark.parametrize("content", ["[]", '"text"', "5", "null", "true"])
async def test_a_body_of_the_wrong_kind_is_refused(api: httpx2.AsyncClient, content: str) -> None:
    [item] = await refused(api, content)
    assert item["loc"] == ["body"]


async def test_a_body_without_content_type_is_refused(api: httpx2.AsyncClient) -> None:
    response = await api.post("/everything", content=b'{"text": "a"}')
    assert response.status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        {"text": "SECRET-INPUT"},
        {"text": "a", "count": "SECRET-INPUT"},
        {"text": "a", "numbers": ["SECRET-INPUT"]},
        {"text": "a", "pet": {"kind": "SECRET-INPUT"}},
        {"text": ["SECRET-INPUT"]},
    ],
)
async def test_the_offending_input_is_not_echoed(api: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    listed = await refused(api, json.dumps(body))
    assert listed
    assert "SECRET" not in json.dumps(listed)


async def test_what_a_validator_of_ours_says_is_passed_on(api: httpx2.AsyncClient) -> None:
    [item] = await refused(api, '{"text": "bad"}')
    assert (item["type"], item["loc"]) == ("value_error", ["body"])
    assert item["msg"].endswith("bad is not good")


async def test_at_most_fifty_errors_are_listed(api: httpx2.AsyncClient) -> None:
    assert len(await refused(api, json.dumps({"text": "a", "numbers": ["x"] * 200}))) == 50


async def test_keys_of_any_kind_can_be_located(api: httpx2.AsyncClient) -> None:
    listed = await refused(api, '{"text": "a", "traits": {"\\ud800": "x", "' + "k" * 5000 + '": "x"}}')
    assert [len(item["loc"]) for item in listed] == [3, 3]
    assert listed[1]["loc"] == ["body", "traits", "k" * 100]


async def test_query_and_header_are_named_as_the_place(api: httpx2.AsyncClient) -> None:
    response = await api.get("/numbers/5?limit=0", headers={"X-Level": "high"})
    assert [item["loc"] for item in response.json()["details"]["errors"]] == [["query", "limit"], ["header", "x-level"]]


@pytest.mark.parametrize("path", ["/numbers/five", "/numbers/5.5", "/numbers/%00", "/numbers/" + "9" * 5000])
async def test_an_odd_id_in_the_path_is_an_unknown_one(api: httpx2.AsyncClient, path: str) -> None:
    response = await api.get(path)
    assert (response.status_code, response.json()["error"]) == (404, "not_found")


# ---- the document


async def test_the_document_knows_one_shape_of_errors(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    assert "ValidationError" not in text
    responses = document["paths"]["/items"]["post"]["responses"]
    for status in ("401", "404", "422"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorBody"}
    assert set(schemas["ErrorBody"]["required"]) == {"error", "message", "details", "correlation_id"}
    assert schemas["ErrorBody"]["properties"]["detail"]["type"] == "string"
    for reference in text.split('"$ref": "#/components/schemas/')[1:]:
        assert reference.split('"')[0] in schemas


async def test_the_document_is_the_same_when_asked_again(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).content == (await client.get("/openapi.json")).content


def test_only_known_statuses_can_be_documented() -> None:
    with pytest.raises(KeyError):
        errors.errors(418)
