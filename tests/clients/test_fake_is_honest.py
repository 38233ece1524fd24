"""The fake vendor satisfies the vendors' own clients, and ours sends what theirs send.

So what our clients are tested against is not merely what we believe about the vendors.
"""

import json
import re
import signal
import sys
from asyncio import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai as openai_sdk
import pytest
from google import genai
from google.genai import errors, types
from openai.types.chat import ChatCompletionMessageParam

from tests.clients.conversations import conversation, listen
from tests.fakes.model_server import CACHED_TOKENS, PROMPT_TOKENS, Behaviour, FakeModelServer, echo_text
from yral_chat.clients.gemini import SAFETY_CATEGORIES, GeminiClient
from yral_chat.clients.language_model import LanguageModel
from yral_chat.clients.openai import OpenAIClient

KEY = "test-key-0123456789"
MODEL = "gemini-2.5-flash"
HINDI = ("नमस्ते", ", मैं ", "आशा हूँ 😀", "!")
# google-genai subclasses aiohttp's session, which aiohttp warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer(key=KEY) as server:
        yield server


@pytest.fixture
async def google(server: FakeModelServer) -> AsyncIterator[genai.Client]:
    client = google_client(server)
    yield client
    await client.aio.aclose()
    client.close()


def google_client(server: FakeModelServer, key: str = KEY) -> genai.Client:
    return genai.Client(
        api_key=key, http_options=types.HttpOptions(base_url=server.base_url, api_version="v1beta", timeout=5000)
    )


@pytest.fixture
async def openai(server: FakeModelServer) -> AsyncIterator[openai_sdk.AsyncOpenAI]:
    client = openai_sdk.AsyncOpenAI(api_key=KEY, base_url=server.base_url_openai, max_retries=0, timeout=5)
    yield client
    await client.close()


async def google_stream(client: genai.Client, text: str = "Hello!") -> list[types.GenerateContentResponse]:
    stream = await client.aio.models.generate_content_stream(model=MODEL, contents=text)
    return [chunk async for chunk in stream]


async def openai_stream(client: openai_sdk.AsyncOpenAI, text: str = "Hello!") -> list[Any]:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return [chunk async for chunk in stream]


# --- Gemini

TRAVELS = [
    Behaviour(pieces=HINDI),
    Behaviour(pieces=HINDI, packets="split_character"),
    Behaviour(pieces=HINDI, packets="split_event", newline="\r\n"),
    Behaviour(pieces=HINDI, packets="pairs"),
    Behaviour(pieces=HINDI, duplicate=1),
    Behaviour(chunks=1, chunk_text="x" * 1_000_000),
]


@pytest.mark.parametrize("behaviour", TRAVELS, ids=lambda behaviour: str(behaviour)[:60])
async def test_google_hears_what_we_hear(server: FakeModelServer, google: genai.Client, behaviour: Behaviour) -> None:
    server.default = behaviour
    theirs = "".join(chunk.text or "" for chunk in await google_stream(google))
    assert theirs == (await ours(server, gemini(server))).text


async def test_google_streams_with_usage_and_thoughts(server: FakeModelServer, google: genai.Client) -> None:
    server.default = Behaviour(thoughts=("Hm.",), thinking_tokens=9, model_version="gemini-3.5-flash-lite")
    chunks = await google_stream(google)
    usage = chunks[-1].usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (PROMPT_TOKENS, CACHED_TOKENS)
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (4, 9)
    assert chunks[-1].model_version == "gemini-3.5-flash-lite"
    assert chunks[-1].candidates is not None
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP


async def test_google_without_streaming(server: FakeModelServer, google: genai.Client) -> None:
    server.default = Behaviour(echo=True)
    answer = await google.aio.models.generate_content(model=MODEL, contents="How are you?")
    assert answer.text == echo_text("How are you?")
    assert server.requests[-1].target == f"/v1beta/models/{MODEL}:generateContent"


async def test_google_sees_blocks_and_endings(server: FakeModelServer, google: genai.Client) -> None:
    server.script.extend(
        [Behaviour(block_reason="PROHIBITED_CONTENT"), Behaviour(finish_reason="SAFETY"), Behaviour(pieces=())]
    )
    [blocked] = await google_stream(google)
    assert blocked.prompt_feedback is not None
    assert blocked.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    stopped = (await google_stream(google))[-1]
    assert stopped.candidates is not None
    assert stopped.candidates[0].finish_reason == types.FinishReason.SAFETY
    assert [chunk.text for chunk in await google_stream(google)] == [None]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_google_understands_errors(server: FakeModelServer, google: genai.Client, status: int) -> None:
    server.default = Behaviour(status=status, retry_after=13.5)
    with pytest.raises(errors.APIError) as caught:
        await google_stream(google)
    assert caught.value.code == status
    assert caught.value.status is not None
    details = caught.value.details["error"]["details"]
    assert [detail["retryDelay"] for detail in details if "RetryInfo" in detail["@type"]] == ["13.5s"]


