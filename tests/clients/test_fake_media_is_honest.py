"""The fake vendor takes and gives media as the vendors' own clients do, and ours sends what theirs send.

Replicate's client is not among our tools: its wire is what the documentation says.
"""

import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import openai as openai_sdk
import pytest
from google import genai
from google.genai import errors, types
from openai.types.chat import ChatCompletionContentPartParam

from tests.clients.conversations import conversation, listen
from tests.clients.media import AUDIO, JPEG, PNG, showing
from tests.clients.test_fake_is_honest import KEY, MODEL, gemini, google_client, in_camel_case, openai_client
from tests.fakes.media import sample_picture
from tests.fakes.model_server import PROMPT_TOKENS, Behaviour, FakeModelServer
from yral_chat.clients.gemini import GeminiClient
from yral_chat.clients.images.openai import OpenAIImagesClient
from yral_chat.clients.language_model import Picture
from yral_chat.clients.model_chain import ChainLink, ModelChain
from yral_chat.clients.openai_transcription import OpenAITranscriptionClient
from yral_chat.clients.resilience import CircuitBreaker
from yral_chat.clients.transcription import INSTRUCTION, MAX_OUTPUT_TOKENS, REQUEST, ChainTranscriber

# google-genai subclasses aiohttp's session, which aiohttp warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


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


@pytest.fixture
async def openai(server: FakeModelServer) -> AsyncIterator[openai_sdk.AsyncOpenAI]:
    client = openai_sdk.AsyncOpenAI(api_key=KEY, base_url=server.base_url_openai, max_retries=0, timeout=5)
    yield client
    await client.close()


def in_one_alphabet(value: Any) -> Any:
    """The vendor's parser takes either alphabet of base64 (https://protobuf.dev/programming-guides/json/), and the
    vendor's client writes the other one than the vendor's documentation."""
    if isinstance(value, dict):
        return {
            name: item.replace("-", "+").replace("_", "/") if name == "data" else in_one_alphabet(item)
            for name, item in value.items()
        }
    return [in_one_alphabet(item) for item in value] if isinstance(value, list) else value


def google_part(picture: Picture) -> types.Part:
    return types.Part.from_bytes(data=picture.data, mime_type=picture.mime_type)


def transcriber_of(model: GeminiClient | OpenAITranscriptionClient) -> ChainTranscriber:
    return ChainTranscriber(
        ModelChain([ChainLink(model.provider, model.model, model, CircuitBreaker())]), model.provider
    )


async def transcribe(model: GeminiClient | OpenAITranscriptionClient, kind: str) -> str:
    transcriber = transcriber_of(model)
    text = await transcriber.transcribe(AUDIO, kind, deadline=time.monotonic() + 30, correlation_id="", calls=[])
    await transcriber.close()
    return text


# --- Gemini


async def test_we_show_pictures_as_google_does(server: FakeModelServer, google: genai.Client) -> None:
    client = gemini(server)
    heard = await listen(client, showing(conversation("Hi", "Hello!", "Look!"), PNG, JPEG))
    await client.close()
    assert heard.outcome == "completed"
    stream = await google.aio.models.generate_content_stream(
        model=MODEL,
        contents=[
            types.Content(role="user", parts=[types.Part(text="Hi")]),
            types.Content(role="model", parts=[types.Part(text="Hello!")]),
            types.Content(role="user", parts=[google_part(PNG), google_part(JPEG), types.Part(text="Look!")]),
        ],
        config=types.GenerateContentConfig(system_instruction="You are Asha.", temperature=0.7, max_output_tokens=2048),
    )
    assert [chunk async for chunk in stream]
    mine, theirs = server.requests
    assert mine.target == theirs.target
    assert mine.body == in_one_alphabet(in_camel_case(theirs.body))
    assert mine.media == theirs.media


async def test_we_send_recordings_as_google_does(server: FakeModelServer, google: genai.Client) -> None:
    mine_said = await transcribe(gemini(server, is_streamed=False), "audio/ogg")
    answer = await google.aio.models.generate_content(
        model=MODEL,
        contents=types.Content(
            role="user",
            parts=[types.Part.from_bytes(data=AUDIO, mime_type="audio/ogg"), types.Part(text=REQUEST)],
        ),
        config=types.GenerateContentConfig(
            system_instruction=INSTRUCTION, temperature=0, max_output_tokens=MAX_OUTPUT_TOKENS
        ),
    )
    assert mine_said == answer.text == Behaviour().transcript
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == PROMPT_TOKENS
    mine, theirs = server.requests
    assert mine.target == theirs.target == f"/v1beta/models/{MODEL}:generateContent"
    assert mine.body == in_one_alphabet(in_camel_case(theirs.body))
    assert mine.media == theirs.media


