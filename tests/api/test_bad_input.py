"""Every refusal is the one envelope with a clear sentence, and nothing stored (issue: bad input)."""

import asyncio
import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import func, select

from tests.api.expecting import open_fresh, refused
from tests.client import PLAIN, Api, Document, messages
from tests.rows import fetch
from tests.service import FakeModel, Service, token
from yral_chat.db.tables import conversations as conversation_rows

CONVERSATIONS = "/api/v1/chat/conversations"

ODD_IDS = {
    "nul": "%00",
    "nul-inside": "a%00b",
    "braces": "%7Bconversation_id%7D",
    "raw-braces": "{conversation_id}",
    "emoji": quote("🙂"),
    "10-kB": "x" * 10_000,
    "256": "x" * 256,
    "255": "x" * 255,
    "slash": "a%2Fb",
    "dots": "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd",
    "sql": quote("' OR 1=1 --"),
    "percent": "%25",
    "not-utf8": "%FF%FE",
    "surrogate": "%ED%A0%80",
    "newline": "%0d%0aX-Injected:%201",
    "space": "%20",
    "uuid-upper": "01930000-0000-7000-8000-00000000000A",
    "backslash": "%5C",
    "rtl": quote("\u202eabc"),
    "number": "18446744073709551616",
    "semicolon": "a;b=c",
    "combining": quote("e\u0301" * 60),
}


def without_length(content: bytes) -> Any:
    """A body whose length is not announced."""

    async def chunks() -> Any:
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    return chunks()


# --- ids


@pytest.mark.parametrize("name", ODD_IDS)
async def test_an_odd_id_is_an_unknown_id(api: Api, service: Service, name: str) -> None:
    odd = ODD_IDS[name]
    known = (await open_fresh(api, service))["id"]
    requests = [
        ("GET", f"/api/v1/influencers/{odd}"),
        ("GET", f"{CONVERSATIONS}/{odd}"),
        ("DELETE", f"{CONVERSATIONS}/{odd}"),
        ("GET", f"{CONVERSATIONS}/{odd}/messages"),
        ("POST", f"{CONVERSATIONS}/{odd}/messages"),
        ("POST", f"{CONVERSATIONS}/{odd}/messages/stream"),
        ("POST", f"{CONVERSATIONS}/{odd}/read"),
        ("GET", f"{CONVERSATIONS}/{known}/messages/{odd}/stream"),
        ("POST", f"{CONVERSATIONS}/{known}/messages/{odd}/regenerate"),
        ("POST", f"{CONVERSATIONS}/{known}/messages/{odd}/cancel"),
        ("POST", f"{CONVERSATIONS}/{odd}/messages/{odd}/cancel"),
    ]
    body = {"message_type": "text", "content": "Hello"}
    for method, path in requests:
        response = await api.http.request(method, path, json=body if path.endswith(("messages", "/stream")) else None)
        error = refused(response, 404, "not_found")
        assert error["details"] == {}
        assert "x-injected" not in response.headers
    assert len(await api.history(known, include="unfinished")) == 1


@pytest.mark.parametrize("value", ["a\u0000b", "x" * 256, ""])
async def test_an_odd_id_in_a_body_is_invalid(api: Api, value: str) -> None:
    refused(await api.post(CONVERSATIONS, {"influencer_id": value}), 422, "validation_error")


@pytest.mark.parametrize("value", ["🙂", "{influencer_id}", "' OR 1=1 --", "../../etc/passwd", "x" * 255])
async def test_a_strange_id_in_a_body_is_unknown(api: Api, value: str) -> None:
    refused(await api.post(CONVERSATIONS, {"influencer_id": value}), 404, "not_found")


# --- bodies


