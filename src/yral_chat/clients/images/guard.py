"""A picture is made under the circuit of its model, and asked for again only where nothing was begun."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from yral_chat.clients.images.model import MadePicture
from yral_chat.clients.language_model import ModelFailure, NoUsableModel, Outcome
from yral_chat.clients.resilience import Backoff, CircuitBreaker, Clock, Random, seconds_left
from yral_chat.clients.retries import settle, wait_before_retry

# The vendor turned the request away. After anything else a picture may be in the making, and would be paid twice.
NOTHING_BEGUN: frozenset[Outcome] = frozenset({"overloaded", "quota"})


class Guard:
    """Asks through one circuit, with retries inside the deadline."""

    def __init__(
        self,
        breaker: CircuitBreaker,
        *,
        backoff: Backoff | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Random = random.random,
    ) -> None:
        self.breaker = breaker
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._sleep = sleep
        self._draw = draw

    async def ask(self, make: Callable[[], Awaitable[MadePicture]], deadline: float) -> MadePicture:
        """What `make` gives. Raises ModelFailure."""
        attempt = 0
        while True:
            if (admission := self.breaker.admit()) is None:
                raise NoUsableModel("the circuit is open", retry_after=self.breaker.retry_after)
            with admission:
                try:
                    picture = await make()
                    admission.succeed()
                    return picture
                except ModelFailure as failure:
                    settle(admission, failure)
                    wait = self._wait_after(failure, attempt)
                    if wait is None or wait >= seconds_left(deadline, self._clock) or self.breaker.state != "closed":
                        raise
            await self._sleep(wait)
            attempt += 1

    def _wait_after(self, failure: ModelFailure, attempt: int) -> float | None:
        if failure.outcome not in NOTHING_BEGUN:
            return None
        return wait_before_retry(failure, attempt, self._backoff, self._draw)
