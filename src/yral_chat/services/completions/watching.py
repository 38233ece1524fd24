"""A model's answer on its way to a caller, under the same watch as a reply in a conversation."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

from yral_chat.clients.language_model import Completion, Delta, ModelFailure
from yral_chat.services.turns.running import HOLD_SECONDS, Guard, refused_by_judge


async def watched(
    answer: AsyncIterator[Delta | Completion], guard: Guard, *, idle_seconds: float, deadline: float
) -> AsyncGenerator[str | Completion]:
    """The text that may leave, then the completion.

    Raises ModelFailure (`blocked` also for a leak or a refusal by the judge), and TimeoutError after `idle_seconds`
    without a word of the model's or at `deadline` (of `time.monotonic()`).
    """
    output, judgement = guard.output, guard.judgement
    stop = asyncio.Event()
    if judgement is not None:
        judgement.on_refusal(stop.set)
    stopping = asyncio.create_task(stop.wait())
    reading: asyncio.Task[Delta | Completion | None] | None = None
    try:
        while True:
            reading = asyncio.create_task(_next(answer))
            silent_at = min(time.monotonic() + idle_seconds, deadline)
            while not reading.done():
                rest = silent_at - time.monotonic()
                if rest <= 0:
                    raise TimeoutError
                wait = min(rest, HOLD_SECONDS) if output.held else rest
                await asyncio.wait((reading, stopping), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    raise refused_by_judge()
                if not reading.done() and (text := output.release()):
                    yield text
            item = reading.result()
            if item is None:
                raise ModelFailure("unreachable", "the stream ended without a completion")
            text = output.feed(item.text.replace("\x00", "")) if isinstance(item, Delta) else output.end()
            if output.is_leak:
                raise ModelFailure("blocked", "the answer repeats the persona's instructions", is_outage=False)
            if text:
                yield text
            if isinstance(item, Completion):
                if judgement is not None and await judgement.wait():
                    raise refused_by_judge()
                yield item
                return
    finally:
        tasks = [stopping] if reading is None else [stopping, reading]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _next(answer: AsyncIterator[Delta | Completion]) -> Delta | Completion | None:
    return await anext(answer, None)