MALFORMED = {
    "empty": b"",
    "cut": b'{"message_type": "text", "content": "Hel',
    "trailing": b'{"message_type": "text", "content": "x"} extra',
    "single-quotes": b"{'message_type': 'text'}",
    "not-utf8": b'{"message_type": "text", "content": "\xff\xfe"}',
    "bare-word": b"hello",
    "nan": b'{"message_type": "text", "content": NaN}',
    "infinity": b'{"message_type": "text", "content": -Infinity}',
    "deep": b"[" * 100_000,
    "deep-object": b'{"a":' * 50_000,
    "digits": b'{"message_type": "text", "content": ' + b"9" * 10_000 + b"}",
    "control": b'{"message_type": "text", "content": "a\x01b"}',
    "lone-surrogate": b'{"message_type": "text", "content": "\\ud800"}',
    "reversed-surrogates": b'{"message_type": "text", "content": "\\udc00\\ud800"}',
    "surrogate-key": b'{"message_type": "text", "content": "x", "client_message_id": "\\udfff"}',
    "surrogate-type": b'{"message_type": "\\ud800", "content": "x"}',
    "nul": b'{"message_type": "text", "content": "\\u0000"}',
    "null": b"null",
    "list": b"[]",
    "string": b'"text"',
    "number": b"5",
    "true": b"true",
}


@pytest.mark.parametrize("suffix", ["", "/stream"])
@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_body_is_refused_and_nothing_stored(
    api: Api, service: Service, model: FakeModel, name: str, suffix: str
) -> None:
    conversation = await open_fresh(api, service)
    response = await api.request(
        "POST",
        f"{messages(conversation['id'])}{suffix}",
        content=MALFORMED[name],
        headers={"Content-Type": "application/json"},
    )
    error = refused(response, 422, "validation_error")
    found = error["details"]["errors"]
    assert found
    for item in found:
        assert item.keys() == {"type", "loc", "msg"}
        assert re.fullmatch(r"[a-z][a-z_0-9]*", item["type"])
        assert item["loc"][0] == "body"
        assert item["msg"]
    assert len(await api.history(conversation["id"], include="unfinished")) == 1
    assert model.state()["requests"] == 0


@pytest.mark.parametrize("name", ["cut", "deep", "null", "lone-surrogate", "digits"])
async def test_opening_with_a_malformed_body_is_refused(api: Api, service: Service, name: str) -> None:
    body = MALFORMED[name].replace(b"content", b"influencer_id")
    response = await api.request("POST", CONVERSATIONS, content=body, headers={"Content-Type": "application/json"})
    refused(response, 422, "validation_error")
    assert fetch(service, select(func.count()).where(conversation_rows.c.user_id == api.user_id))[0][0] == 0


