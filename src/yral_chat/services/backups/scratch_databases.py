"""A database beside others on a PostgreSQL server, for a while: a dump is restored into it and looked at."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from yral_chat.db.scratch import scratch_database
from yral_chat.services.backups.threads import in_thread


def scratch_name(word: str, database_id: str) -> str:
    """Always the same for one purpose and one database: what was left behind by a kill, the next one drops."""
    return f"yral_{word}_{hashlib.sha256(database_id.encode()).hexdigest()[:12]}"


@asynccontextmanager
async def scratch(server: str, name: str) -> AsyncIterator[str]:
    """The URL of an empty database on the server of the URL `server`, gone afterwards; for commands.

    Raises DatabaseUnusable.
    """
    with _tidying_at_sigterm():
        async with in_thread(scratch_database(server, name)) as url:
            yield url


@contextmanager
def _tidying_at_sigterm() -> Iterator[None]:
    """SIGTERM, as systemd and Kubernetes send it, cancels the block as Ctrl-C does; then the process dies of it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine is run by one
    is_ending = False

    def end() -> None:
        nonlocal is_ending
        is_ending = True
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        if is_ending:
            signal.raise_signal(signal.SIGTERM)
