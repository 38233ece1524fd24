"""What models cost, to the last picodollar."""

from pathlib import Path

import pytest
from loguru import logger

from yral_chat.clients.language_model import Usage
from yral_chat.core.config import Settings
from yral_chat.services.usage.prices import PICODOLLARS, Prices, load_prices, money_text


def test_cached_tokens_cost_less_and_thoughts_as_much_as_what_is_said() -> None:
    usage = Usage(prompt=1_000_000, cached=400_000, output=100_000, thinking=20_000)
    # 0.6 × 0.30 + 0.4 × 0.03 + 0.12 × 2.50
    assert load_prices(None).cost_of("gemini", "gemini-2.5-flash", usage) == 492 * PICODOLLARS // 1000


def test_one_token_of_each_model_that_ships_has_a_whole_price() -> None:
    prices = load_prices(None)
    for provider, model in prices._prices:
        assert prices.cost_of(provider, model, Usage(1, 0, 1, 1, 1)) is not None


def test_every_model_that_is_asked_by_default_has_a_price() -> None:
    settings, prices = Settings(_env_file=None), load_prices(None)
    for model in settings.gemini_models:
        assert prices.find("gemini", model) is not None, model
    for model in settings.image_models:
        assert prices.find("replicate", model) is not None, model


@pytest.mark.parametrize(
    ("model", "known_as"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
        ("gemini-2.5-flash-lite-001", "gemini-2.5-flash-lite"),
        ("gpt-5-latest", "gpt-5"),
    ],
)
def test_a_dated_name_costs_what_its_model_costs(model: str, known_as: str) -> None:
    prices, provider = load_prices(None), "gemini" if model.startswith("gemini") else "openai"
    assert prices.find(provider, model) == prices.find(provider, known_as) is not None


@pytest.mark.parametrize("model", ["gpt-4o-audio-preview", "gpt-4omega", "gpt-4", "", "gemini-2.5-flash"])
def test_another_model_has_no_price_and_that_is_told_once(model: str) -> None:
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    try:
        prices = load_prices(None)
        for _ in range(3):
            assert prices.cost_of("openai", model, Usage(1, 0, 1)) is None
    finally:
        logger.remove(sink)
    assert told == ["prices.unknown_model"]


def test_nothing_used_costs_nothing_whoever_was_asked() -> None:
    assert load_prices(None).cost_of("nobody", "nothing", Usage()) == 0


def test_a_file_is_laid_over_what_ships(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[openai]\n"gpt-4o" = { prompt = "1", output = "2" }\n"mine" = { prompt = "0.000001" }\n')
    prices = load_prices(file)
    assert prices.cost_of("openai", "gpt-4o", Usage(prompt=1_000_000, cached=500_000)) == PICODOLLARS
    assert prices.cost_of("openai", "mine", Usage(prompt=1)) == 1
    assert prices.find("gemini", "gemini-2.5-flash") == load_prices(None).find("gemini", "gemini-2.5-flash")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[openai", "not TOML"),
        ("openai = 1", "has to be a table"),
        ('[openai]\n"m" = 1', "a table of some"),
        ('[openai]\n"m" = { input = "1" }', "input"),
        ('[openai]\n"m" = { prompt = 0.3 }', "in quotes"),
        ('[openai]\n"m" = { prompt = "cheap" }', "in quotes"),
        ('[openai]\n"m" = { prompt = "-1" }', "in quotes"),
        ('[openai]\n"m" = { prompt = "0.0000001" }', "six decimals"),
        ('[openai]\n"m" = { prompt = "NaN" }', "in quotes"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match="MODEL_PRICES_FILE") as caught:
        load_prices(file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_the_dearest_of_some_models_counts_for_each_kind() -> None:
    prices = load_prices(None)
    found = prices.dearest([("gemini", "gemini-2.5-flash"), ("openai", "gpt-4.1-mini"), ("openai", "unheard of")])
    assert (found.prompt, found.output) == (400_000, 2_500_000)
    assert Prices({}).dearest([("openai", "gpt-4o")]).output == 0


@pytest.mark.parametrize(
    ("picodollars", "text"),
    [
        (0, "0.00"),
        (1, "0.000000000001"),
        (12_500_000, "0.0000125"),
        (PICODOLLARS, "1.00"),
        (3 * PICODOLLARS // 2, "1.50"),
        (1234567890123456789, "1234567.890123456789"),
    ],
)
def test_money_is_written_exactly(picodollars: int, text: str) -> None:
    assert money_text(picodollars) == text