@pytest.mark.parametrize(
    "picture",
    [Picture("image/gif", sample_picture("x", "GIF")), Picture("image/png", b"no picture"), Picture("x/y", PNG.data)],
)
async def test_google_is_told_of_pictures_that_it_cannot_send(
    server: FakeModelServer, google: genai.Client, picture: Picture
) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await google.aio.models.generate_content(model=MODEL, contents=google_part(picture))
    assert caught.value.code == 400


async def test_google_is_told_that_a_model_has_no_eyes(server: FakeModelServer, google: genai.Client) -> None:
    server.default = Behaviour(picture_status=400)
    with pytest.raises(errors.ClientError, match="not supported"):
        await google.aio.models.generate_content(model=MODEL, contents=google_part(PNG))


# --- OpenAI


def openai_part(picture: Picture) -> ChatCompletionContentPartParam:
    return {"type": "image_url", "image_url": {"url": url_of(picture)}}


def url_of(picture: Picture) -> str:
    return f"data:{picture.mime_type};base64,{b64encode(picture.data).decode()}"


async def test_we_show_pictures_as_openai_does(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    client = openai_client(server)
    heard = await listen(client, showing(conversation("Hi", "Hello!", "Look!"), PNG, JPEG))
    await client.close()
    assert heard.outcome == "completed"
    stream = await openai.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "You are Asha."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": [openai_part(PNG), openai_part(JPEG), {"type": "text", "text": "Look!"}]},
        ],
        temperature=0.7,
        max_tokens=2048,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert [chunk async for chunk in stream]
    mine, theirs = server.requests
    assert mine.body == theirs.body
    assert mine.media == theirs.media


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,####", "data:image/png;base64,AAAA", "https://example.com/x.png"]
)
async def test_openai_is_told_of_pictures_that_it_cannot_send(openai: openai_sdk.AsyncOpenAI, url: str) -> None:
    part: ChatCompletionContentPartParam = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(openai_sdk.BadRequestError):
        await openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])


async def test_we_send_recordings_as_openai_does(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    client = OpenAITranscriptionClient(model="whisper-1", api_key=KEY, base_url=server.base_url_openai)
    mine_said = await transcribe(client, "audio/wav")
    answer = await openai.audio.transcriptions.create(
        file=("recording.wav", AUDIO, "audio/wav"), model="whisper-1", response_format="json"
    )
    assert mine_said == answer.text == Behaviour().transcript
    assert answer.usage is not None
    assert answer.usage.type == "tokens"
    assert answer.usage.input_tokens == PROMPT_TOKENS
    mine, theirs = server.requests
    assert mine.target == theirs.target
    assert mine.body == theirs.body
    assert mine.media == theirs.media
    assert mine.headers["authorization"] == theirs.headers["authorization"]


async def test_openai_is_told_of_recordings_that_it_cannot_send(openai: openai_sdk.AsyncOpenAI) -> None:
    for name, data in (("x.txt", AUDIO), ("x.wav", b"")):
        with pytest.raises(openai_sdk.BadRequestError):
            await openai.audio.transcriptions.create(file=(name, data), model="whisper-1")


async def test_we_ask_for_pictures_as_openai_does(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    client = OpenAIImagesClient(
        api_key=KEY, model="gpt-image-1", breaker=CircuitBreaker(), base_url=server.base_url_openai
    )
    made = await client.make("a cat", None, deadline=time.monotonic() + 30, correlation_id="", calls=[])
    await client.close()
    answer = await openai.images.generate(model="gpt-image-1", prompt="a cat", n=1, size="1024x1024")
    assert answer.data is not None
    assert b64decode(answer.data[0].b64_json or "") == made.data
    assert answer.usage is not None
    assert answer.usage.input_tokens == PROMPT_TOKENS
    mine, theirs = server.requests
    assert (mine.target, mine.body) == (theirs.target, theirs.body)


async def test_openai_sees_refusals_of_pictures(server: FakeModelServer, openai: openai_sdk.AsyncOpenAI) -> None:
    server.script.extend([Behaviour(prediction="nsfw"), Behaviour(status=429), Behaviour(output="url")])
    with pytest.raises(openai_sdk.BadRequestError) as caught:
        await openai.images.generate(model="gpt-image-1", prompt="x")
    assert caught.value.code == "moderation_blocked"
    with pytest.raises(openai_sdk.RateLimitError):
        await openai.images.generate(model="gpt-image-1", prompt="x")
    answer = await openai.images.generate(model="gpt-image-1", prompt="x")
    assert answer.data is not None
    assert (answer.data[0].url or "").startswith(f"{server.base_url}/files/")
