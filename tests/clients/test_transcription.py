"""Speech to text over both wires, through the one policy of the chain."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tests.clients.media import AUDIO
from tests.fakes.model_server import CACHED_TOKENS, PROMPT_TOKENS, Behaviour, FakeModelServer
from yral_chat.clients.language_model import ModelCall, ModelFailure, Usage
from yral_chat.clients.transcription import (
    MAX_TRANSCRIPT_CHARACTERS,
    Transcriber,
    build_transcriber,
    plain_type,
    shortened,
)
from yral_chat.core.config import Settings

KEY = "key"
SAID = "नमस्ते, how are you?"


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer(key=KEY) as server:
        server.default = Behaviour(transcript=SAID)
        yield server


def settings_of(server: FakeModelServer, wire: str, models: tuple[str, ...] = ("one",)) -> Settings:
    if wire == "gemini":
        return Settings(
            _env_file=None,
            environment="test",
            gemini_api_key=SecretStr(KEY),
            gemini_base_url=server.base_url_gemini,
            gemini_models=models,
        )
    return Settings(
        _env_file=None,
        environment="test",
        openai_api_key=SecretStr(KEY),
        openai_base_url=server.base_url_openai,
        openai_models=("chat",),
        openai_transcription_model=models[0],
        gemini_api_key=SecretStr(KEY),
        gemini_base_url=server.base_url_gemini,
    )


@pytest.fixture(params=["gemini", "openai"])
async def transcriber(server: FakeModelServer, request: pytest.FixtureRequest) -> AsyncIterator[Transcriber]:
    built = build_transcriber(settings_of(server, request.param))
    assert built is not None
    assert built.provider == request.param
    yield built
    await built.close()


async def transcribe(
    transcriber: Transcriber,
    calls: list[ModelCall],
    audio: bytes = AUDIO,
    kind: str = "audio/webm",
    seconds: float = 30,
) -> str:
    return await transcriber.transcribe(
        audio, kind, deadline=time.monotonic() + seconds, correlation_id="c-1", calls=calls
    )


async def test_the_words_come_with_their_usage(server: FakeModelServer, transcriber: Transcriber) -> None:
    calls: list[ModelCall] = []
    assert await transcribe(transcriber, calls, kind="audio/webm;codecs=opus") == SAID
    [call] = calls
    assert (call.provider, call.outcome) == (transcriber.provider, "completed")
    cached = CACHED_TOKENS if transcriber.provider == "gemini" else 0
    assert call.usage == Usage(PROMPT_TOKENS, cached, 4)
    [received] = server.requests
    assert received.headers["x-correlation-id"] == "c-1"
    [medium] = received.media
    assert (medium.mime_type, medium.sha256) == ("audio/webm", hashlib.sha256(AUDIO).hexdigest())


async def test_twenty_megabytes_arrive_whole(server: FakeModelServer, transcriber: Transcriber) -> None:
    audio = AUDIO * 700
    assert await transcribe(transcriber, [], audio) == SAID
    assert server.requests[0].media[0].sha256 == hashlib.sha256(audio).hexdigest()


async def test_a_transient_failure_is_tried_again(server: FakeModelServer, transcriber: Transcriber) -> None:
    server.script.append(Behaviour(status=503))
    calls: list[ModelCall] = []
    assert await transcribe(transcriber, calls) == SAID
    assert [call.outcome for call in calls] == ["overloaded", "completed"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(503, "overloaded"), (429, "quota"), (404, "model_gone"), (400, "rejected"), (302, "rejected")],
)
async def test_failures_are_typed(server: FakeModelServer, transcriber: Transcriber, status: int, outcome: str) -> None:
    server.default = Behaviour(status=status)
    calls: list[ModelCall] = []
    with pytest.raises(ModelFailure) as caught:
        await transcribe(transcriber, calls)
    assert caught.value.outcome == outcome
    assert {call.outcome for call in calls} == {outcome}
    assert len(calls) <= 3


async def test_a_silent_vendor_times_out_inside_the_deadline(server: FakeModelServer, transcriber: Transcriber) -> None:
    server.default = Behaviour(first_byte_delay=60)
    calls: list[ModelCall] = []
    with pytest.raises(ModelFailure) as caught:
        await transcribe(transcriber, calls, seconds=0.2)
    assert caught.value.outcome == "timeout"
    assert [breaker.state for breaker in transcriber.circuits().values()] == ["closed"]


async def test_a_vendor_that_is_down_opens_the_circuit(server: FakeModelServer, transcriber: Transcriber) -> None:
    server.default = Behaviour(status=503)
    [breaker] = transcriber.circuits().values()
    for _ in range(2):
        with pytest.raises(ModelFailure):
            await transcribe(transcriber, [])
    assert breaker.state == "open"
    asked = server.request_count
    with pytest.raises(ModelFailure) as caught:
        await transcribe(transcriber, [])
    assert (caught.value.outcome, server.request_count) == ("unreachable", asked)


async def test_a_cancelled_transcription_closes_its_record(server: FakeModelServer, transcriber: Transcriber) -> None:
    server.default = Behaviour(first_byte_delay=60)
    calls: list[ModelCall] = []
    task = asyncio.create_task(transcribe(transcriber, calls))
    await server.until(lambda: server.open_streams == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [call.outcome for call in calls] == ["cancelled"]
    await server.until(lambda: server.disconnects == 1)
    [breaker] = transcriber.circuits().values()
    with breaker.admit() or pytest.fail("the admission leaked"):
        assert breaker.state == "closed"


async def test_a_long_transcription_is_cut(server: FakeModelServer, transcriber: Transcriber) -> None:
    server.default = Behaviour(transcript="word " * 2000)
    text = await transcribe(transcriber, [])
    assert MAX_TRANSCRIPT_CHARACTERS - 10 < len(text) <= MAX_TRANSCRIPT_CHARACTERS
    assert text.endswith("word…")


# --- Gemini alone


async def test_gemini_is_asked_for_the_words_and_nothing_else(server: FakeModelServer) -> None:
    transcriber = build_transcriber(settings_of(server, "gemini"))
    assert transcriber is not None
    await transcribe(transcriber, [])
    await transcriber.close()
    [received] = server.requests
    assert received.target == "/v1beta/models/one:generateContent"
    assert received.body["generationConfig"]["temperature"] == 0
    assert "verbatim" in received.body["systemInstruction"]["parts"][0]["text"]
    assert [next(iter(part)) for part in received.body["contents"][0]["parts"]] == ["inlineData", "text"]


@pytest.mark.parametrize("silence", ["[silence]", "[silence].", " [silence]\n"])
async def test_silence_is_an_empty_text(server: FakeModelServer, silence: str) -> None:
    server.default = Behaviour(transcript=silence)
    transcriber = build_transcriber(settings_of(server, "gemini"))
    assert transcriber is not None
    assert await transcribe(transcriber, []) == ""
    await transcriber.close()


async def test_an_empty_answer_of_gemini_is_a_failure_that_the_next_model_may_mend(server: FakeModelServer) -> None:
    server.models["one"] = Behaviour(transcript="")
    transcriber = build_transcriber(settings_of(server, "gemini", ("one", "two")))
    assert transcriber is not None
    calls: list[ModelCall] = []
    assert await transcribe(transcriber, calls) == SAID
    assert [(call.model, call.outcome) for call in calls] == [("one", "empty")] * 3 + [("two", "completed")]
    assert list(transcriber.circuits()) == ["one", "two"]
    await transcriber.close()


async def test_what_the_safety_layer_refuses_is_blocked(server: FakeModelServer) -> None:
    server.default = Behaviour(block_reason="PROHIBITED_CONTENT")
    transcriber = build_transcriber(settings_of(server, "gemini"))
    assert transcriber is not None
    with pytest.raises(ModelFailure, match="blocked"):
        await transcribe(transcriber, [])
    await transcriber.close()


# --- OpenAI alone


async def test_silence_at_openai_is_an_empty_text(server: FakeModelServer) -> None:
    server.default = Behaviour(transcript="", has_usage=False)
    transcriber = build_transcriber(settings_of(server, "openai"))
    assert transcriber is not None
    calls: list[ModelCall] = []
    assert await transcribe(transcriber, calls) == ""
    await transcriber.close()
    assert [(call.outcome, call.usage) for call in calls] == [("completed", Usage())]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("audio/mpeg", "mp3"), ("audio/mp4", "m4a"), ("audio/x-wav", "wav"), ("audio/ogg", "ogg"), ("audio/webm", "webm")],
)
async def test_the_name_of_the_file_tells_openai_its_type(server: FakeModelServer, kind: str, name: str) -> None:
    transcriber = build_transcriber(settings_of(server, "openai"))
    assert transcriber is not None
    assert await transcribe(transcriber, [], kind=kind) == SAID
    await transcriber.close()
    [received] = server.requests
    assert received.body == {"file": f"recording.{name}", "model": "one", "response_format": "json"}


# --- the choice, and the helpers


def test_without_a_vendor_there_is_no_transcriber() -> None:
    assert build_transcriber(Settings(_env_file=None, environment="test")) is None
    unset = Settings(_env_file=None, environment="test", openai_transcription_model="whisper-1")
    assert build_transcriber(unset) is None


def test_types_are_named_as_the_vendors_name_them() -> None:
    assert plain_type("Audio/WebM; codecs=opus") == "audio/webm"
    assert plain_type("audio/x-wav") == "audio/wav"


@pytest.mark.parametrize("text", ["", "x" * MAX_TRANSCRIPT_CHARACTERS, "a b"])
def test_a_text_that_fits_stays_as_it_is(text: str) -> None:
    assert shortened(text) == text


@pytest.mark.parametrize("text", ["字" * 5000, "x " * 3000, "a" + " " * 5000 + "b", ("y" * 3998) + " z" * 9])
def test_a_text_that_does_not_fit_is_cut(text: str) -> None:
    cut = shortened(text)
    assert len(cut) <= MAX_TRANSCRIPT_CHARACTERS
    assert cut.endswith("…")
    assert text.startswith(cut[:-1])
