"""Small requests that would make much work: they are refused where that is cheap, and never with 500.

What they cost the service was measured: at most 0.15 s of CPU for a body of 1 MiB (docs/security.md).
"""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.api.expecting import open_fresh, refused
from tests.client import Api, Json, messages
from tests.service import Service
from yral_chat.api.multipart import MAX_PARTS
from yral_chat.middleware.limits import MAX_BODY_BYTES

JSON = {"Content-Type": "application/json"}
COMPLETIONS, CREATE, UPLOAD = "/v1/chat/completions", "/api/v1/influencers/create", "/api/v1/media/upload"
PERSONA = b'{"name":"abc","display_name":"a","system_instructions":"x","bot_principal_id":"b",'


def filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    """As many units as a body may hold."""
    return head + unit * ((MAX_BODY_BYTES - len(head) - len(tail)) // len(unit)) + tail


def numbered(head: bytes, value: str) -> bytes:
    """An object of very many keys."""
    pairs = ",".join(f'"k{number}":{value}' for number in range(60_000))
    return head + b'"many":{' + pairs.encode() + b"}}"


# What stands in a field that nobody reads is read past; the message is good.
READ_PAST = {
    "many keys": numbered(b'{"message_type":"text","content":"Hello",', "0"),
    "many lists": filled(b'{"message_type":"text","content":"Hello","p":[', b"[],", b"0]}"),
    "many nests": filled(b'{"message_type":"text","content":"Hello","p":[', b"[" * 400 + b"]" * 400 + b",", b"0]}"),
    "many numbers": filled(b'{"message_type":"text","content":"Hello","p":[', b"1e308,", b"0]}"),
    "one key again and again": filled(b'{"message_type":"text",', b'"content":"Hello",', b'"content":"Hello"}'),
}
REFUSED = {
    "deep lists": (None, b"[" * MAX_BODY_BYTES),
    "deep objects": (None, b'{"a":' * (MAX_BODY_BYTES // 5)),
    "deep in a field": (None, b'{"message_type":"text","content":"x","p":' + b"[" * 500_000 + b"]" * 500_000 + b"}"),
    "digits": (None, filled(b'{"message_type":"text","content":', b"9", b"}")),
    "escapes": (None, filled(b'{"message_type":"text","content":"', b"\\u0041", b'"}')),
    "surrogates": (None, filled(b'{"message_type":"text","content":"', b"\\ud800", b'"}')),
    "spaces": (None, filled(b'{"message_type":"text","content":"', b" ", b'"}')),
    "bad files": (None, filled(b'{"message_type":"image","media_urls":[', b"0,", b"0]}")),
    "good files": (None, filled(b'{"message_type":"image","media_urls":[', b'"a",', b'"a"]}')),
    "bad messages": (COMPLETIONS, filled(b'{"model":"m","messages":[', b"{},", b"{}]}")),
    "bad parts": (COMPLETIONS, filled(b'{"model":"m","messages":[{"role":"user","content":[', b"{},", b"{}]}]}")),
    "good parts": (
        COMPLETIONS,
        filled(
            b'{"model":"m","messages":[{"role":"user","content":[',
            b'{"type":"text","text":"a"},',
            b'{"type":"text","text":"a"}]}]}',
        ),
    ),
    "traits": (CREATE, numbered(PERSONA, "[]").replace(b'"many"', b'"personality_traits"')),
    "suggestions": (CREATE, filled(PERSONA + b'"suggested_messages":[', b"0,", b"0]}")),
}


@pytest.mark.parametrize("name", READ_PAST)
async def test_what_nobody_reads_is_read_past(api: Api, service: Service, name: str) -> None:
    conversation = await open_fresh(api, service)
    response = await api.request(
        "POST", messages(conversation["id"]), content=READ_PAST[name][:MAX_BODY_BYTES], headers=JSON
    )
    assert response.status_code == 200, response.text[:500]
    assert response.json()["user_message"]["content"] == "Hello"


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bomb_is_invalid_and_its_faults_are_not_all_collected(api: Api, service: Service, name: str) -> None:
    path, body = REFUSED[name]
    if path is None:
        path = messages((await open_fresh(api, service))["id"])
    error = refused(await api.request("POST", path, content=body, headers=JSON), 422, "validation_error")
    assert 1 <= len(error["details"]["errors"]) <= 4


async def test_a_message_of_very_many_faults_costs_one(api: Api) -> None:
    """A hundred messages of a thousand parts, all wrong: they fit into one body."""
    parts = b"[" + b"{}," * 999 + b"{}]"
    one = b'{"role":"user","content":' + parts + b"}"
    body = b'{"model":"m","messages":[' + b",".join([one] * 100) + b"]}"
    error = refused(await api.request("POST", COMPLETIONS, content=body, headers=JSON), 422, "validation_error")
    assert len(error["details"]["errors"]) <= 4


def part(name: str, value: str = "x", file: str | None = None) -> bytes:
    named = f'; filename="{file}"' if file else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n{value}\r\n'.encode()


@pytest.mark.parametrize(
    "made",
    [
        lambda: part("a") * (MAX_PARTS + 1),
        lambda: part("type", "image") + part("file", file="x") * MAX_PARTS,
        lambda: part("a") * 200_000,
        lambda: b"--b\r\n" + b"X-A: b\r\n" * 1_000_000,
        lambda: b'--b\r\nContent-Disposition: form-data; name="' + b"a" * 1_000_000,
        lambda: b"\r\n-" * 1_000_000,
    ],
    ids=["fields", "files", "very many fields", "headers of a part", "a long name", "almost boundaries"],
)
async def test_a_form_of_too_much_is_unreadable(api: Api, made: Callable[[], bytes]) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(await api.request("POST", UPLOAD, content=made() + b"--b--\r\n", headers=headers), 400, "bad_request")


# --- bytes that are no text


@pytest.mark.parametrize(
    "content",
    [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xff", b"\x80", b"\xe2\x82"],
    ids=["overlong slash", "longer slash", "overlong nul", "surrogate", "beyond Unicode", "ff", "continuation", "cut"],
)
async def test_bytes_that_are_no_utf8_are_refused_everywhere(api: Api, service: Service, content: bytes) -> None:
    conversation = await open_fresh(api, service)
    body = b'{"message_type":"text","content":"' + content + b'"}'
    refused(
        await api.request("POST", messages(conversation["id"]), content=body, headers=JSON), 422, "validation_error"
    )
    escaped = "".join(f"%{byte:02x}" for byte in content)
    refused(await api.http.get(f"/api/v1/influencers/{escaped}"), 404, "not_found")
    refused(await api.http.get(f"/media/public/..{escaped}..{escaped}etc"), 404, "not_found")
    assert (await api.http.get(f"/api/v1/influencers?surprise={escaped}")).status_code == 200
    assert len(await api.history(conversation["id"], include="unfinished")) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
async def test_another_encoding_never_breaks_anything(api: Api, service: Service, encoding: str) -> None:
    conversation = await open_fresh(api, service)
    body = '{"message_type":"text","content":"Hé"}'.encode(encoding)
    response: httpx2.Response = await api.request("POST", messages(conversation["id"]), content=body, headers=JSON)
    assert response.status_code in (200, 422)
    history: list[Json] = await api.history(conversation["id"])
    said: list[Any] = [row["content"] for row in history if row["role"] == "user"]
    assert said in ([], ["Hé"])
