"""What a turn may ask of a model, with what is held back for it."""

import time

import pytest

from yral_chat.clients.language_model import ModelCall, ModelMessage, ModelRequest, Persona, Picture, Usage
from yral_chat.clients.token_counts import PICTURE_TOKENS, estimated, most_of_prompt
from yral_chat.core.config import Settings
from yral_chat.services.turns.budgets import TurnBudgets
from yral_chat.services.usage import Quotas, load_prices


def request_of(*texts: str, most: int = 100) -> ModelRequest:
    messages = tuple(ModelMessage("assistant" if at % 2 else "user", text) for at, text in enumerate(texts))
    return ModelRequest("system", messages, Persona("p", "P"), time.monotonic(), max_output_tokens=most)


@pytest.fixture
def budgets() -> TurnBudgets:
    settings = Settings(_env_file=None, environment="test", quota_tokens_per_user_day=10_000)
    return TurnBudgets(settings, Quotas(settings, load_prices(None), []), is_listening=False, has_judge=False)


def test_a_request_that_fits_stays_as_it_is(budgets: TurnBudgets) -> None:
    request = request_of("one", "two", "three")
    most = most_of_prompt(request) + 100
    assert budgets.fitted(request, most, []) == request
    assert budgets.fitted(request, None, []) == request


def test_a_history_that_has_grown_loses_its_oldest_messages(budgets: TurnBudgets) -> None:
    held = most_of_prompt(request_of("three")) + 100
    fitted = budgets.fitted(request_of("one " * 50, "two", "three"), held, [])
    assert [message.text for message in fitted.messages] == ["three"]
    assert most_of_prompt(fitted) + fitted.max_output_tokens <= held


def test_what_was_used_before_is_not_there_any_more(budgets: TurnBudgets) -> None:
    request = request_of("only")
    held = most_of_prompt(request) + 100
    calls = [ModelCall("gemini", "m", 0, "completed", Usage(prompt=30, output=10, thinking=5))]
    fitted = budgets.fitted(request, held, calls)
    assert fitted.messages == request.messages
    assert fitted.max_output_tokens == 55


@pytest.mark.parametrize("text", ["plain", "नमस्ते", "🙂🙂", "\ud800", ""])
def test_a_token_is_at_least_a_byte(text: str) -> None:
    request = request_of(text)
    assert most_of_prompt(request) >= len("system") + len(text.encode("utf-8", "surrogatepass"))
    assert estimated(request, 0).prompt <= most_of_prompt(request)


def test_pictures_count_in_what_is_held_back_and_in_what_is_estimated() -> None:
    plain = request_of("look")
    shown = ModelRequest(
        "system", (ModelMessage("user", "look", (Picture("image/png", b"x"),)),), Persona("p", "P"), 0.0
    )
    assert most_of_prompt(shown) == most_of_prompt(plain) + PICTURE_TOKENS
    assert estimated(shown, 9) == Usage(prompt=estimated(plain, 0).prompt + PICTURE_TOKENS, output=3)
