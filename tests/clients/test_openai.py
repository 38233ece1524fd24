"""OpenAIClient against the fake vendor. What it shares with GeminiClient is tested there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clients.conversations import conversation, listen
from tests.fakes.model_server import CACHED_TOKENS, PROMPT_TOKENS, Behaviour, FakeModelServer
from yral_chat.clients import vendor_http
from yral_chat.clients.language_model import Delta, ModelCall, ModelFailure, Usage, closing_stream
from yral_chat.clients.openai import BASE_URL, FINISH_REASONS, OpenAIClient
from yral_chat.clients.vendor_http import failure_in_stream, failure_of_status

KEY = "sk-test-0123456789"
MODEL = "llama-4:8b"


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer(key=KEY) as server:
        yield server


@pytest.fixture
async def client(server: FakeModelServer) -> AsyncIterator[OpenAIClient]:
    client = openai(server)
    yield client
    await client.close()


def openai(server: FakeModelServer, **options: Any) -> OpenAIClient:
    return OpenAIClient(**{"api_key": KEY, "model": MODEL, "base_url": server.base_url_openai, **options})


async def test_sends_what_the_wire_wants(server: FakeModelServer, client: OpenAIClient) -> None:
    await listen(client, conversation("Hi", "Hello!", "How are you?", correlation_id="c-2"))
    request = server.requests[-1]
    assert request.target == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-correlation-id"] == "c-2"
    assert request.body == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are Asha."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "How are you?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.7,
        "max_tokens": 2048,
    }


async def test_without_a_key_no_authorization_is_sent() -> None:
    async with FakeModelServer(key="") as server:
        client = openai(server, api_key=None)
        heard = await listen(client)
        await client.close()
        assert heard.outcome == "completed"
        assert "authorization" not in server.requests[-1].headers


async def test_roles_take_turns_and_the_user_begins(server: FakeModelServer, client: OpenAIClient) -> None:
    # Chat templates of open models refuse anything else.
    await listen(client, conversation("I am Asha.", "Hi", system="", first="assistant"))
    assert [message["role"] for message in server.requests[-1].body["messages"]] == ["user", "assistant", "user"]


def test_the_vendor_itself_is_the_default_and_gets_the_new_name_of_the_limit() -> None:
    client = OpenAIClient(model="gpt-5", api_key=KEY)
    body = client._body(conversation())
    assert client._url == f"{BASE_URL}/chat/completions"
    assert (body.get("max_completion_tokens"), body.get("max_tokens")) == (2048, None)


async def test_answer_usage_and_record(server: FakeModelServer, client: OpenAIClient) -> None:
    server.default = Behaviour(thinking_tokens=9, thoughts=("Hm.",), model_version="llama-4-8b-q4")
    heard = await listen(client)
    usage = Usage(prompt=PROMPT_TOKENS, cached=CACHED_TOKENS, output=4, thinking=9)  # thinking is not output
    assert heard.text == "Hello from the fake."
    assert heard.completion is not None
    assert heard.completion.usage == usage
    assert (heard.completion.provider, heard.completion.model) == ("openai", "llama-4-8b-q4")
    assert heard.completion.finish_reason == "stop"
    assert (heard.calls[0].outcome, heard.calls[0].usage) == ("completed", usage)


HINDI = ("नमस्ते", ", मैं ", "आशा हूँ 😀", "!")


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(pieces=HINDI),
        Behaviour(pieces=HINDI, packets="split_character"),
        Behaviour(pieces=HINDI, packets="split_event", newline="\r\n"),
        Behaviour(pieces=HINDI, packets="pairs"),
        Behaviour(pieces=HINDI, has_comments=True),
        Behaviour(pieces=HINDI, is_streamed=False),
        Behaviour(pieces=HINDI, has_end_marker=False),
        Behaviour(pieces=HINDI, has_usage=False),
        Behaviour(pieces=HINDI, has_usage=False, has_end_marker=False),
        Behaviour(pieces=HINDI, finish_at="everywhere"),
        Behaviour(pieces=HINDI, is_last_line_open=True),
        Behaviour(pieces=HINDI, is_last_line_open=True, has_end_marker=False),
    ],
    ids=str,
)
async def test_the_text_is_the_same_however_it_travels(
    server: FakeModelServer, client: OpenAIClient, behaviour: Behaviour
) -> None:
    server.default = behaviour
    heard = await listen(client)
    assert (heard.outcome, heard.text) == ("completed", "".join(HINDI))


async def test_a_connection_that_stays_open_after_the_end_is_not_waited_for(
    server: FakeModelServer, client: OpenAIClient
) -> None:
    server.default = Behaviour(stays_open_seconds=60)
    async with asyncio.timeout(5):  # the silence that is tolerated is longer
        assert (await listen(client)).outcome == "completed"


async def test_the_connection_is_used_again(
    server: FakeModelServer, client: OpenAIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_http, "END_SECONDS", 10)
    # The end of the body comes a moment after the last event.
    server.default = Behaviour(stays_open_seconds=0.02)
    for _ in range(3):
        assert (await listen(client)).outcome == "completed"
    assert len({request.peer for request in server.requests}) == 1


@pytest.mark.parametrize(("reason", "outcome"), sorted(FINISH_REASONS.items()))
async def test_finish_reasons(server: FakeModelServer, client: OpenAIClient, reason: str, outcome: str) -> None:
    server.script.extend([Behaviour(finish_reason=reason), Behaviour(finish_reason=reason, pieces=())])
    with_text, without_text = await listen(client), await listen(client)
    assert with_text.outcome == ("truncated" if outcome == "empty" else outcome)
    assert without_text.failure is not None
    assert without_text.outcome == ("empty" if outcome == "completed" else outcome)


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (Behaviour(has_candidates=False), "empty"),
        (Behaviour(pieces=()), "empty"),
        (Behaviour(pieces=(), thoughts=("I only think.",)), "empty"),
        (Behaviour(finish_reason=None), "unreachable"),
        (Behaviour(finish_at="start"), "unreachable"),
        (Behaviour(finish_reason=None, has_end_marker=False), "unreachable"),
        (Behaviour(block_reason="any"), "blocked"),
        (Behaviour(cut_after_bytes=0), "unreachable"),
        (Behaviour(cut_after_bytes=450), "unreachable"),
        (Behaviour(invalid_utf8_in=1), "unreachable"),
        (Behaviour(error_after=0, error_status=400), "rejected"),
        (Behaviour(error_after=2, error_status=503), "overloaded"),
        (Behaviour(error_after=2, error_status=429), "quota"),
        (Behaviour(error_after=2, finish_at="everywhere"), "overloaded"),
    ],
    ids=str,
)
async def test_bad_streams(server: FakeModelServer, client: OpenAIClient, behaviour: Behaviour, outcome: str) -> None:
    server.default = behaviour
    heard = await listen(client)
    assert (heard.outcome, heard.calls[0].outcome) == (outcome, outcome)


@pytest.mark.parametrize(
    ("status", "outcome", "is_outage"),
    [
        (400, "rejected", False),
        (401, "rejected", True),
        (402, "quota", False),
        (403, "rejected", True),
        (404, "model_gone", True),
        (408, "timeout", True),
        (422, "rejected", False),
        (429, "quota", False),
        (500, "overloaded", True),
        (503, "overloaded", True),
        (529, "overloaded", True),
    ],
)
async def test_error_statuses(
    server: FakeModelServer, client: OpenAIClient, status: int, outcome: str, is_outage: bool
) -> None:
    server.default = Behaviour(status=status)
    heard = await listen(client, conversation("my private words"))
    assert heard.failure is not None
    assert (heard.outcome, heard.failure.is_outage) == (outcome, is_outage)
    assert "private" not in str(heard.failure)


async def test_429_honours_retry_after(server: FakeModelServer, client: OpenAIClient) -> None:
    server.default = Behaviour(status=429, retry_after=2.5)
    heard = await listen(client)
    assert heard.failure is not None
    assert heard.failure.retry_after == 2.5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500", "Retry-After": "7"}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
def test_forms_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert failure_of_status(503, b"", headers).retry_after == seconds


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error": {"code": "content_filter", "message": "Azure says no"}}'),
        (400, b'{"error": {"code": "content_policy_violation"}}'),
        (403, b'{"error": {"code": 403, "metadata": {"reasons": ["x"], "flagged_input": "words"}}}'),
    ],
)
def test_a_refusal_of_content_is_blocked_whatever_its_status(status: int, body: bytes) -> None:
    assert failure_of_status(status, body).outcome == "blocked"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"[1]", b"null", b'"no"', b'{"error": "no"}', b"<html>", b"{"])
def test_a_body_that_says_nothing_does_not_hide_the_status(body: bytes) -> None:
    failure = failure_of_status(503, body)
    assert (failure.outcome, failure.reason) == ("overloaded", "HTTP 503")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ({"code": 502}, "overloaded"),
        ({"code": "502"}, "overloaded"),
        ({"code": 429}, "quota"),
        ({"code": "rate_limit_exceeded"}, "quota"),
        ({"code": "context_length_exceeded"}, "rejected"),
        ({"code": "model_not_found"}, "model_gone"),
        ({"code": "something_new"}, "overloaded"),
        ({"code": None}, "overloaded"),
        ({"code": 200}, "overloaded"),
        ("just a text", "overloaded"),
    ],
)
def test_errors_inside_a_stream(error: object, outcome: str) -> None:
    assert failure_in_stream(error, b"{}").outcome == outcome


@pytest.mark.parametrize(
    "event",
    [
        b'{"error": {"message": "down", "code": 503}}',
        b'{"error": "down"}',
        b'{"object": "error", "message": "down", "code": 503}',  # vLLM's form
        b'{"id": "x", "choices": [{"delta": {"content": ""}, "finish_reason": "error"}], "error": {"code": 502}}',
    ],
)
def test_forms_of_errors_inside_a_stream(event: bytes) -> None:
    from yral_chat.clients.openai import _read

    failure = _read(event).failure
    assert isinstance(failure, ModelFailure)
    assert failure.outcome == "overloaded"


async def test_leaving_in_mid_stream_closes_the_call(server: FakeModelServer, client: OpenAIClient) -> None:
    server.default = Behaviour(stall_after=2)
    calls: list[ModelCall] = []
    async with closing_stream(client.stream(conversation(), calls)) as answer:
        async for item in answer:
            assert isinstance(item, Delta)
            if item.text == " from":
                break
    assert calls[0].outcome == "cancelled"
    await server.until(lambda: server.open_streams == 0)
    assert server.disconnects == 1


@pytest.mark.parametrize(
    ("behaviour", "output"),
    [
        (Behaviour(pieces=("four", "five "), cut_after_bytes=10_000, has_usage=False), 3),
        (Behaviour(pieces=("four", "five "), error_after=1), 1),
        (Behaviour(pieces=("नमस्ते",), has_usage=False), 5),
    ],
)
async def test_what_the_vendor_did_not_get_to_say_is_estimated(
    server: FakeModelServer, client: OpenAIClient, behaviour: Behaviour, output: int
) -> None:
    server.default = behaviour
    heard = await listen(client)
    [call] = heard.calls
    assert call.is_estimated
    assert call.usage.output == output
    assert call.usage.prompt > 0
    assert not server.invoice.lines[0].is_told


@pytest.mark.parametrize(
    "behaviour", [Behaviour(status=500), Behaviour(cut_after_bytes=0), Behaviour(status=429, is_load=True)], ids=str
)
async def test_what_has_not_begun_costs_nothing(
    server: FakeModelServer, client: OpenAIClient, behaviour: Behaviour
) -> None:
    server.default = behaviour
    heard = await listen(client)
    assert [(call.usage, call.is_estimated) for call in heard.calls] == [(Usage(), False)]
    assert server.invoice.lines == []