async def test_invalid_json_tells_the_byte(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    body = '{"content": "é🙂", oops}'.encode()
    response = await api.request(
        "POST", messages(conversation["id"]), content=body, headers={"Content-Type": "application/json"}
    )
    (item,) = refused(response, 422, "validation_error")["details"]["errors"]
    assert (item["type"], item["loc"]) == ("json_invalid", ["body", body.index(b"oops")])
    assert "oops" not in response.text, "the input is not echoed"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
async def test_another_type_of_body_is_refused(api: Api, service: Service, content_type: str | None) -> None:
    conversation = await open_fresh(api, service)
    headers = {"Content-Type": content_type} if content_type else {}
    body = b'{"message_type": "text", "content": "x"}'
    response = await api.request("POST", messages(conversation["id"]), content=body, headers=headers)
    assert response.status_code in (400, 415, 422), response.text
    assert len(await api.history(conversation["id"], include="unfinished")) == 1


async def test_unknown_fields_and_parameters_are_ignored(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    body = {"message_type": "text", "content": "Hello", "surprise": {"deep": [1]}, "id": "mine", "role": "assistant"}
    response = await api.post(messages(conversation["id"]), body, params={"surprise": "x"})
    assert response.status_code == 200
    assert response.json()["user_message"]["id"] != "mine"
    assert response.json()["user_message"]["role"] == "user"


async def test_null_means_absent(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    nulls = dict.fromkeys(("media_urls", "audio_url", "audio_duration_seconds", "client_message_id"))
    user, _ = await api.said(conversation["id"], "Hello", **nulls)
    assert (user["media_urls"], user["client_message_id"]) == ([], None)
    user, _ = await api.said(conversation["id"], "Bye", audio_duration_seconds="45", audio_url="", media_urls=[])
    assert user["content"] == "Bye"


@pytest.mark.parametrize(
    ("number", "text"), [("5", "5"), ("-0.5", "-0.5"), ("12345678901234567890123", "12345678901234567890123")]
)
async def test_a_number_is_taken_as_its_text(api: Api, service: Service, number: str, text: str) -> None:
    conversation = await open_fresh(api, service)
    response = await api.request(
        "POST",
        messages(conversation["id"]),
        content=f'{{"message_type": "text", "content": {number}}}',
        headers={"Content-Type": "application/json"},
    )
    assert response.json()["user_message"]["content"] == text


async def test_astral_characters_and_escapes_survive(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    text = (
        "\U0001f642 \ud83d\ude42".encode("utf-16", "surrogatepass").decode("utf-16")
        + ' \u2028 \u0085 \x7f \\ " </script>'
    )
    response = await api.request(
        "POST",
        messages(conversation["id"]),
        content=json.dumps({"message_type": "text", "content": text}),  # with escapes
        headers={"Content-Type": "application/json"},
    )
    assert response.json()["user_message"]["content"] == text
    assert (await api.history(conversation["id"]))[1]["content"] == text


async def test_at_most_fifty_errors_are_listed(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    body = {"message_type": "text", "content": "x", "media_urls": [1] * 200}
    error = refused(await api.post(messages(conversation["id"]), body), 422, "validation_error")
    assert 1 <= len(error["details"]["errors"]) <= 50


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_above_a_megabyte_is_refused(api: Api, service: Service, is_announced: bool) -> None:
    conversation = await open_fresh(api, service)
    body = json.dumps({"message_type": "text", "content": "x", "padding": "x" * 1_048_576}).encode()
    headers = {"Content-Type": "application/json"}
    for path in (messages(conversation["id"]), f"{messages(conversation['id'])}/stream", CONVERSATIONS):
        content = body if is_announced else without_length(body)
        error = refused(await api.request("POST", path, content=content, headers=headers), 413, "payload_too_large")
        assert error["details"] == {"limit": 1_048_576, "unit": "bytes"}
    just_fits = body.replace(b"x" * 1000, b"", 1)
    response = await api.request("POST", messages(conversation["id"]), content=just_fits, headers=headers)
    assert response.status_code == 200
    assert len(await api.history(conversation["id"])) == 3


async def test_an_empty_body_is_fine_where_none_is_needed(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    path, headers = f"{CONVERSATIONS}/{conversation['id']}/read", {"Content-Type": "application/json"}
    for content in (b"", b"{}"):
        assert (await api.request("POST", path, content=content, headers=headers)).status_code == 200
    assert (await api.http.post(path)).status_code == 200


# --- keys


@pytest.mark.parametrize("key", ["k" * 129, "a\u0000b", 5, ["k"], {"k": 1}, True])
async def test_an_unusable_key_is_refused(api: Api, service: Service, key: Any) -> None:
    conversation = await open_fresh(api, service)
    body = {"message_type": "text", "content": "x", "client_message_id": key}
    refused(await api.post(messages(conversation["id"]), body), 422, "validation_error")
    assert len(await api.history(conversation["id"], include="unfinished")) == 1


@pytest.mark.parametrize("key", ["🙂" * 128, "k\nk", "{}", "' OR 1=1 --", "%00"])
async def test_any_other_key_works(api: Api, service: Service, key: str) -> None:
    conversation = await open_fresh(api, service)
    first, _ = await api.said(conversation["id"], "Hello", client_message_id=key)
    second, _ = await api.said(conversation["id"], "Hello", client_message_id=f" {key} ")
    assert first["client_message_id"] == key
    assert first == second


# --- paths and methods


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/v1", "/api/v9/chat/conversations", "/api/v1/chat", "/%00", "/🙂"]
)
async def test_an_unknown_path_is_not_found(api: Api, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "PUT", "PATCH"):
        refused(await api.http.request(method, f"{api.url}{path}"), 404, "not_found")


async def test_a_wrong_method_names_the_right_ones(api: Api, document: Document) -> None:
    head_too = re.compile(r"/|/health.*|/media/.*|/api/v1/influencers(/[^/]+)?")
    everything = document.document["paths"]
    for path, operations in everything.items():
        documented = {method.upper() for method in operations}
        # A fixed name may also be read as an id: then the methods of that path are right, too.
        concrete = path.replace("{", "").replace("}", "")
        templates = [other for other in everything if re.fullmatch(re.sub(r"{\w+}", "[^/]+", other), concrete)]
        readable = {method.upper() for template in templates for method in everything[template]} | documented
        if path == "/api/v1/influencers/trending" or head_too.fullmatch(path):
            documented.add("HEAD")
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"} - readable:
            response = await api.http.request(method, concrete)
            refused(response, 405, "method_not_allowed")
            allowed = {name.strip() for name in response.headers["allow"].split(",")}
            assert documented <= allowed <= readable | {"HEAD"}, path


async def test_one_trailing_slash_is_the_same_route(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    for path in (CONVERSATIONS, "/api/v2/chat/conversations", f"{CONVERSATIONS}/{conversation['id']}", "/health/live"):
        response = await api.http.get(f"{path}/")
        assert response.status_code == 200, path
        assert response.content == (await api.http.get(path)).content
        refused(await api.http.get(f"{path}//"), 404, "not_found")
    body = {"message_type": "text", "content": "Hello"}
    assert (await api.http.post(f"{messages(conversation['id'])}/", json=body)).status_code == 200


@pytest.mark.parametrize(
    "query", ["limit=%00", "limit=%FF", "limit=1&limit=x", "offset=1e3", "offset=%2B1x", "limit=0x10"]
)
async def test_an_odd_query_is_refused_or_ignored(api: Api, query: str) -> None:
    for path in (CONVERSATIONS, "/api/v2/chat/conversations", "/api/v1/influencers"):
        response = await api.http.get(f"{path}?{query}")
        refused(response, 422, "validation_error")


# --- headers


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("abc-DEF_1.2", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("a/b", False),
        ("é", False),
        ("", False),
    ],
)
async def test_the_correlation_id_is_kept_when_it_is_sane(api: Api, given: str, is_kept: bool) -> None:
    for path, status in (("/health/live", 200), ("/nothing", 404), (f"{CONVERSATIONS}/unknown", 404)):
        response = await api.http.get(path, headers={b"X-Correlation-ID": given.encode()})
        assert response.status_code == status
        assert (response.headers["x-correlation-id"] == given) == is_kept
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", response.headers["x-correlation-id"])


async def test_bytes_that_are_no_request_end_only_their_connection(service: Service, api: Api) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    for raw in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"x" * 100_000,
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(raw)
        writer.write_eof()
        with suppress(ConnectionResetError):  # closed with our bytes unread, which is a way to refuse too
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()
    assert (await api.get("/health/live")).status_code == 200


async def test_many_headers_and_long_tokens_are_refused_politely(service: Service) -> None:
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        response = await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {'a.' * 20_000}"})
        refused(response, 401, "unauthorized")
        twice = [("Authorization", f"Bearer {token('a')}"), ("Authorization", f"Bearer {token('b')}")]
        assert (await client.get("/api/v1/auth/me", headers=twice)).status_code in (200, 400, 401)


# --- no refusal leaves anything behind


async def test_refusals_store_nothing(api: Api, other: Api, service: Service, model: FakeModel) -> None:
    conversation = await open_fresh(api, service)
    before = await api.history(conversation["id"], include="unfinished")
    body = {"message_type": "text", "content": "Hello"}
    for client, status in ((other, 403), (httpx2.AsyncClient(base_url=service.url, verify=PLAIN), 401)):
        response = await client.post(messages(conversation["id"]), json=body)
        assert response.status_code == status
        if isinstance(client, httpx2.AsyncClient):
            await client.aclose()
    assert await api.history(conversation["id"], include="unfinished") == before
    assert model.state()["requests"] == 0
    inbox = (await api.get("/api/v2/chat/conversations")).json()["conversations"][0]
    assert inbox["updated_at"] == conversation["updated_at"]
