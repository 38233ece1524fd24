"""A database whose units of work are spans, each below the request, turn or job that asked for it."""

from collections.abc import Callable
from typing import Any, Concatenate

from yral_chat.core import tracing
from yral_chat.core.errors import AppError
from yral_chat.core.trace_context import trace
from yral_chat.db.database import Database, P, T, UnitOfWork, Waiting

# https://opentelemetry.io/docs/specs/semconv/database/database-spans/
_SYSTEMS = {"sqlite": "sqlite", "postgresql": "postgresql"}


class TracedDatabase:
    """See `Database`. What belongs to no trace, such as the looks for due jobs every second, is no span."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.dialect = database.dialect
        self._system = _SYSTEMS.get(database.dialect, database.dialect)

    async def read(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if trace.get() is None:
            return await self._database.read(fn, *args, **kwargs)
        with _Unit(fn, self._system, "read"):
            return await self._database.read(fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[UnitOfWork, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if trace.get() is None:
            return await self._database.write(fn, *args, **kwargs)
        with _Unit(fn, self._system, "write"):
            return await self._database.write(fn, *args, **kwargs)

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


class _Unit:
    """The span of one unit. Not the current place: a unit begins nothing but jobs, which its cause has caused."""

    def __init__(self, fn: Callable[..., Any], system: str, access: str) -> None:
        name = unit_name(fn)
        attributes = {"db.system.name": system, "db.operation.name": access}
        self._span = tracing.start(name, "client", attributes=attributes)

    def __enter__(self) -> None:
        """It has begun."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        # A refusal by the unit itself (not found, not yours) is an answer of a database that works.
        if kind is not None and not (isinstance(error, AppError) and error.status < 500):
            self._span.fail(kind.__name__)
        self._span.end()


def unit_name(fn: Callable[..., Any]) -> str:
    """`ChatService.list` for its method, and for a function that stands in it."""
    name: str = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return name.replace(".<locals>", "").replace(".<lambda>", "").lstrip("_")
