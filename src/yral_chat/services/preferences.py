"""What people set for themselves (contract section 14)."""

import re
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from typing_extensions import TypedDict

from yral_chat.core.clock import now
from yral_chat.core.errors import Invalid
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.settings import UserSettings

# The well-formed tags of RFC 5646 section 2.1 without the grandfathered ones: language, script, region, variants,
# extensions, private use.
_LOCALE = re.compile(
    r"(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})(?:-[a-z]{4})?(?:-(?:[a-z]{2}|\d{3}))?"
    r"(?:-(?:[a-z\d]{5,8}|\d[a-z\d]{3}))*(?:-[a-wyz\d](?:-[a-z\d]{2,8})+)*(?:-x(?:-[a-z\d]{1,8})+)?",
    re.I | re.A,
)
MAX_LOCALE_CHARACTERS = 35  # enough for every tag in use: RFC 5646 section 4.4.1


class Preferences(TypedDict):
    memories_enabled: bool
    locale: str | None
    time_zone: str | None


class PreferenceService:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str) -> Preferences:
        return _to_wire(await self._database.read(lambda uow: uow.settings.find(user_id)))

    async def update(self, user_id: str, changes: dict[str, Any]) -> Preferences:
        """Sets what `changes` names and returns the whole. Raises Invalid.

        None is as good as absent (contract section 1.2); an empty text clears `locale` or `time_zone`.
        """
        checked = {
            name: _CHECKS[name](value) for name, value in changes.items() if name in _CHECKS and value is not None
        }
        if (switch := changes.get("memories_enabled")) is not None:
            checked["memories_enabled"] = switch
        return _to_wire(await self._database.write(_update, user_id, checked))


def _update(uow: UnitOfWork, user_id: str, changes: dict[str, Any]) -> UserSettings:
    return uow.settings.change(user_id, now(), **changes)


def _checked_locale(value: str) -> str | None:
    """In the usual spelling: `pt-BR`, `zh-Hant-TW`. POSIX writes `pt_BR` for the same."""
    if not value:
        return None
    tag = value.replace("_", "-")
    if len(tag) > MAX_LOCALE_CHARACTERS or not _LOCALE.fullmatch(tag):
        raise Invalid.field(["body", "locale"], "Not a language tag of BCP 47", "invalid_locale")
    language, *rest = tag.lower().split("-")
    is_private = False
    parts = [language]
    for part in rest:
        is_private = is_private or len(part) == 1
        if len(part) == 2 and not is_private:
            part = part.upper()
        elif len(part) == 4 and part.isalpha() and not is_private:
            part = part.title()
        parts.append(part)
    return "-".join(parts)


def _checked_time_zone(value: str) -> str | None:
    if not value:
        return None
    # Not available_timezones(), which reads the whole database of the system, 130 ms each time.
    try:
        ZoneInfo(value)
    except (ValueError, ZoneInfoNotFoundError, OSError) as error:  # OSError: a folder, or too long a name
        unknown = Invalid.field(["body", "time_zone"], "Not a time zone of the IANA database", "invalid_time_zone")
        raise unknown from error
    return value


_CHECKS = {"locale": _checked_locale, "time_zone": _checked_time_zone}


def _to_wire(settings: UserSettings) -> Preferences:
    return {
        "memories_enabled": settings.memories_enabled,
        "locale": settings.locale,
        "time_zone": settings.time_zone,
    }
