"""The level of the log while the service runs: changed for good, or for a while."""

import asyncio
from typing import get_args

from loguru import logger

from yral_chat.core.config import LogLevel, Settings
from yral_chat.core.logging import change_level, current_level

LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)


class LogLevelService:
    """`settings.log_level` is what a change for a while ends in, and what a start begins with."""

    def __init__(self, settings: Settings) -> None:
        self._usual: LogLevel = settings.log_level
        self._return: asyncio.TimerHandle | None = None

    @property
    def current(self) -> str:
        return current_level()

    def change(self, level: LogLevel | None, seconds: float | None = None) -> str:
        """Sets the level (None: the usual one), for `seconds` or until the next change; returns what it is now."""
        self.close()
        self._set(level or self._usual)
        if level is not None and seconds is not None:
            self._return = asyncio.get_running_loop().call_later(seconds, self._set, self._usual)
        return self.current

    def _set(self, level: LogLevel) -> None:
        before = self.current
        change_level(level)
        # As a warning, so that it is seen at most levels: what is missing in a log was left out on purpose.
        logger.warning("log.level_changed", before=before, level=level)

    def close(self) -> None:
        if self._return is not None:
            self._return.cancel()
            self._return = None
