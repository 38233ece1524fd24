"""JSON of a schema: asked for where a model takes it, and without where it does not."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.clients.conversations import conversation, listen
from tests.fakes.model_server import Behaviour, FakeModelServer
from tests.fakes.schemas import wants_schema
from yral_chat.clients.gemini import GeminiClient
from yral_chat.clients.language_model import ModelRequest
from yral_chat.clients.model_chain import ChainLink, ModelChain
from yral_chat.clients.openai import OpenAIClient
from yral_chat.clients.resilience import CircuitBreaker

SCHEMA: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer() as server:
        yield server


@pytest.fixture
async def chain(server: FakeModelServer) -> AsyncIterator[ModelChain]:
    links = [
        ChainLink("gemini", "a", GeminiClient(api_key="k", model="a", base_url=server.base_url_gemini), breaker()),
        ChainLink("openai", "b", OpenAIClient(api_key="k", model="b", base_url=server.base_url_openai), breaker()),
    ]
    chain = ModelChain(links)
    yield chain
    await chain.close()


def breaker() -> CircuitBreaker:
    return CircuitBreaker(failures=1, open_seconds=60)


def request() -> ModelRequest:
    return msgspec.structs.replace(conversation("Hello!"), schema=SCHEMA)


@pytest.mark.parametrize("status", [400, 404])
async def test_a_model_that_refuses_a_schema_is_asked_without(
    server: FakeModelServer, chain: ModelChain, status: int
) -> None:
    server.default = Behaviour(schema_status=status)
    heard = await listen(chain, request())
    assert heard.outcome == "completed"
    assert [(asked.model, wants_schema(asked.body)) for asked in server.requests] == [("a", True), ("a", False)]
    assert all(circuit.state == "closed" for models in chain.circuits().values() for circuit in models.values())


async def test_what_refuses_everything_is_left_for_the_next(server: FakeModelServer, chain: ModelChain) -> None:
    server.models["a"] = Behaviour(status=400)
    heard = await listen(chain, request())
    assert heard.outcome == "completed"
    asked = [(request.model, wants_schema(request.body)) for request in server.requests]
    assert asked == [("a", True), ("a", False), ("b", True)]
