"""Pictures on request: what all vendors do alike, then Replicate, OpenAI's endpoint and the offline placeholder."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import SecretStr

from tests.clients.media import JPEG
from tests.fakes.behaviour import Output, Prediction
from tests.fakes.media import described, sample_picture
from tests.fakes.model_server import PROMPT_TOKENS, Behaviour, FakeModelServer
from yral_chat.clients.images import ImageModel, MadePicture, build_image_model
from yral_chat.clients.images.local import MAX_LINES, SIDE, first_words, render
from yral_chat.clients.images.openai import OpenAIImagesClient
from yral_chat.clients.images.output import checked, origin_of
from yral_chat.clients.images.replicate import ReplicateClient
from yral_chat.clients.language_model import ModelCall, ModelFailure, NoUsableModel, Picture
from yral_chat.clients.resilience import Backoff, CircuitBreaker
from yral_chat.core.config import Settings

KEY = "key"
PROMPT = "a cat on a sofa"
DEV, KONTEXT = "black-forest-labs/flux-dev", "black-forest-labs/flux-kontext-dev"
QUICK = Backoff(0.001, 1, 0.001)


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer(key=KEY) as server:
        yield server


def replicate_of(server: FakeModelServer, **options: Any) -> ReplicateClient:
    return ReplicateClient(
        **{
            "token": KEY,
            "models": (DEV, KONTEXT),
            "breaker": CircuitBreaker(failures=3),
            "base_url": server.base_url_replicate,
            "first_wait_seconds": 0.005,
            "backoff": QUICK,
            **options,
        }
    )


@pytest.fixture
async def replicate(server: FakeModelServer) -> AsyncIterator[ReplicateClient]:
    client = replicate_of(server)
    yield client
    await client.close()


@pytest.fixture
async def openai(server: FakeModelServer) -> AsyncIterator[OpenAIImagesClient]:
    client = OpenAIImagesClient(
        api_key=KEY, model="gpt-image-1", breaker=CircuitBreaker(failures=3), base_url=server.base_url_openai
    )
    yield client
    await client.close()


@pytest.fixture(params=["replicate", "openai"])
async def provider(
    request: pytest.FixtureRequest, replicate: ReplicateClient, openai: OpenAIImagesClient
) -> ImageModel:
    return replicate if request.param == "replicate" else openai


async def make(
    model: ImageModel, calls: list[ModelCall] | None = None, reference: Picture | None = None, seconds: float = 60
) -> MadePicture:
    calls = [] if calls is None else calls
    try:
        return await model.make(
            PROMPT, reference, deadline=time.monotonic() + seconds, correlation_id="c-1", calls=calls
        )
    finally:
        for call in calls:
            assert call.outcome is not None, "a call that was not closed"


async def outcome_of(model: ImageModel, **options: Any) -> str:
    with pytest.raises(ModelFailure) as caught:
        await make(model, **options)
    return caught.value.outcome


def state_of(model: ImageModel) -> str:
    [breaker] = model.circuits().values()
    return breaker.state


# --- both vendors


@pytest.mark.parametrize("output", ["natural", "url", "data"])
async def test_a_picture_is_made(server: FakeModelServer, provider: ImageModel, output: Output) -> None:
    server.default = Behaviour(output=output)
    calls: list[ModelCall] = []
    made = await make(provider, calls)
    assert made.data == sample_picture(PROMPT)
    assert (made.provider, made.model) == (provider.provider, calls[0].model)
    assert [call.outcome for call in calls] == ["completed"]
    assert server.requests[0].headers["x-correlation-id"] == "c-1"


@pytest.mark.parametrize("output", ["missing", "lying", "huge", "endless", "redirect", "gone"])
async def test_an_output_that_is_no_picture_is_none(
    server: FakeModelServer, provider: ImageModel, output: Output
) -> None:
    server.default = Behaviour(output=output)
    assert await outcome_of(provider) == "empty"
    assert state_of(provider) == "closed"
    assert server.request_count == 1, "it was paid for once more"


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "//127.0.0.1/x", "x", "http://[", "http://a:99999/",
     "data:image/png,x", "data:image/png;base64,####", "https:///x"],
)  # fmt: skip
async def test_an_output_is_fetched_from_safe_addresses_only(
    server: FakeModelServer, provider: ImageModel, url: str
) -> None:
    server.default = Behaviour(output="url", output_url=url)
    assert await outcome_of(provider) == "empty"


async def test_a_file_is_fetched_with_the_key_at_home_and_without_it_elsewhere(
    server: FakeModelServer, provider: ImageModel
) -> None:
    async with FakeModelServer(key=KEY) as elsewhere:
        server.script.append(Behaviour(output="url", output_url=f"{elsewhere.base_url}/files/{PROMPT}"))
        server.default = Behaviour(output="url")
        assert (await make(provider)).data == sample_picture(PROMPT)
        await make(provider)
        assert elsewhere.pictures.file_keys == [""]
        assert server.pictures.file_keys == [KEY]


@pytest.mark.parametrize(
    ("status", "outcome", "asked"),
    [
        (400, "rejected", 1), (402, "quota", 3), (404, "model_gone", 1), (408, "timeout", 1), (422, "rejected", 1),
        (429, "quota", 3), (500, "overloaded", 3), (503, "overloaded", 3), (302, "rejected", 1),
    ],
)  # fmt: skip
async def test_refusals_are_typed_and_repeated_only_where_nothing_was_begun(
    server: FakeModelServer, provider: ImageModel, status: int, outcome: str, asked: int
) -> None:
    server.default = Behaviour(status=status)
    calls: list[ModelCall] = []
    assert await outcome_of(provider, calls=calls) == outcome
    assert [call.outcome for call in calls] == [outcome] * asked


async def test_a_vendor_that_has_recovered_is_asked_again(server: FakeModelServer, provider: ImageModel) -> None:
    server.script.extend([Behaviour(status=503), Behaviour(status=429, retry_after=0.01)])
    calls: list[ModelCall] = []
    await make(provider, calls)
    assert [call.outcome for call in calls] == ["overloaded", "quota", "completed"]


async def test_a_vendor_that_wants_much_patience_is_not_waited_for(
    server: FakeModelServer, provider: ImageModel
) -> None:
    server.default = Behaviour(status=429, retry_after=60)
    assert await outcome_of(provider) == "quota"
    assert server.request_count == 1


async def test_a_wrong_key_is_rejected_and_opens_the_circuit(server: FakeModelServer) -> None:
    client = replicate_of(server, token="wrong", breaker=CircuitBreaker(failures=1))
    assert await outcome_of(client) == "rejected"
    assert state_of(client) == "open"
    await client.close()


async def test_a_vendor_that_is_down_opens_the_circuit_and_is_asked_no_more(
    server: FakeModelServer, provider: ImageModel
) -> None:
    server.default = Behaviour(status=503)
    await outcome_of(provider)
    assert state_of(provider) == "open"
    asked = server.request_count
    with pytest.raises(NoUsableModel) as caught:
        await make(provider)
    assert caught.value.retry_after
    assert server.request_count == asked


async def test_what_the_safety_layer_refuses_is_blocked(server: FakeModelServer, provider: ImageModel) -> None:
    server.default = Behaviour(prediction="nsfw")
    assert await outcome_of(provider) == "blocked"
    assert (server.request_count, state_of(provider)) == (1, "closed")


async def test_a_vendor_that_cannot_be_reached(nowhere: str) -> None:
    clients: list[ImageModel] = [
        ReplicateClient(token=KEY, models=(DEV,), breaker=CircuitBreaker(), base_url=f"http://{nowhere}/v1"),
        OpenAIImagesClient(model="m", breaker=CircuitBreaker(), base_url=f"http://{nowhere}/v1"),
    ]
    for client in clients:
        assert await outcome_of(client) == "unreachable"
        await client.close()


async def test_without_time_nobody_is_asked(server: FakeModelServer, provider: ImageModel) -> None:
    assert await outcome_of(provider, seconds=0) == "timeout"
    assert (server.request_count, state_of(provider)) == (0, "closed")


async def test_a_vendor_that_is_silent_times_out(server: FakeModelServer, provider: ImageModel) -> None:
    server.default = Behaviour(stall_after=0)
    assert await outcome_of(provider, seconds=0.1) == "timeout"


async def test_a_cancelled_picture_gives_its_place_in_the_circuit_back(
    server: FakeModelServer, provider: ImageModel
) -> None:
    server.default = Behaviour(stall_after=0)
    calls: list[ModelCall] = []
    task = asyncio.create_task(make(provider, calls))
    await server.until(lambda: server.open_streams == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [call.outcome for call in calls] == ["cancelled"]
    [breaker] = provider.circuits().values()
    with breaker.admit() or pytest.fail("the admission leaked"):
        assert breaker.state == "closed"


# --- Replicate


async def test_replicate_is_asked_as_its_documentation_says(
    server: FakeModelServer, replicate: ReplicateClient
) -> None:
    await make(replicate, seconds=42)
    [received] = server.requests
    assert received.target == f"/replicate/v1/models/{DEV}/predictions"
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["cancel-after"] == "42s"
    assert "prefer" not in received.headers
    assert received.body == {"input": {"prompt": PROMPT}}


async def test_a_model_of_a_version_is_asked_by_it(server: FakeModelServer) -> None:
    client = replicate_of(server, models=("someone/model:0123abc",))
    await make(client)
    await client.close()
    [received] = server.requests
    assert received.target == "/replicate/v1/predictions"
    assert received.body == {"version": "0123abc", "input": {"prompt": PROMPT}}


async def test_a_reference_goes_to_the_second_model(server: FakeModelServer, replicate: ReplicateClient) -> None:
    calls: list[ModelCall] = []
    made = await make(replicate, calls, JPEG)
    assert (made.model, [call.model for call in calls]) == (KONTEXT, [KONTEXT])
    [received] = server.requests
    assert received.body["input"]["input_image"] == f"data:image/jpeg;base64,{b64encode(JPEG.data).decode()}"
    assert received.media == [described(JPEG.mime_type, JPEG.data)]


async def test_with_one_model_the_reference_is_left_out(server: FakeModelServer) -> None:
    client = replicate_of(server, models=(DEV,))
    assert (await make(client, reference=JPEG)).model == DEV
    await client.close()
    assert server.requests[0].media == []


@pytest.mark.parametrize("status", [404, 422])
async def test_a_picture_without_its_likeness_is_better_than_none(
    server: FakeModelServer, replicate: ReplicateClient, status: int
) -> None:
    server.models[KONTEXT] = Behaviour(status=status)
    calls: list[ModelCall] = []
    assert (await make(replicate, calls, JPEG)).model == DEV
    assert [call.model for call in calls] == [KONTEXT, DEV]
    assert state_of(replicate) == "closed"


async def test_a_blocked_reference_is_not_tried_without(server: FakeModelServer, replicate: ReplicateClient) -> None:
    server.default = Behaviour(prediction="nsfw")
    assert await outcome_of(replicate, reference=JPEG) == "blocked"
    assert server.request_count == 1


async def test_a_prediction_is_looked_at_until_it_has_ended(
    server: FakeModelServer, replicate: ReplicateClient
) -> None:
    server.default = Behaviour(polls=4, failing_polls=2)
    await make(replicate)
    [prediction] = server.pictures.predictions.by_id.values()
    assert prediction.looks == 6
    assert server.pictures.predictions.cancelled == []


@pytest.mark.parametrize(
    ("end", "outcome"), [("failed", "empty"), ("canceled", "timeout"), ("aborted", "timeout"), ("nsfw", "blocked")]
)
async def test_a_prediction_that_ends_badly_is_typed_and_not_repeated(
    server: FakeModelServer, replicate: ReplicateClient, end: Prediction, outcome: str
) -> None:
    server.default = Behaviour(prediction=end)
    calls: list[ModelCall] = []
    assert await outcome_of(replicate, calls=calls) == outcome
    assert [call.outcome for call in calls] == [outcome]
    assert state_of(replicate) == "closed"


async def test_a_stuck_prediction_times_out_and_is_cancelled(
    server: FakeModelServer, replicate: ReplicateClient
) -> None:
    server.default = Behaviour(prediction="stuck")
    assert await outcome_of(replicate, seconds=3) == "timeout"  # it has to be there by then
    await server.until(lambda: server.pictures.predictions.cancelled == ["prediction1"])


async def test_a_prediction_is_cancelled_with_us(server: FakeModelServer, replicate: ReplicateClient) -> None:
    server.default = Behaviour(prediction="stuck")
    task = asyncio.create_task(make(replicate))
    await server.until(lambda: any(one.looks for one in server.pictures.predictions.by_id.values()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await replicate.close()  # what is being cancelled is not left behind
    assert server.pictures.predictions.cancelled == ["prediction1"]


async def test_a_vendor_that_cannot_cancel_is_not_waited_for(
    server: FakeModelServer, replicate: ReplicateClient
) -> None:
    server.default = Behaviour(prediction="stuck")
    task = asyncio.create_task(make(replicate))
    await server.until(lambda: any(one.looks for one in server.pictures.predictions.by_id.values()))
    server.pictures.predictions.by_id.clear()  # both the look and the cancellation are answered with 404
    with pytest.raises(ModelFailure):
        await task


async def test_looks_that_keep_failing_end_it(server: FakeModelServer, replicate: ReplicateClient) -> None:
    server.default = Behaviour(failing_polls=100)
    assert await outcome_of(replicate) == "overloaded"
    await server.until(lambda: "prediction1" in server.pictures.predictions.cancelled)


async def test_a_fetch_that_was_cut_is_repeated(server: FakeModelServer, replicate: ReplicateClient) -> None:
    server.default = Behaviour(output="cut")
    assert await outcome_of(replicate) == "unreachable"
    assert len(server.pictures.file_keys) == 3
    assert server.request_count == 1


# --- OpenAI


async def test_openai_is_asked_for_one_picture(server: FakeModelServer, openai: OpenAIImagesClient) -> None:
    calls: list[ModelCall] = []
    await make(openai, calls, JPEG)
    [received] = server.requests
    assert received.body == {"model": "gpt-image-1", "prompt": PROMPT, "n": 1, "size": "1024x1024"}
    assert (calls[0].usage.prompt, calls[0].usage.output) == (PROMPT_TOKENS, 4160)


# --- outputs


@given(st.binary(max_size=64))
def test_only_what_begins_as_a_picture_passes(data: bytes) -> None:
    if not data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8")):
        with pytest.raises(ModelFailure):
            checked(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_pictures_of_all_kinds_pass(kind: str) -> None:
    assert checked(sample_picture("x", kind))


@pytest.mark.parametrize(
    "other",
    ["http://api.example/v1", "https://api.example:444/v1", "https://api.example.evil/v1", "https://evil/api.example"],
)
def test_a_key_has_one_home(other: str) -> None:
    assert origin_of("https://api.example/v1") == origin_of("https://API.example:443/files/1")
    assert origin_of("https://api.example/v1") != origin_of(other)


# --- the placeholder


async def test_the_offline_demo_draws_a_placeholder() -> None:
    model = build_image_model(Settings(_env_file=None, environment="test"))
    assert model is not None
    calls: list[ModelCall] = []
    made = await make(model, calls, JPEG)
    assert (made.provider, made.model, model.circuits()) == ("offline", "local-renderer", {})
    assert [call.outcome for call in calls] == ["completed"]
    with Image.open(BytesIO(made.data)) as image:
        assert (image.format, image.size) == ("PNG", (SIDE, SIDE))
    assert (await make(model)).data == made.data
    assert await outcome_of(model, seconds=0) == "timeout"
    await model.close()


def test_each_prompt_has_a_picture_of_its_own() -> None:
    assert render("a cat") != render("a dog")


@pytest.mark.parametrize("prompt", ["", "समुद्र तट 😀", "x" * 1000, "\ud800 \x00 \x7f\xad ﷽", "\n\t ", "नमस्ते beach"])
def test_any_script_is_drawn(prompt: str) -> None:
    assert checked(render(prompt))


@given(st.text(max_size=1000))
def test_the_first_words_fit(prompt: str) -> None:
    lines = first_words(prompt)
    assert len(lines) <= MAX_LINES
    assert all(len(line) <= 32 for line in lines)
    assert all(letter <= "ÿ" or letter == "…" for line in lines for letter in line)


# --- the choice


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, environment="test", **values)


@pytest.mark.parametrize(
    ("values", "provider"),
    [
        ({"replicate_api_token": SecretStr("t"), "openai_api_key": SecretStr("k"), "openai_models": ("m",),
          "openai_image_model": "dall-e-3"}, "replicate"),
        ({"openai_api_key": SecretStr("k"), "openai_models": ("m",), "openai_image_model": "dall-e-3"}, "openai"),
        ({"openai_image_model": "dall-e-3"}, "offline"),
        ({"gemini_api_key": SecretStr("k")}, "offline"),
        ({"gemini_api_key": SecretStr("k"), "allow_offline_model": False}, None),
    ],
)  # fmt: skip
async def test_the_settings_choose(values: dict[str, Any], provider: str | None) -> None:
    model = build_image_model(settings(**values))
    assert (model and model.provider) == provider
    if model is not None:
        await model.close()


async def test_a_made_picture_is_plain_data() -> None:
    assert msgspec.structs.asdict(MadePicture(b"x", "p", "m")) == {"data": b"x", "provider": "p", "model": "m"}
