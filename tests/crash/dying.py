"""The service as a program that dies at the n-th unit of work after a send began.

    DIE_FOR=this-one DIE_AT=3 DIE_WHEN=committed python -m tests.crash.dying

serves as `yral-chat serve` does. Units of work are counted from the first one of the request whose X-Correlation-ID is
`DIE_FOR`: all of them, whoever asks. `DIE_WHEN` is one of MOMENTS.
"""

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Concatenate, Literal, NoReturn, get_args

from yral_chat.cli.running import run
from yral_chat.cli.service import announce
from yral_chat.core.config import Settings
from yral_chat.core.logging import configure_logging, correlation_id
from yral_chat.db.database import Database, P, T, UnitOfWork, Waiting
from yral_chat.resources import Resources
from yral_chat.serving import bind, serve

# Before it runs; when it has run and is not committed; when it is committed and nobody knows yet.
Moment = Literal["asked", "run", "committed"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)


def die() -> NoReturn:
    """As kill -9 does: nothing is finished."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still here")


class DyingDatabase:
    """See `Database`."""

    def __init__(self, database: Database, cause: str, at: int, moment: Moment) -> None:
        self._database = database
        self._cause = cause
        self._at = at
        self._moment = moment
        self._numbers = count(1)
        self._has_begun = False
        self.dialect = database.dialect

    async def read(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.read(self._counted(fn), *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.write(self._counted(fn), *args, **kwargs)

    def _counted(self, fn: Callable[Concatenate[UnitOfWork, P], T]) -> Callable[Concatenate[UnitOfWork, P], T]:
        self._has_begun = self._has_begun or correlation_id.get() == self._cause
        if not self._has_begun or next(self._numbers) != self._at:
            return fn
        return self._last(fn)

    def _last(self, fn: Callable[Concatenate[UnitOfWork, P], T]) -> Callable[Concatenate[UnitOfWork, P], T]:
        def unit(uow: UnitOfWork, /, *args: P.args, **kwargs: P.kwargs) -> T:
            if self._moment == "asked":
                die()
            if self._moment == "committed":
                uow.after_commit(die)  # before everything that `fn` wants done then
            result = fn(uow, *args, **kwargs)
            if self._moment == "run":
                die()
            return result

        return unit

    def lock(self) -> None:
        self._database.lock()

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def scrub(self) -> bool:
        return await self._database.scrub()

    def pool(self) -> tuple[int, int]:
        return self._database.pool()

    def waiting(self) -> dict[str, Waiting]:
        return self._database.waiting()


class DyingResources(Resources):
    def _build_database(self) -> Database:
        moment = next(moment for moment in MOMENTS if moment == os.environ["DIE_WHEN"])
        return DyingDatabase(super()._build_database(), os.environ["DIE_FOR"], int(os.environ["DIE_AT"]), moment)


def main() -> None:
    settings = Settings()
    configure_logging(settings.log_level, settings.resolved_log_format)
    listener, settings = bind(settings)
    run(serve(settings, listener, lambda resources: announce(settings, resources), DyingResources))


if __name__ == "__main__":
    main()
