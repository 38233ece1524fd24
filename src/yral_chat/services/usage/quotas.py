"""Quotas: so much and no more in a day, held back before a call and counted after it (docs/decisions/0016)."""

from collections.abc import Sequence

import msgspec

from yral_chat.clients.language_model import ModelRequest
from yral_chat.clients.token_counts import PICTURE_TOKENS, most_of_prompt, size_of
from yral_chat.core.clock import DAY, SECOND, day_of, now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import QuotaExceeded
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.usage import OpenUsage, Subject
from yral_chat.services.usage.prices import PICODOLLARS, Prices, money_text
from yral_chat.services.usage.recording import user_day

UNLIMITED = 2**62
# A picture of OpenAI's in the best quality at 1024x1024: https://platform.openai.com/docs/guides/image-generation
MADE_PICTURE_TOKENS = 4160


class Bound(msgspec.Struct, frozen=True):
    """The most that something can use: tokens, and picodollars."""

    tokens: int = 0
    cost: int = 0

    def __add__(self, other: "Bound") -> "Bound":
        return Bound(self.tokens + other.tokens, self.cost + other.cost)


class Quotas:
    """`models` and `image_models` are (provider, model): which of them answers is not known beforehand, so the dearest
    counts."""

    def __init__(
        self,
        settings: Settings,
        prices: Prices,
        models: Sequence[tuple[str, str]],
        image_models: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.is_on = settings.has_quotas
        self.tokens_per_user = settings.quota_tokens_per_user_day
        self.cost_per_user = int(settings.quota_cost_per_user_day * PICODOLLARS)
        self.tokens_per_influencer = settings.quota_tokens_per_influencer_day
        self._prices = prices
        self._models = models
        self._image_models = image_models

    # how much something can use

    def most_of(self, request: ModelRequest, *, pictures: int = 0) -> Bound:
        """Of one request, which may show `pictures` more than it has."""
        return self.most(most_of_prompt(request) + pictures * PICTURE_TOKENS, request.max_output_tokens)

    def most(self, prompt: int, output: int) -> Bound:
        """Of one call with so many tokens."""
        price = self._prices.dearest(self._models) if self.cost_per_user else None
        cost = 0 if price is None else prompt * max(price.prompt, price.cached)
        cost += 0 if price is None else output * max(price.output, price.thinking)
        return Bound(prompt + output, cost)

    def most_of_picture(self, prompt: str) -> Bound:
        """Of one picture that is made."""
        price = self._prices.dearest(self._image_models)
        # The others bill by the picture, or nothing.
        output = MADE_PICTURE_TOKENS if any(provider == "openai" for provider, _ in self._image_models) else 0
        size = size_of(prompt) if output else 0
        return Bound(size + output, size * price.prompt + output * price.output + price.picture)

    # holding it back

    def open(self, uow: UnitOfWork, usage: OpenUsage, bound: Bound) -> None:
        """Notes that usage will follow under this key, which no turn speaks of. Raises as `hold`."""
        if self.is_on:
            self.hold(uow, usage, bound)
        else:
            uow.usage.open(usage)

    def hold(self, uow: UnitOfWork, usage: OpenUsage, bound: Bound) -> None:
        """Holds `bound` back until the usage is recorded. Raises QuotaExceeded when that is not left of the day.

        In the unit that accepts what it is for: a refusal undoes it.
        """
        subject = user_day(usage.user_id, usage.day)
        most_tokens, most_cost = self.tokens_per_user or UNLIMITED, self.cost_per_user or UNLIMITED
        if not uow.usage.reserve(subject, *_amounts(bound), most_tokens=most_tokens, most_cost=most_cost):
            raise self._refusal_of_user(uow, subject, bound)
        is_shared = bool(self.tokens_per_influencer and usage.influencer_id)
        if is_shared:
            persona = Subject("influencer", usage.influencer_id, usage.day)
            if not uow.usage.reserve(
                persona, *_amounts(bound), most_tokens=self.tokens_per_influencer, most_cost=UNLIMITED
            ):
                raise self._refusal(
                    uow, persona, "tokens_per_day", "This persona has said all that it may today. Come back tomorrow."
                )
        uow.usage.open(msgspec.structs.replace(usage, tokens=bound.tokens, cost=bound.cost, holds_influencer=is_shared))

    def _refusal_of_user(self, uow: UnitOfWork, subject: Subject, bound: Bound) -> QuotaExceeded:
        counts = uow.usage.find_day(subject)
        is_tokens = counts.tokens + counts.reserved_tokens + bound.tokens > (self.tokens_per_user or UNLIMITED)
        return self._refusal(
            uow,
            subject,
            "tokens_per_day" if is_tokens else "cost_per_day",
            "You have used up what you may use today. Come back tomorrow.",
        )

    def _refusal(self, uow: UnitOfWork, subject: Subject, limit_type: str, message: str) -> QuotaExceeded:
        """`used` has what is held back in it: what runs may still use it."""
        counts = uow.usage.find_day(subject)
        limit: int | str
        used: int | str
        if limit_type == "cost_per_day":
            limit, used = money_text(self.cost_per_user), money_text(counts.cost + counts.reserved_cost)
        else:
            limit = self.tokens_per_user if subject.kind == "user" else self.tokens_per_influencer
            used = counts.tokens + counts.reserved_tokens
        ends_at = (day_of(now()) + 1) * DAY
        return QuotaExceeded(
            message,
            details={"limit_type": limit_type, "limit": limit, "used": used, "resets_at": to_text(ends_at)},
            retry_after=max(1, -(-(ends_at - now()) // SECOND)),
        )


def _amounts(bound: Bound) -> tuple[int, int]:
    return bound.tokens, bound.cost
