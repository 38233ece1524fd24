"""What models answer instead of JSON, and what becomes of it."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients.conversations import conversation
from tests.fakes.model_server import Behaviour, FakeModelServer
from yral_chat.clients.gemini import GeminiClient
from yral_chat.clients.language_model import ModelCall, ModelFailure
from yral_chat.services.structured_answers import ask_data, read_object

ANSWER = {"name": "Asha", "tags": ["a", "b"], "more": {"deep": True}}
TEXT = json.dumps(ANSWER)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}",
        f"Here you are:\n\n```json\n{TEXT}\n```\nI hope that helps!",
        f"Sure! {TEXT} Anything else?",
        f"Use {{char}} for the name: {TEXT}",
        f"\ufeff{TEXT}",
        '{"name": "Asha", "tags": ["a", "b",], "more": {"deep": true,},}',
    ],
)
def test_an_object_is_found_wherever_it_stands(text: str) -> None:
    assert read_object(text) == ANSWER


def test_bare_line_breaks_and_commas_inside_texts_survive() -> None:
    assert read_object('{"a": "one,\ntwo", "b": ",]",}') == {"a": "one,\ntwo", "b": ",]"}


@pytest.mark.parametrize(
    "text", ["", "I cannot help with that.", "[1, 2]", '"text"', TEXT[:-5], "{" * 10_000, "[" * 10_000]
)
def test_what_is_no_object_is_told_apart(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        read_object(text)


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(read_object(text), dict)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text()), min_size=1))
def test_whatever_was_written_is_read(value: dict[str, Any]) -> None:
    assert read_object(json.dumps(value)) == value


# --- asked again


@pytest.fixture
async def server() -> AsyncIterator[FakeModelServer]:
    async with FakeModelServer() as server:
        yield server


def named(answer: dict[str, Any]) -> str:
    if "name" not in answer:
        raise ValueError("The field name is missing.")
    return str(answer["name"])


async def asked(server: FakeModelServer, *answers: str) -> str:
    server.script.extend(Behaviour(pieces=(answer,)) for answer in answers)
    model = GeminiClient(api_key="k", model="m", base_url=server.base_url_gemini)
    request = msgspec.structs.replace(conversation("Who?"), schema={"type": "object"})
    calls: list[ModelCall] = []
    try:
        return await ask_data(model, request, calls, named)
    finally:
        await model.close()
        assert all(call.outcome == "completed" for call in calls)


@pytest.mark.parametrize("first", ["Let me think about it.", '{"name": "As', '{"other": 1}'])
async def test_the_model_is_told_what_was_wrong(server: FakeModelServer, first: str) -> None:
    assert await asked(server, first, TEXT) == "Asha"
    first_request, second = (request.body["contents"] for request in server.requests)
    assert second[: len(first_request)] == first_request
    assert [content["role"] for content in second] == ["user", "model", "user"]
    assert second[1]["parts"][0]["text"] == first
    assert "cannot be used" in second[2]["parts"][0]["text"]


async def test_twice_is_enough(server: FakeModelServer) -> None:
    with pytest.raises(ModelFailure) as caught:
        await asked(server, "No.", "No again.", TEXT)
    assert caught.value.outcome == "rejected"
    assert len(server.requests) == 2