async def test_google_understands_an_error_inside_a_stream(server: FakeModelServer, google: genai.Client) -> None:
    server.default = Behaviour(error_after=2, error_status=503)
    with pytest.raises(errors.APIError) as caught:
        await google_stream(google)
    assert caught.value.code == 503


async def test_google_is_refused_with_a_wrong_key(server: FakeModelServer) -> None:
    client = google_client(server, key="wrong")
    with pytest.raises(errors.ClientError) as caught:
        await google_stream(client)
    await client.aio.aclose()
    client.close()
    assert "API key not valid" in str(caught.value.message)


def gemini(server: FakeModelServer, **options: Any) -> GeminiClient:
    return GeminiClient(**{"api_key": KEY, "model": MODEL, "base_url": server.base_url_gemini, **options})


async def ours(server: FakeModelServer, client: LanguageModel, *texts: str) -> Any:
    heard = await listen(client, conversation(*texts))
    await client.close()
    return heard


def in_camel_case(value: Any) -> Any:
    """The vendor's parser takes either spelling of a name (https://protobuf.dev/programming-guides/json/), and the
    vendor's client writes `thinking_budget` where the vendor's documentation writes `thinkingBudget`."""
    if isinstance(value, dict):
        return {re.sub("_([a-z])", lambda m: m[1].upper(), name): in_camel_case(item) for name, item in value.items()}
    return [in_camel_case(item) for item in value] if isinstance(value, list) else value


CONVERSATIONS = [("Hello!",), ("Hi", "Hello!", "How are you? 😀 नमस्ते"), ('"quotes" \\ and \n lines', "ok", "\u2028")]


@pytest.mark.parametrize("texts", CONVERSATIONS, ids=len)
@pytest.mark.parametrize("thinking_budget", [None, 0, -1, 512])
@pytest.mark.parametrize("threshold", [None, "OFF", "BLOCK_ONLY_HIGH"])
async def test_we_send_what_google_sends(
    server: FakeModelServer,
    google: genai.Client,
    texts: tuple[str, ...],
    thinking_budget: int | None,
    threshold: str | None,
) -> None:
    client = gemini(server, thinking_budget=thinking_budget, safety_threshold=threshold)
    assert (await ours(server, client, *texts)).outcome == "completed"
    config = types.GenerateContentConfig(system_instruction="You are Asha.", temperature=0.7, max_output_tokens=2048)
    if thinking_budget is not None:
        config.thinking_config = types.ThinkingConfig(thinking_budget=thinking_budget)
    if threshold is not None:
        config.safety_settings = [
            types.SafetySetting(category=types.HarmCategory(name), threshold=types.HarmBlockThreshold(threshold))
            for name in SAFETY_CATEGORIES
        ]
    contents: list[types.ContentUnion] = [
        types.Content(role="model" if at % 2 else "user", parts=[types.Part(text=text)])
        for at, text in enumerate(texts)
    ]
    stream = await google.aio.models.generate_content_stream(model=MODEL, contents=list(contents), config=config)
    assert [chunk async for chunk in stream]
    mine, theirs = server.requests
    assert mine.target == theirs.target
    assert mine.body == in_camel_case(theirs.body)
    assert mine.headers["x-goog-api-key"] == theirs.headers["x-goog-api-key"]


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "A short one."},
        "reason": {"type": ["string", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "reason", "tags"],
    "additionalProperties": False,
}


async def ours_with_schema(client: LanguageModel) -> Any:
    heard = await listen(client, msgspec.structs.replace(conversation("Hello!"), schema=SCHEMA))
    await client.close()
    return heard


async def test_we_ask_google_for_json_as_google_does(server: FakeModelServer, google: genai.Client) -> None:
    server.default = Behaviour(pieces=('{"name": "Asha"', "}"))
    assert (await ours_with_schema(gemini(server))).text == '{"name": "Asha"}'
    config = types.GenerateContentConfig(
        system_instruction="You are Asha.",
        temperature=0.7,
        max_output_tokens=2048,
        response_mime_type="application/json",
        response_json_schema=SCHEMA,
    )
    stream = await google.aio.models.generate_content_stream(model=MODEL, contents="Hello!", config=config)
    assert [chunk async for chunk in stream]
    mine, theirs = server.requests
    assert mine.body["generationConfig"].pop("responseJsonSchema") == SCHEMA
    their_schema = theirs.body["generationConfig"].pop("responseJsonSchema")
    assert their_schema == SCHEMA
    assert mine.body == in_camel_case(theirs.body)


# --- OpenAI


