"""What models cost: data that ships with the service, and a file that may lay others over it.

Money is a whole number of picodollars, a millionth of a millionth of a US dollar: a price for a million tokens that
has at most six decimals is then a whole number for one token, and nothing is ever rounded.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from loguru import logger

from yral_chat.clients.language_model import Usage

PICODOLLARS = 10**12
MILLION = 10**6

KINDS = ("prompt", "cached", "output", "thinking", "picture")
# What vendors put behind the name of a model that stays the same model and costs the same: a date, a number of a
# release, a stage. gpt-4o-2024-08-06 is a gpt-4o; gpt-4o-mini and gpt-4o-audio-preview are not.
_VERSION = re.compile(r"(?:-\d[\d-]*|-preview|-latest|-exp)+")


class Price(msgspec.Struct, frozen=True):
    """Of one token of each kind, and of one picture, in picodollars."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    thinking: int = 0
    picture: int = 0

    def of(self, usage: Usage) -> int:
        """`usage.prompt` includes the cached tokens, which cost less."""
        return (
            max(0, usage.prompt - usage.cached) * self.prompt
            + usage.cached * self.cached
            + usage.output * self.output
            + usage.thinking * self.thinking
            + usage.pictures * self.picture
        )


class Prices:
    """By provider and model."""

    def __init__(self, prices: Mapping[tuple[str, str], Price]) -> None:
        self._prices = dict(prices)
        self._found: dict[tuple[str, str], Price | None] = {}

    def find(self, provider: str, model: str) -> Price | None:
        """The price of exactly this model, else of the one of which it is a dated version. None is told once."""
        key = (provider, model)
        # The event loop and database threads ask: what one has just seen in it, another may have cleared.
        with suppress(KeyError):
            return self._found[key]
        if len(self._found) > 1000:  # a vendor that makes up a name each time must not fill it
            self._found.clear()
        found = self._found[key] = self._look_up(provider, model)
        if found is None and provider != "unknown":
            logger.warning("prices.unknown_model", provider=provider, model=model, counted_as="0")
        return found

    def _look_up(self, provider: str, model: str) -> Price | None:
        for end in range(len(model), 0, -1):
            found = self._prices.get((provider, model[:end]))
            if found is not None and (end == len(model) or _VERSION.fullmatch(model[end:])):
                return found
        return None

    def cost_of(self, provider: str, model: str, usage: Usage) -> int | None:
        """In picodollars; None when the model has no known price."""
        if usage == Usage():
            return 0
        price = self.find(provider, model)
        return None if price is None else price.of(usage)

    def dearest(self, models: Iterable[tuple[str, str]]) -> Price:
        """Of each kind the highest price of any of these."""
        found = [price for provider, model in models if (price := self.find(provider, model)) is not None]
        return Price(*(max((getattr(price, kind) for price in found), default=0) for kind in KINDS))


def load_prices(path: Path | None) -> Prices:
    """The prices that ship, and over them those of the file. Raises ValueError, OSError with what is wrong."""
    prices = _read(files("yral_chat.services.usage").joinpath("prices.toml").read_text("utf-8"), "prices.toml")
    if path is not None:
        prices |= _read(path.read_text("utf-8"), str(path))
    return Prices(prices)


def _read(text: str, name: str) -> dict[tuple[str, str], Price]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"MODEL_PRICES_FILE {name} is not TOML: {error}") from error
    prices: dict[tuple[str, str], Price] = {}
    for provider, models in document.items():
        if not isinstance(models, dict):
            raise ValueError(  # noqa: TRY004 - of the file, not of a caller
                f'MODEL_PRICES_FILE {name}: {provider} has to be a table, as in [{provider}."a-model"]'
            )
        for model, given in models.items():
            prices[provider, model] = _price(given, f"MODEL_PRICES_FILE {name}, {provider} {model}")
    return prices


def _price(given: Any, where: str) -> Price:
    if not isinstance(given, dict) or not given.keys() <= set(KINDS):
        raise ValueError(f"{where}: a table of some of {', '.join(KINDS)}; it is {given!r}")
    amounts = {kind: _amount(value, MILLION if kind != "picture" else 1, f"{where}: {kind}")
               for kind, value in given.items()}  # fmt: skip
    # Whoever does not say so bills a cached token as any other, and a thought as what is said.
    amounts.setdefault("cached", amounts.get("prompt", 0))
    amounts.setdefault("thinking", amounts.get("output", 0))
    return Price(**amounts)


def _amount(value: Any, units: int, where: str) -> int:
    """Picodollars for one, of US dollars for so many."""
    try:
        amount = Decimal(value) * PICODOLLARS / units if isinstance(value, str) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or amount < 0 or amount != int(amount):
        raise ValueError(f'{where} has to be US dollars in quotes, such as "0.30", with at most six decimals')
    return int(amount)


def money_text(picodollars: int) -> str:
    """US dollars as a decimal number, exact, with at least two decimals: `0.0004125`."""
    whole, fraction = divmod(picodollars, PICODOLLARS)
    decimals = f"{fraction:012d}".rstrip("0")
    return f"{whole}.{decimals:0<2}"
