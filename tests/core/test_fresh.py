"""One answer for a moment, one fetch at a time, and nobody waits for long."""

import asyncio
from contextvars import ContextVar

import pytest

from yral_chat.core.fresh import Fresh

caller: ContextVar[str] = ContextVar("caller", default="nobody")


class Source:
    """Something that counts how often it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.asked_by = ""

    async def ask(self) -> int:
        self.count += 1
        self.asked_by = caller.get()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.count


async def test_however_many_ask_one_fetch_serves_them_for_a_while() -> None:
    source = Source()
    fresh = Fresh(source.ask, seconds=60)
    assert await asyncio.gather(*(fresh.get() for _ in range(100))) == [1] * 100
    assert await fresh.get() == 1
    assert source.count == 1


async def test_an_old_answer_is_fetched_anew() -> None:
    source = Source()
    fresh = Fresh(source.ask, seconds=0)
    assert [await fresh.get(), await fresh.get()] == [1, 2]


async def test_an_error_is_an_answer_too() -> None:
    source = Source()
    source.error = ValueError("broken")
    fresh = Fresh(source.ask, seconds=60)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            await fresh.get()
    assert source.count == 1


async def test_one_that_hangs_is_given_up_by_all_and_not_begun_again() -> None:
    source = Source()
    source.gate.clear()
    fresh = Fresh(source.ask, seconds=0, patience=0.05)
    for _ in range(3):
        results = await asyncio.gather(*(fresh.get() for _ in range(10)), return_exceptions=True)
        assert {type(result) for result in results} == {TimeoutError}
    assert source.count == 1
    source.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await fresh.get() in (1, 2)
    await fresh.close()


async def test_who_leaves_takes_nothing_from_the_others() -> None:
    source = Source()
    source.gate.clear()
    fresh = Fresh(source.ask, seconds=60)
    caller.set("the first")
    first, second = asyncio.create_task(fresh.get()), asyncio.create_task(fresh.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.gate.set()
    assert await second == 1
    assert source.asked_by == "nobody", "the fetch is not the first caller's"


async def test_close_ends_what_hangs() -> None:
    source = Source()
    source.gate.clear()
    fresh = Fresh(source.ask)
    asking = asyncio.create_task(fresh.get())
    await asyncio.sleep(0)
    await fresh.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
