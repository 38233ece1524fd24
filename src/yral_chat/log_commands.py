"""`yral-chat log-level`: asks the running server, whose log it is."""

import re
from typing import Any, Final

from yral_chat.clients.admin_api import AdminApiError, call_admin_api
from yral_chat.core.config import Settings
from yral_chat.core.failures import CannotGoOn
from yral_chat.services.log_levels import LEVELS

PATH: Final = "/api/v1/admin/log-level"
RESET: Final = "RESET"
_DURATION: Final = re.compile(r"(\d{1,6})([smh]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


class LogCommandFailed(CannotGoOn):
    """A sentence for the operator."""


async def ask_log_level(settings: Settings, level: str | None, duration: str | None) -> str:
    """Sets the level of the running server, or without one only asks; returns what it is now.

    Raises LogCommandFailed.
    """
    from yral_chat.serving import find_server  # lazily: it brings the whole service with it

    body = _body(level, duration)
    if settings.admin_api_key is None:
        raise LogCommandFailed("The server takes orders only with ADMIN_API_KEY: set it for both.")
    try:
        answer = await call_admin_api(find_server(settings), settings.admin_api_key.get_secret_value(), PATH, body)
    except AdminApiError as error:
        raise LogCommandFailed(str(error)) from error
    return str(answer["level"])


def _body(level: str | None, duration: str | None) -> dict[str, Any]:
    level = level.upper() if level is not None else None
    if level is not None and level not in (*LEVELS, RESET):
        raise LogCommandFailed(f"{level} is no level. There are: {', '.join(LEVELS)}, {RESET}.")
    if level in (None, RESET):
        if duration is not None:
            raise LogCommandFailed("--for belongs to a level: yral-chat log-level DEBUG --for 10m")
        return {"reset": level == RESET}
    return {"level": level} if duration is None else {"level": level, "seconds": _seconds(duration)}


def _seconds(duration: str) -> int:
    found = _DURATION.fullmatch(duration)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= 7 * 86400:
        raise LogCommandFailed(f"{duration} is no time up to a week: it looks like 90s, 10m or 2h.")
    return seconds
