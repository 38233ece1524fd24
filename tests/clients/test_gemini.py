"""GeminiClient against the fake vendor: what it sends, and a typed outcome for everything that can come back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clients.conversations import conversation, listen
from tests.fakes.model_server import CACHED_TOKENS, PROMPT_TOKENS, Behaviour, FakeModelServer
from yral_chat.clients.gemini import BLOCK_REASONS, FINISH_REASONS, GeminiClient
from yral_chat.clients.language_model import Delta, ModelCall, ModelMessage, Usage, closing_stream
from yral_chat.clients.sse import MAX_EVENT_BYTES

KEY = "test-key-0123456789"
MODEL = "gemini-2.5-flash"


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer(key=KEY) as server:
        yield server


@pytest.fixture
async def client(server: FakeModelServer) -> AsyncIterator[GeminiClient]:
    client = gemini(server)
    yield client
    await client.close()


def gemini(server: FakeModelServer, **options: Any) -> GeminiClient:
    return GeminiClient(**{"api_key": KEY, "model": MODEL, "base_url": server.base_url_gemini, **options})


# --- what it sends


async def test_sends_the_key_in_a_header_and_nowhere_else(server: FakeModelServer, client: GeminiClient) -> None:
    await listen(client, conversation(correlation_id="c-1"))
    request = server.requests[-1]
    assert request.target == f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == KEY
    assert request.headers["x-correlation-id"] == "c-1"
    assert KEY not in request.target
    assert KEY not in str(request.body)


async def test_sends_system_history_and_settings(server: FakeModelServer) -> None:
    client = gemini(server, thinking_budget=0, safety_threshold="BLOCK_ONLY_HIGH")
    await listen(client, conversation("Hi", "Hello!", "How are you?", system="You are Asha."))
    await client.close()
    assert server.requests[-1].body == {
        "systemInstruction": {"parts": [{"text": "You are Asha."}], "role": "user"},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello!"}]},
            {"role": "user", "parts": [{"text": "How are you?"}]},
        ],
        "generationConfig": {"temperature": 0.7, "maxOutputTokens": 2048, "thinkingConfig": {"thinkingBudget": 0}},
        "safetySettings": [
            {"category": f"HARM_CATEGORY_{name}", "threshold": "BLOCK_ONLY_HIGH"}
            for name in ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
        ],
    }


async def test_leaves_out_what_is_not_set(server: FakeModelServer, client: GeminiClient) -> None:
    await listen(client, conversation(system=""))
    assert set(server.requests[-1].body) == {"contents", "generationConfig"}
    assert set(server.requests[-1].body["generationConfig"]) == {"temperature", "maxOutputTokens"}


async def test_merges_neighbours_of_one_role_and_drops_empty_texts(
    server: FakeModelServer, client: GeminiClient
) -> None:
    request = conversation()
    messages = (
        ModelMessage("user", "one"),
        ModelMessage("user", "two"),
        ModelMessage("assistant", ""),
        ModelMessage("user", "three"),
        ModelMessage("assistant", "four"),
        ModelMessage("user", "five"),
    )
    heard = await listen(client, type(request)(request.system, messages, request.persona, request.deadline))
    assert heard.outcome == "completed"
    assert server.requests[-1].body["contents"] == [
        {"role": "user", "parts": [{"text": "one"}, {"text": "two"}, {"text": "three"}]},
        {"role": "model", "parts": [{"text": "four"}]},
        {"role": "user", "parts": [{"text": "five"}]},
    ]


async def test_a_conversation_that_opens_with_the_persona_is_accepted(
    server: FakeModelServer, client: GeminiClient
) -> None:
    heard = await listen(client, conversation("I am Asha, hello!", "Hi", first="assistant"))
    assert heard.outcome == "completed"
    assert [content["role"] for content in server.requests[-1].body["contents"]] == ["user", "model", "user"]


# --- good answers


async def test_answer_usage_and_record(server: FakeModelServer, client: GeminiClient) -> None:
    server.default = Behaviour(pieces=("Na", "ma", "ste 🙏"), thinking_tokens=9, model_version="gemini-3.5-flash-lite")
    heard = await listen(client)
    usage = Usage(prompt=PROMPT_TOKENS, cached=CACHED_TOKENS, output=3, thinking=9)
    assert heard.deltas == ["Na", "ma", "ste 🙏"]
    assert heard.completion is not None
    assert (heard.completion.outcome, heard.completion.finish_reason) == ("completed", "STOP")
    assert (heard.completion.provider, heard.completion.model) == ("gemini", "gemini-3.5-flash-lite")
    assert heard.completion.usage == usage
    [call] = heard.calls
    assert (call.provider, call.model, call.outcome, call.usage) == (
        "gemini",
        "gemini-3.5-flash-lite",
        "completed",
        usage,
    )
    assert call.first_token_seconds is not None
    assert call.duration_seconds is not None
    assert 0 < call.first_token_seconds <= call.duration_seconds


HINDI = ("नमस्ते", ", मैं ", "आशा हूँ 😀", "!")


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(pieces=HINDI),
        Behaviour(pieces=HINDI, packets="split_character"),
        Behaviour(pieces=HINDI, packets="split_event", newline="\r\n"),
        Behaviour(pieces=HINDI, packets="pairs"),
        Behaviour(pieces=HINDI, newline="\r\n"),
        Behaviour(pieces=HINDI, newline="\r"),
        Behaviour(pieces=HINDI, has_comments=True),
        Behaviour(pieces=HINDI, is_streamed=False),
        Behaviour(pieces=HINDI, thoughts=("Let me think.",)),
        Behaviour(pieces=HINDI, finish_at="everywhere"),
        Behaviour(pieces=HINDI, is_last_line_open=True),
        Behaviour(pieces=HINDI, has_usage=False),
    ],
    ids=str,
)
async def test_the_text_is_the_same_however_it_travels(
    server: FakeModelServer, client: GeminiClient, behaviour: Behaviour
) -> None:
    server.default = behaviour
    heard = await listen(client)
    assert (heard.outcome, heard.text) == ("completed", "".join(HINDI))


async def test_a_chunk_of_a_megabyte_arrives(server: FakeModelServer, client: GeminiClient) -> None:
    server.default = Behaviour(chunks=2, chunk_text="x" * 1_000_000)
    assert len((await listen(client)).text) == 2_000_000


async def test_a_chunk_beyond_the_limit_is_unreachable(server: FakeModelServer, client: GeminiClient) -> None:
    server.default = Behaviour(chunks=1, chunk_text="x" * (MAX_EVENT_BYTES + 1))
    assert (await listen(client)).outcome == "unreachable"


async def test_a_repeated_chunk_is_text_like_any_other(server: FakeModelServer, client: GeminiClient) -> None:
    # Nothing tells it from a model that says a word twice; the vendor's own client repeats it as well.
    server.default = Behaviour(pieces=("ha", "!"), duplicate=0)
    assert (await listen(client)).text == "haha!"


# --- every ending


@pytest.mark.parametrize(("reason", "outcome"), sorted(FINISH_REASONS.items()))
async def test_finish_reasons_after_text(
    server: FakeModelServer, client: GeminiClient, reason: str, outcome: str
) -> None:
    server.default = Behaviour(finish_reason=reason)
    heard = await listen(client)
    # Text that was stopped for the model's own reasons is an answer, a shortened one.
    assert heard.outcome == ("truncated" if outcome == "empty" else outcome)
    assert heard.text == "Hello from the fake."
    if heard.completion is not None:
        assert heard.completion.finish_reason == reason
    else:
        assert heard.failure is not None
        assert reason in heard.failure.reason


@pytest.mark.parametrize(("reason", "outcome"), sorted(FINISH_REASONS.items()))
async def test_finish_reasons_without_text(
    server: FakeModelServer, client: GeminiClient, reason: str, outcome: str
) -> None:
    server.default = Behaviour(pieces=(), finish_reason=reason, thinking_tokens=50)
    heard = await listen(client)
    assert heard.failure is not None, "an answer without text is never an answer"
    assert heard.outcome == ("empty" if outcome == "completed" else outcome)
    assert heard.calls[0].usage.thinking == 50


async def test_an_unknown_finish_reason_is_typed_and_not_passed_on(
    server: FakeModelServer, client: GeminiClient
) -> None:
    server.script.append(Behaviour(finish_reason="SECRET_NEW_REASON"))
    with_text = await listen(client)
    assert with_text.completion is not None
    assert (with_text.outcome, with_text.completion.finish_reason) == ("truncated", "unrecognised")
    server.script.append(Behaviour(finish_reason="SECRET_NEW_REASON", pieces=()))
    without_text = await listen(client)
    assert without_text.failure is not None
    assert (without_text.outcome, without_text.failure.reason) == ("empty", "finish reason unrecognised")


@pytest.mark.parametrize("reason", [*sorted(BLOCK_REASONS), "SOMETHING_NEW"])
async def test_a_blocked_prompt(server: FakeModelServer, client: GeminiClient, reason: str) -> None:
    server.default = Behaviour(block_reason=reason)
    heard = await listen(client)
    assert heard.outcome == "blocked"
    assert heard.calls[0].usage.prompt == PROMPT_TOKENS


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (Behaviour(has_candidates=False), "empty"),
        (Behaviour(pieces=()), "empty"),
        (Behaviour(pieces=("", "")), "empty"),
        (Behaviour(pieces=(" ", "\n")), "empty"),
        (Behaviour(pieces=(), thoughts=("I only think.",)), "empty"),
        (Behaviour(pieces=(), finish_reason=None), "empty"),
        (Behaviour(finish_reason=None), "unreachable"),
        (Behaviour(finish_at="start"), "unreachable"),
        (Behaviour(cut_after_bytes=0), "unreachable"),
        (Behaviour(cut_after_bytes=40), "unreachable"),
        (Behaviour(cut_after_bytes=500), "unreachable"),
        (Behaviour(invalid_utf8_in=0), "unreachable"),
        (Behaviour(invalid_utf8_in=2), "unreachable"),
        (Behaviour(error_after=0, error_status=503), "overloaded"),
        (Behaviour(error_after=2, error_status=503), "overloaded"),
        (Behaviour(error_after=2, error_status=429), "quota"),
        (Behaviour(error_after=2, finish_at="everywhere"), "overloaded"),
    ],
    ids=str,
)
async def test_bad_streams(server: FakeModelServer, client: GeminiClient, behaviour: Behaviour, outcome: str) -> None:
    server.default = behaviour
    heard = await listen(client)
    assert (heard.outcome, heard.calls[0].outcome) == (outcome, outcome)


@pytest.mark.parametrize(
    ("status", "outcome", "is_outage"),
    [
        (302, "rejected", False),
        (400, "rejected", False),
        (401, "rejected", True),
        (403, "rejected", True),
        (404, "model_gone", True),
        (410, "model_gone", True),
        (413, "rejected", False),
        (429, "quota", False),
        (500, "overloaded", True),
        (503, "overloaded", True),
        (504, "overloaded", True),
    ],
)
async def test_error_statuses(
    server: FakeModelServer, client: GeminiClient, status: int, outcome: str, is_outage: bool
) -> None:
    server.default = Behaviour(status=status)
    heard = await listen(client, conversation("my private words"))
    assert heard.failure is not None
    assert (heard.outcome, heard.failure.is_outage) == (outcome, is_outage)
    assert heard.failure.reason.startswith(f"HTTP {status}")
    assert "private" not in str(heard.failure)
    assert KEY not in str(heard.failure)


async def test_a_wrong_key_is_an_outage_although_the_vendor_calls_it_400(server: FakeModelServer) -> None:
    client = gemini(server, api_key="wrong")
    heard = await listen(client)
    await client.close()
    assert heard.failure is not None
    assert (heard.outcome, heard.failure.is_outage) == ("rejected", True)
    assert heard.failure.reason == "HTTP 400, key refused"


async def test_a_missing_key_is_refused() -> None:
    async with FakeModelServer() as server:
        client = gemini(server, api_key="")
        heard = await listen(client)
        await client.close()
    assert heard.failure is not None
    assert heard.failure.reason == "HTTP 403, key refused"


async def test_429_honours_retry_delay_and_tells_load_from_quota(server: FakeModelServer, client: GeminiClient) -> None:
    server.script.extend([Behaviour(status=429, retry_after=13.5), Behaviour(status=429, is_load=True)])
    quota, load = await listen(client), await listen(client)
    assert quota.failure is not None
    assert load.failure is not None
    assert (quota.outcome, quota.failure.retry_after) == ("quota", 13.5)
    assert (load.outcome, load.failure.retry_after) == ("overloaded", None)


# --- time and connections


@pytest.mark.parametrize("behaviour", [Behaviour(first_byte_delay=30), Behaviour(stall_after=2)], ids=str)
async def test_silence_is_a_timeout_and_closes_the_connection(server: FakeModelServer, behaviour: Behaviour) -> None:
    client = gemini(server, silence_seconds=1)
    server.default = behaviour
    heard = await listen(client)
    await client.close()
    assert heard.failure is not None
    assert (heard.outcome, heard.failure.is_outage) == ("timeout", True)
    assert heard.deltas == (["Hello", " from"] if behaviour.stall_after else [])
    await server.until(lambda: server.open_streams == 0)
    assert server.disconnects == 1


async def test_a_call_that_never_ends_is_a_timeout_although_it_is_never_silent(server: FakeModelServer) -> None:
    client = gemini(server, timeout_seconds=1)
    server.default = Behaviour(chunks=1000, chunk_delay=0.1)
    heard = await listen(client)
    await client.close()
    assert heard.outcome == "timeout"
    assert 1 <= len(heard.deltas) < 30


async def test_the_deadline_cuts_the_call_and_does_not_blame_the_vendor(
    server: FakeModelServer, client: GeminiClient
) -> None:
    server.default = Behaviour(first_byte_delay=30)
    heard = await listen(client, conversation(seconds=0.15))
    assert heard.failure is not None
    assert (heard.outcome, heard.failure.is_outage) == ("timeout", False)


async def test_no_call_is_made_after_the_deadline(server: FakeModelServer, client: GeminiClient) -> None:
    heard = await listen(client, conversation(seconds=-1))
    assert heard.outcome == "timeout"
    assert heard.calls == []
    assert server.request_count == 0


@pytest.mark.parametrize(
    ("reason", "outcome"), [("STOP", "completed"), ("MAX_TOKENS", "truncated"), ("SAFETY", "blocked")]
)
@pytest.mark.parametrize("pieces", [("Hello", " from the fake."), ()], ids=len)
async def test_the_end_stands_when_the_connection_is_not_closed(
    server: FakeModelServer, reason: str, outcome: str, pieces: tuple[str, ...]
) -> None:
    client = gemini(server, silence_seconds=0.5)
    server.default = Behaviour(pieces=pieces, finish_reason=reason, stays_open_seconds=30)
    heard = await listen(client)
    await client.close()
    # Without text the end may be a gateway's mistake, except for a refusal.
    assert heard.outcome == (outcome if pieces or outcome == "blocked" else "timeout")
    assert heard.text == "".join(pieces)


async def test_nobody_listens_there(nowhere: str) -> None:
    client = GeminiClient(api_key=KEY, model=MODEL, base_url=f"http://{nowhere}/v1beta")
    heard = await listen(client)
    await client.close()
    assert heard.failure is not None
    assert (heard.outcome, heard.failure.is_outage) == ("unreachable", True)
    assert heard.calls[0].outcome == "unreachable"


async def test_leaving_in_mid_stream_closes_the_call_and_keeps_its_usage(
    server: FakeModelServer, client: GeminiClient
) -> None:
    server.default = Behaviour(stall_after=2)
    calls: list[ModelCall] = []
    async with closing_stream(client.stream(conversation(), calls)) as answer:
        async for item in answer:
            assert isinstance(item, Delta)
            if item.text == " from":
                break
    assert calls[0].outcome == "cancelled"
    assert calls[0].usage.output == 2
    assert calls[0].duration_seconds is not None
    await server.until(lambda: server.open_streams == 0)


@pytest.mark.parametrize("behaviour", [Behaviour(first_byte_delay=30), Behaviour(stall_after=1)], ids=str)
async def test_a_cancelled_task_closes_the_call(
    server: FakeModelServer, client: GeminiClient, behaviour: Behaviour
) -> None:
    server.default = behaviour
    calls: list[ModelCall] = []

    async def consume() -> None:
        async for _ in client.stream(conversation(), calls):
            pass

    task = asyncio.create_task(consume())
    await server.until(lambda: server.open_streams == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls[0].outcome == "cancelled"
    await server.until(lambda: server.open_streams == 0)


async def test_a_consumer_that_stops_at_the_completion_does_not_cancel_it(client: GeminiClient) -> None:
    calls: list[ModelCall] = []
    async with closing_stream(client.stream(conversation(), calls)) as answer:
        async for item in answer:
            if not isinstance(item, Delta):
                break
    assert calls[0].outcome == "completed"


async def test_works_again_after_close(client: GeminiClient) -> None:
    await listen(client)
    await client.close()
    assert (await listen(client)).outcome == "completed"
