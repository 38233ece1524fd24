"""What people have set for themselves."""

from typing import Any

import msgspec
from sqlalchemy import bindparam, select, update

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import user_settings


class UserSettings(msgspec.Struct, frozen=True):
    """One person's choices; the defaults are those of somebody who has set nothing (contract section 14).

    `locale` is a BCP 47 tag, `time_zone` an IANA name.
    """

    memories_enabled: bool = True
    locale: str | None = None
    time_zone: str | None = None


_FIND = Statement(
    select(user_settings.c.memories_enabled, user_settings.c.locale, user_settings.c.time_zone).where(
        user_settings.c.user_id == bindparam("user")
    )
)
_ADD = Statement(
    for_both(user_settings, lambda statement: statement.on_conflict_do_nothing(index_elements=["user_id"]))
)
_LOCK = Statement(select(user_settings.c.user_id).where(user_settings.c.user_id == bindparam("user")).with_for_update())
_SAVE = Statement(
    update(user_settings)
    .where(user_settings.c.user_id == bindparam("user"))
    .values(
        memories_enabled=bindparam("memories_enabled"),
        locale=bindparam("locale"),
        time_zone=bindparam("time_zone"),
        updated_at=bindparam("time"),
    )
)


class SettingsRepository:
    """Rows of `user_settings`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def find(self, user_id: str) -> UserSettings:
        """What this person has set, or the defaults."""
        row = self._executor.one(_FIND, {"user": user_id})
        return UserSettings() if row is None else UserSettings(bool(row[0]), row[1], row[2])

    def find_locale(self, user_id: str) -> str | None:
        """The BCP 47 tag that this person has set."""
        return self.find(user_id).locale

    def change(self, user_id: str, time: int, **changes: Any) -> UserSettings:
        """Sets these fields and returns the whole; two changes at once keep each other."""
        self._executor.run(_ADD, {"user_id": user_id, **msgspec.structs.asdict(UserSettings()), "updated_at": time})
        self._executor.one(_LOCK, {"user": user_id})
        settings = msgspec.structs.replace(self.find(user_id), **changes)
        self._executor.run(_SAVE, {"user": user_id, **msgspec.structs.asdict(settings), "time": time})
        return settings