@pytest.mark.parametrize("behaviour", TRAVELS, ids=lambda behaviour: str(behaviour)[:60])
async def test_openai_hears_what_we_hear(
    server: FakeModelServer, openai: openai_sdk.AsyncOpenAI, behaviour: Behaviour
) -> None:
    server.default = behaviour
    chunks = await openai_stream(openai)
    theirs = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert theirs == (await ours(server, openai_client(server))).text


async def test_openai_streams_with_usage(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    server.default = Behaviour(thinking_tokens=9)
    chunks = await openai_stream(openai)
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (PROMPT_TOKENS, CACHED_TOKENS)
    assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (13, 9)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


async def test_openai_without_streaming(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    server.default = Behaviour(echo=True)
    answer = await openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content == echo_text("Hi")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == PROMPT_TOKENS


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai_sdk.BadRequestError),
        (401, openai_sdk.AuthenticationError),
        (404, openai_sdk.NotFoundError),
        (429, openai_sdk.RateLimitError),
        (500, openai_sdk.InternalServerError),
        (503, openai_sdk.InternalServerError),
    ],
)
async def test_openai_understands_errors(
    server: FakeModelServer, openai: openai_sdk.AsyncOpenAI, status: int, kind: type[openai_sdk.APIStatusError]
) -> None:
    server.default = Behaviour(status=status, retry_after=2)
    with pytest.raises(kind) as caught:
        await openai_stream(openai)
    assert caught.value.status_code == status
    assert caught.value.response.headers["Retry-After"] == "2"


async def test_openai_understands_an_error_inside_a_stream(
    server: FakeModelServer, openai: openai_sdk.AsyncOpenAI
) -> None:
    server.default = Behaviour(error_after=2)
    with pytest.raises(openai_sdk.APIError):
        await openai_stream(openai)


async def test_openai_notices_a_cut(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    server.default = Behaviour(cut_after_bytes=400)
    with pytest.raises(openai_sdk.APIConnectionError):
        await openai_stream(openai)


def openai_client(server: FakeModelServer) -> OpenAIClient:
    return OpenAIClient(api_key=KEY, model=MODEL, base_url=server.base_url_openai)


@pytest.mark.parametrize("texts", CONVERSATIONS, ids=len)
async def test_we_send_what_openai_sends(
    server: FakeModelServer, openai: openai_sdk.AsyncOpenAI, texts: tuple[str, ...]
) -> None:
    assert (await ours(server, openai_client(server), *texts)).outcome == "completed"
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": "You are Asha."}]
    for at, text in enumerate(texts):
        if at % 2:
            messages.append({"role": "assistant", "content": text})
        else:
            messages.append({"role": "user", "content": text})
    stream = await openai.chat.completions.create(
        model=MODEL,
        messages=messages,
        temperature=0.7,
        max_tokens=2048,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert [chunk async for chunk in stream]
    mine, theirs = server.requests
    assert mine.target == theirs.target
    assert mine.body == theirs.body
    assert mine.headers["authorization"] == theirs.headers["authorization"]


async def test_we_ask_openai_for_json_as_openai_does(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    assert (await ours_with_schema(openai_client(server))).outcome == "completed"
    stream = await openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "You are Asha."}, {"role": "user", "content": "Hello!"}],
        temperature=0.7,
        max_tokens=2048,
        stream=True,
        stream_options={"include_usage": True},
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
    )
    assert [chunk async for chunk in stream]
    mine, theirs = server.requests
    assert mine.body == theirs.body


# --- as a program


async def test_runs_as_a_program_and_obeys_over_http() -> None:
    program = await subprocess.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.model_server", "--port", "0", stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert program.stdout is not None
        addresses = json.loads(await program.stdout.readline())
        control = f"{addresses['base_url']}/control"
        client = GeminiClient(api_key="any", model=MODEL, base_url=addresses["base_url_gemini"])
        async with aiohttp.ClientSession() as session:
            wish = {"default": {"echo": True}, "script": [{"status": 503}], "models": {"gone": {"status": 404}}}
            async with session.post(control, json=wish) as response:
                assert (response.status, (await response.json())["script"]) == (200, 1)
            assert (await listen(client)).outcome == "overloaded"
            assert (await listen(client)).text == echo_text("Hello!")
            gone = GeminiClient(api_key="any", model="gone", base_url=addresses["base_url_gemini"])
            assert (await listen(gone)).outcome == "model_gone"
            await gone.close()
            async with session.get(f"{control}/requests") as response:
                assert [received["model"] for received in await response.json()] == [MODEL, MODEL, "gone"]
            async with session.post(control, json={"default": {"no_such_thing": 1}}) as response:
                assert response.status == 400
            async with session.post(control, json={"reset": True}) as response:
                assert (await response.json())["requests"] == 0
        await client.close()
        program.send_signal(signal.SIGTERM)
        assert await program.wait() == 0
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
