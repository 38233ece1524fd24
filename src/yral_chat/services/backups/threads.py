"""What blocks, beside the event loop."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """`manager`, whose beginning and end may take long. What has begun ends, also when nobody has waited for it."""
    loop, stack = asyncio.get_running_loop(), ExitStack()
    with ThreadPoolExecutor(1) as thread:  # of one thread: the end comes behind a beginning that was cancelled
        try:
            yield await loop.run_in_executor(thread, stack.enter_context, manager)
        finally:
            await loop.run_in_executor(thread, stack.close)
