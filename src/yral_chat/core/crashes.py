"""Errors that nobody had foreseen, told to whoever collects them. The log has them in any case."""

from collections.abc import Mapping
from typing import Protocol


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
