"""One moment of another database, read from the event loop on a thread of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy.exc import DBAPIError

from yral_chat.db.database import UnitOfWork
from yral_chat.db.failures import DatabaseUnusable
from yral_chat.db.viewing import viewing

P = ParamSpec("P")
T = TypeVar("T")


class Snapshot:
    """The database at `url` while the block runs. Nothing in it changes, whoever else uses it.

    Raises DatabaseUnusable for one that cannot be read, also in the middle.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="db-snapshot")
        self._open = ExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._uow = await self._run(lambda: self._open.enter_context(viewing(self._url)))
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._run(self._open.close)
        self._thread.shutdown(wait=False)

    async def read(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `fn`, which cannot write."""
        try:
            return await self._run(lambda: fn(self._uow, *args, **kwargs))
        except Exception as error:
            if _is_of_driver(error):
                raise DatabaseUnusable(f"The copy cannot be read: {error}") from error
            raise

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _is_of_driver(error: Exception) -> bool:
    """Our statements run on the driver's own cursor, whose errors SQLAlchemy does not wrap."""
    return isinstance(error, DBAPIError) or hasattr(error, "sqlite_errorcode") or hasattr(error, "sqlstate")
