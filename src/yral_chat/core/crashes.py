"""Errors that nobody had foreseen, told to whoever collects them. The log has them in any case."""

import sys
import threading
from collections.abc import Mapping
from typing import Protocol

from yral_chat.core.logging import log


class CrashReporter(Protocol):
    """Takes a crash and returns at once."""

    def report(self, error: BaseException, where: str, tags: Mapping[str, str]) -> None: ...


_reporter: CrashReporter | None = None


def use(reporter: CrashReporter | None) -> None:
    """From here on crashes of this process go to `reporter`."""
    global _reporter
    _reporter = reporter


def report(error: BaseException, where: str, **tags: str) -> None:
    """`where` is the event in the log; tags are ids and route templates, never what somebody wrote."""
    if _reporter is not None:
        _reporter.report(error, where, tags)


def catch_the_rest() -> None:
    """From here on what no code catches is a line of the log, too: Python would print what it says.

    For whole programs: whoever embeds the service has hooks of their own.
    """
    sys.excepthook = lambda _, error, __: _tell("process.crashed", error)
    threading.excepthook = lambda lost: _tell("thread.crashed", lost.exc_value)
    sys.unraisablehook = lambda lost: _tell("object.crashed", lost.exc_value)


def _tell(where: str, error: BaseException | None) -> None:
    if error is None or isinstance(error, SystemExit | KeyboardInterrupt):
        return
    log.opt(exception=error).error(where)
    report(error, where)
