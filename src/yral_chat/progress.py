"""How far a command is: a line on standard error that fills, where somebody looks at it, and nothing elsewhere."""

from types import TracebackType
from typing import Final, Self

import typer

from yral_chat.core.sizes import MEBIBYTE

WIDTH: Final = 30


class Bar:
    """One line, for as long as the `with`. `total` None: it is not known, and the line counts without filling."""

    def __init__(self) -> None:
        self._is_shown = typer.get_text_stream("stderr").isatty()
        self._last = ""

    def count(self, what: str, done: int, total: int | None = None) -> None:
        """`3 of 10 objects`"""
        self._draw(done, total, f"{done} {what}" if total is None else f"{done} of {total} {what}")

    def bytes(self, done: int, total: int | None = None) -> None:
        """`1.5 of 20.0 MiB`"""
        whole = "" if total is None else f" of {total / MEBIBYTE:.1f}"
        self._draw(done, total, f"{done / MEBIBYTE:.1f}{whole} MiB")

    def say(self, line: object) -> None:
        """A line on standard output, above this one."""
        self._clear()
        typer.echo(line)

    def _draw(self, done: int, total: int | None, text: str) -> None:
        line = f"  {text}" if total is None else f"  [{'#' * _filled(done, total):.<{WIDTH}}] {text}"
        if self._is_shown and line != self._last:
            typer.echo(f"\r{line:<78}", err=True, nl=False)
            self._last = line

    def _clear(self) -> None:
        if self._last:
            typer.echo(f"\r{'':78}\r", err=True, nl=False)
            self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clear()


def _filled(done: int, total: int) -> int:
    """Characters; more than all there is only a moment of a thing that grows."""
    return min(WIDTH, WIDTH * done // total) if total else WIDTH
