"""How often people may ask, by class of route (contract section 4)."""

from typing import Literal

from yral_chat.core.config import Settings
from yral_chat.core.errors import RateLimitExceeded
from yral_chat.core.metrics import Metrics
from yral_chat.core.rate_limits import Limit, RateLimits, Verdict

RouteClass = Literal["standard", "light"]


class RateLimitService:
    """The limits of each class over one store; each caller has buckets of his own in each class."""

    def __init__(self, settings: Settings, store: RateLimits, metrics: Metrics) -> None:
        self.is_enabled = settings.rate_limit_enabled
        self.limits: dict[RouteClass, Limit] = {
            "standard": Limit.of(settings.rate_limit_per_minute, settings.rate_limit_per_hour),
            "light": Limit.of(settings.rate_limit_light_per_minute, settings.rate_limit_light_per_hour),
        }
        self._store = store
        self._metrics = metrics

    async def take_for_user(self, user_id: str, route_class: RouteClass = "standard") -> Verdict:
        """Counts one request of somebody who is signed in."""
        return await self._take(f"{route_class}:user:{user_id}", route_class)

    async def take_for_address(self, address: str, route_class: RouteClass = "standard") -> Verdict:
        """Counts one request of somebody who is not. `address` as `ClientAddresses` names it."""
        return await self._take(f"{route_class}:address:{address}", route_class)

    async def check_guesses(self, address: str) -> None:
        """Before a key of the operator is compared. Raises RateLimitExceeded after too many wrong ones from here."""
        if self.is_enabled:
            verdict = self._noted(await self._store.look(_guesses(address), self.limits["standard"]))
            if verdict.refused is not None:
                raise refusal(verdict)

    async def count_guess(self, address: str) -> None:
        """Counts a wrong key of the operator."""
        if self.is_enabled:
            await self._store.take(_guesses(address), self.limits["standard"])

    async def _take(self, key: str, route_class: RouteClass) -> Verdict:
        return self._noted(await self._store.take(key, self.limits[route_class]))

    def _noted(self, verdict: Verdict) -> Verdict:
        if verdict.refused is not None:
            self._metrics.limit_refused(verdict.refused)
        return verdict


def _guesses(address: str) -> str:
    """A bucket of its own: what else comes from the address must not keep the operator's scraper out."""
    return f"guesses:address:{address}"


def refusal(verdict: Verdict) -> RateLimitExceeded:
    """The error of a verdict that refused."""
    limit = verdict.limit.per_minute if verdict.refused == "per_minute" else verdict.limit.per_hour
    details = {"limit_type": verdict.refused, "limit": limit, "retry_after": verdict.retry_after}
    return RateLimitExceeded(details=details, retry_after=verdict.retry_after)
