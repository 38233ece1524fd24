"""Pictures in a conversation, and models that take none: a chat goes on whatever they say."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from tests.clients.conversations import conversation, listen
from tests.clients.media import JPEG, PNG, showing
from tests.fakes.model_server import Behaviour, FakeModelServer
from yral_chat.clients.gemini import GeminiClient
from yral_chat.clients.language_model import ModelMessage, ModelRequest, Picture, Recording
from yral_chat.clients.model_chain import ChainLink, ModelChain
from yral_chat.clients.offline import reply_to
from yral_chat.clients.openai import OpenAIClient
from yral_chat.clients.resilience import Backoff, CircuitBreaker
from yral_chat.clients.sight import BLIND_SECONDS
from yral_chat.clients.vendor_http import failure_of_status

KEY = "key"
SHOWN = showing(conversation("Look!"), PNG)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer(key=KEY) as server:
        yield server


def link(server: FakeModelServer, wire: str = "openai", model: str = "m", failures: int = 5) -> ChainLink:
    client: OpenAIClient | GeminiClient
    if wire == "openai":
        client = OpenAIClient(api_key=KEY, model=model, base_url=server.base_url_openai)
    else:
        client = GeminiClient(api_key=KEY, model=model, base_url=server.base_url_gemini)
    return ChainLink(wire, model, client, CircuitBreaker(failures=failures, open_seconds=30))


def chain_of(*links: ChainLink, clock: Clock | None = None) -> ModelChain:
    return ModelChain(links, backoff=Backoff(0.001, 1, 0.001), clock=clock or Clock())


def request_with(*pictures: Picture) -> ModelRequest:
    """Never out of time for a clock that stands at 0."""
    return showing(conversation("Look!"), *pictures)


def shown_in(server: FakeModelServer) -> list[int]:
    """How many pictures came with each request."""
    return [len(received.media) for received in server.requests]


# --- what is sent


@pytest.mark.parametrize("wire", ["gemini", "openai"])
async def test_pictures_arrive_whole_and_before_the_text(server: FakeModelServer, wire: str) -> None:
    large = Picture("image/png", PNG.data + bytes(range(256)) * 16_000)  # 4 MB: travels in pieces
    chain = chain_of(link(server, wire))
    assert (await listen(chain, request_with(JPEG, large))).outcome == "completed"
    await chain.close()
    [received] = server.requests
    expected = [(one.mime_type, hashlib.sha256(one.data).hexdigest()) for one in (JPEG, large)]
    assert [(medium.mime_type, medium.sha256) for medium in received.media] == expected
    assert "transfer-encoding" not in received.headers
    if wire == "openai":
        assert [part["type"] for part in received.body["messages"][-1]["content"]] == ["image_url", "image_url", "text"]
    else:
        parts = received.body["contents"][-1]["parts"]
        assert [next(iter(part)) for part in parts] == ["inlineData", "inlineData", "text"]


@pytest.mark.parametrize("wire", ["gemini", "openai"])
async def test_a_picture_may_be_all_there_is(server: FakeModelServer, wire: str) -> None:
    chain = chain_of(link(server, wire))
    assert (await listen(chain, showing(conversation(""), PNG))).outcome == "completed"
    await chain.close()


async def test_messages_without_pictures_stay_plain_strings(server: FakeModelServer) -> None:
    chain = chain_of(link(server))
    request = showing(conversation("Hi", "Hello!", "Look!"), PNG)
    assert (await listen(chain, request)).outcome == "completed"
    await chain.close()
    contents = [message["content"] for message in server.requests[0].body["messages"]]
    assert contents[:3] == ["You are Asha.", "Hi", "Hello!"]


async def test_what_the_assistant_showed_becomes_words_for_openai(server: FakeModelServer) -> None:
    chain = chain_of(link(server))
    request = showing(conversation("Draw!", "", "Thanks"), PNG, at=1)
    assert (await listen(chain, request)).outcome == "completed"
    await chain.close()
    assert server.requests[0].body["messages"][2] == {"role": "assistant", "content": "[image]"}


async def test_a_recording_is_never_sent_to_a_chat_completion(server: FakeModelServer) -> None:
    request = conversation("x")
    message = ModelMessage("user", "x", recordings=(Recording("audio/wav", b"RIFF"),))
    chain = chain_of(link(server))
    heard = await listen(chain, ModelRequest("", (message,), request.persona, request.deadline))
    await chain.close()
    assert heard.outcome == "rejected"
    assert server.request_count == 0


# --- models that take none


@pytest.mark.parametrize("wire", ["gemini", "openai"])
@pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 500])
async def test_a_model_that_takes_no_pictures_answers_without_them(
    server: FakeModelServer, wire: str, status: int
) -> None:
    server.default = Behaviour(picture_status=status)
    chain = chain_of(link(server, wire))
    heard = await listen(chain, request_with(PNG, PNG))
    await chain.close()
    assert heard.outcome == "completed"
    assert shown_in(server) == [2, 0]
    assert [call.outcome for call in heard.calls][1:] == ["completed"]
    assert heard.calls[0].outcome in ("rejected", "model_gone")
    told = server.requests[1].body["messages" if wire == "openai" else "contents"][-1]
    assert "[image]\\n[image]\\nLook!" in str(told)
    first, second = (received.body for received in server.requests)
    name = "systemInstruction" if wire == "gemini" else "messages"
    assert (first[name] if wire == "gemini" else first[name][0]) == (
        second[name] if wire == "gemini" else second[name][0]
    )


async def test_it_is_shown_none_for_a_while(server: FakeModelServer) -> None:
    server.default = Behaviour(picture_status=400)
    clock = Clock()
    chain = chain_of(link(server), clock=clock)
    await listen(chain, request_with(PNG))
    await listen(chain, request_with(PNG))
    assert shown_in(server) == [1, 0, 0]
    server.default = Behaviour()
    clock.now += BLIND_SECONDS
    await listen(chain, request_with(PNG))
    await chain.close()
    assert shown_in(server) == [1, 0, 0, 1]


async def test_a_model_that_has_seen_pictures_is_shown_them_again_after_a_bad_one(server: FakeModelServer) -> None:
    server.script.extend([Behaviour(), Behaviour(picture_status=400)])
    chain = chain_of(link(server))
    for _ in range(3):
        assert (await listen(chain, request_with(PNG))).outcome == "completed"
    await chain.close()
    assert shown_in(server) == [1, 1, 0, 1]


async def test_a_rejection_that_remains_goes_on_to_the_next_model(server: FakeModelServer) -> None:
    server.models["bad"] = Behaviour(status=400)
    chain = chain_of(link(server, model="bad"), link(server, model="good"))
    heard = await listen(chain, request_with(PNG))
    assert heard.outcome == "completed"
    assert [(call.model, call.outcome) for call in heard.calls] == [
        ("bad", "rejected"), ("bad", "rejected"), ("good", "completed"),
    ]  # fmt: skip
    # It did not answer without pictures either: nothing was learned about its eyes.
    await listen(chain, request_with(PNG))
    await chain.close()
    assert shown_in(server) == [1, 0, 1, 1, 0, 1]


async def test_a_refused_key_is_not_taken_for_a_blind_model(server: FakeModelServer) -> None:
    client = OpenAIClient(api_key="wrong", model="m", base_url=server.base_url_openai)
    chain = chain_of(ChainLink("openai", "m", client, CircuitBreaker()))
    assert (await listen(chain, request_with(PNG))).outcome == "rejected"
    await chain.close()
    assert shown_in(server) == [1]


async def test_a_refusal_of_pictures_says_nothing_about_the_circuit(server: FakeModelServer) -> None:
    server.default = Behaviour(picture_status=404)
    only = link(server, failures=1)
    chain = chain_of(only)
    assert (await listen(chain, request_with(PNG))).outcome == "completed"
    await chain.close()
    assert only.breaker.state == "closed"


async def test_a_model_that_is_gone_is_gone_with_and_without_pictures(server: FakeModelServer) -> None:
    server.default = Behaviour(status=404)
    only = link(server, failures=1)
    chain = chain_of(only)
    assert (await listen(chain, request_with(PNG))).outcome == "model_gone"
    await chain.close()
    assert only.breaker.state == "open"


async def test_retries_are_counted_without_the_refusal(server: FakeModelServer) -> None:
    server.script.extend([Behaviour(picture_status=400), Behaviour(status=503), Behaviour(status=503), Behaviour()])
    chain = chain_of(link(server))
    assert (await listen(chain, request_with(PNG))).outcome == "completed"
    await chain.close()
    assert shown_in(server) == [1, 0, 0, 0]


def test_a_server_that_blames_itself_for_having_no_eyes_is_understood() -> None:
    body = b'{"error":{"code":500,"message":"image input is not supported - hint: provide the mmproj"}}'
    assert failure_of_status(500, body).outcome == "rejected"
    assert failure_of_status(500, b'{"error":{"message":"boom"}}').outcome == "overloaded"


# --- without a model


@pytest.mark.parametrize("text", ["", "Do you like my cat?", "hello", "thanks!", "are you real?"])
def test_the_offline_persona_says_that_it_cannot_see(text: str) -> None:
    reply = reply_to(showing(conversation(text), PNG))
    assert "I cannot see it" in reply
    assert "I cannot see it" not in reply_to(showing(conversation("Hi", "Hello!", "How are you?"), PNG, at=0))


@pytest.mark.parametrize("text", ["[Voice message, not transcribed]", "Listen!\n[Voice message, not transcribed]"])
def test_the_offline_persona_says_that_it_cannot_hear(text: str) -> None:
    reply = reply_to(conversation(text))
    assert "nothing here can listen to it" in reply
    assert "transcribed" not in reply.lower()


def test_the_offline_persona_answers_the_words_of_a_transcription() -> None:
    reply = reply_to(conversation("[Transcribed: I want to bake sourdough bread]"))
    assert "sourdough bread" in reply.lower()
    assert "ranscribed" not in reply
