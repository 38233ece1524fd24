"""Files that people have uploaded or personas have made, and the messages that use them."""

from typing import Literal

import msgspec
from sqlalchemy import bindparam, collate, delete, exists, func, insert, select, text, update

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.tables import media_objects, media_uses

MediaKind = Literal["image", "audio"]


class MediaObject(msgspec.Struct, frozen=True):
    """One stored file. `size` in bytes, `created_at` in microseconds; `duration_seconds` of recordings only."""

    key: str
    owner_id: str
    kind: MediaKind
    mime_type: str
    size: int
    duration_seconds: int | None
    created_at: int


_COLUMNS = tuple(media_objects.c[name] for name in MediaObject.__struct_fields__)
_BY_KEY = media_objects.c.key == bindparam("file")
_ADD = Statement(insert(media_objects))
_SET_STORED = Statement(update(media_objects).where(_BY_KEY).values(is_stored=True))
# Whoever begins to use a file holds its row until the end of the unit, so that it is not cleaned away meanwhile.
_FIND_OWN = Statement(
    select(*_COLUMNS)
    .where(_BY_KEY, media_objects.c.owner_id == bindparam("owner"), media_objects.c.is_stored.is_(True))
    .with_for_update(read=True, key_share=True)
)
_ADD_USE = Statement(insert(media_uses), columns=("key", "message_id", "conversation_id"))
_SET_USED = Statement(update(media_objects).where(_BY_KEY).values(is_used=True))
_KEYS_OF_CONVERSATION = Statement(
    select(media_uses.c.key).where(media_uses.c.conversation_id == bindparam("conversation"))
)
_IS_IN_USE = exists().where(media_uses.c.key == media_objects.c.key)
_LOCK = Statement(select(media_objects.c.key).where(_BY_KEY).with_for_update())
# An avatar may also have been sent in a message; it stays when the message goes.
_IS_PUBLIC = media_objects.c.key.like("public/%")
_DELETE_UNUSED = Statement(delete(media_objects).where(_BY_KEY, ~_IS_IN_USE, ~_IS_PUBLIC))
# In the words of ix_media_objects_unused, so that SQLite recognises it.
_OLD_UNUSED = Statement(
    select(media_objects.c.key)
    .where(text("NOT is_used"), media_objects.c.created_at < bindparam("before"))
    .order_by(media_objects.c.created_at)
    .limit(bindparam("most"))
)

# In the order of bytes on both databases. PostgreSQL sorts by language and has no index for this one: a page costs it a
# look at every row, which a copy that reads the files themselves does not notice.
_KEY = {"sqlite": media_objects.c.key, "postgresql": collate(media_objects.c.key, "C")}
_LIST_STORED = Statement(
    {
        dialect: select(*_COLUMNS)
        .where(media_objects.c.is_stored.is_(True), key > bindparam("after"))
        .order_by(key)
        .limit(bindparam("most"))
        for dialect, key in _KEY.items()
    }
)
_COUNT_STORED = Statement(select(func.count()).where(media_objects.c.is_stored.is_(True)))
_IS_STORED = Statement(select(media_objects.c.is_stored).where(_BY_KEY))


class MediaRepository:
    """Rows of `media_objects` and `media_uses`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, media: MediaObject) -> None:
        """Announces a file that is about to be stored."""
        row = {name: getattr(media, name) for name in media.__struct_fields__}
        self._executor.run(_ADD, row | {"is_stored": False, "is_used": False})

    def set_stored(self, key: str) -> bool:
        """False: its row has gone meanwhile, with its owner."""
        return self._executor.run(_SET_STORED, {"file": key}) > 0

    def set_used(self, key: str) -> None:
        """Keeps a file that no message shows from being cleaned away."""
        self._executor.run(_SET_USED, {"file": key})

    def find_own(self, key: str, owner_id: str) -> MediaObject | None:
        """The owner's stored file, which stays at least until this unit ends. Those of others do not exist here."""
        row = self._executor.one(_FIND_OWN, {"file": key, "owner": owner_id})
        return None if row is None else MediaObject(*row)

    def use(self, keys: list[str], message_id: str, conversation_id: str) -> None:
        """`message_id` shows these files."""
        distinct = list(dict.fromkeys(keys))
        rows = [{"key": key, "message_id": message_id, "conversation_id": conversation_id} for key in distinct]
        if rows:
            self._executor.run_many(_ADD_USE, rows)
            self._executor.run_many(_SET_USED, [{"file": key} for key in distinct])

    def list_keys_of_conversation(self, conversation_id: str) -> list[str]:
        rows = self._executor.all(_KEYS_OF_CONVERSATION, {"conversation": conversation_id})
        return list(dict.fromkeys(key for (key,) in rows))

    def delete_unused(self, keys: list[str]) -> list[str]:
        """Forgets those of `keys` that no message uses; returns them. Their files are the caller's to remove."""
        gone = []
        for key in keys:
            if self._executor.dialect == "postgresql":
                self._executor.one(_LOCK, {"file": key})  # a message that is just beginning to use it comes first
            if self._executor.run(_DELETE_UNUSED, {"file": key}):
                gone.append(key)
        return gone

    def list_old_unused(self, before: int, most: int) -> list[str]:
        """Keys of files that no message ever used, uploaded before `before` (microseconds), oldest first."""
        return [key for (key,) in self._executor.all(_OLD_UNUSED, {"before": before, "most": most})]

    def list_stored(self, after: str, most: int) -> list[MediaObject]:
        """Every file that has arrived, in the order of the bytes of their keys, from behind the key `after`."""
        rows = self._executor.all(_LIST_STORED, {"after": after, "most": most})
        return [MediaObject(*row) for row in rows]

    def count_stored(self) -> int:
        return self._executor.count(_COUNT_STORED, {})

    def is_stored(self, key: str) -> bool:
        return bool(self._executor.number(_IS_STORED, {"file": key}))
