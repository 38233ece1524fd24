"""Meter: adds what calls cost to the series that the operator sees."""

from yral_chat.clients.language_model import ModelCall
from yral_chat.core.metrics import Metrics
from yral_chat.services.usage.prices import PICODOLLARS, Prices


class Meter:
    """Counts each call once, where it ends; what is stored of it is recorded elsewhere."""

    def __init__(self, metrics: Metrics, prices: Prices) -> None:
        self._metrics = metrics
        self._prices = prices

    def count(self, calls: list[ModelCall]) -> None:
        for call in calls:
            for kind in ("prompt", "cached", "output", "thinking"):
                if count := getattr(call.usage, kind):
                    self._metrics.tokens_used(call.provider, call.model, kind, count)
            if cost := self._prices.cost_of(call.provider, call.model, call.usage):
                self._metrics.money_spent(call.provider, call.model, cost / PICODOLLARS)
