"""Whole rows of conversations and people: read from a copy of the database, and added to the one that lives.

A row is a dictionary with all columns, the same whichever of the two databases it comes from. What is added never
writes over what is there.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Table, bindparam, func, insert, select

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import (
    conversations,
    forgotten_memories,
    influencer_versions,
    influencers,
    media_objects,
    media_uses,
    messages,
    participants,
    picture_requests,
    user_settings,
)

Copied = dict[str, Any]

# Rows in one INSERT, ids in one question.
PAGE = 200


def _adding(table: Table) -> Statement:
    return Statement(for_both(table, lambda statement: statement.on_conflict_do_nothing()))


_IN_CONVERSATION = messages.c.conversation_id == bindparam("conversation")
_CONVERSATION = Statement(select(conversations).where(conversations.c.id == bindparam("id")))
_SIDES = Statement(select(participants).where(participants.c.conversation_id == bindparam("conversation")))
_MESSAGES = Statement(
    select(messages)
    .where(_IN_CONVERSATION, messages.c.seq > bindparam("after"))
    .order_by(messages.c.seq)
    .limit(bindparam("most"))
)
_HEADS = Statement(
    select(messages.c.id, messages.c.seq, messages.c.created_at, messages.c.role, messages.c.sender_id)
    .where(_IN_CONVERSATION, messages.c.seq > bindparam("after"))
    .order_by(messages.c.seq)
    .limit(bindparam("most"))
)
_EXTENT = Statement(
    select(func.count(), func.min(messages.c.created_at), func.max(messages.c.created_at)).where(_IN_CONVERSATION)
)
_KEYS = Statement(
    select(media_uses.c.key)
    .where(media_uses.c.conversation_id == bindparam("conversation"), media_uses.c.key > bindparam("after"))
    .distinct()
    .order_by(media_uses.c.key)
    .limit(bindparam("most"))
)
# `IN` with a list has no fixed text: these go through SQLAlchemy's own execution.
_USES = select(media_uses).where(media_uses.c.message_id.in_(bindparam("ids", expanding=True)))
_FILES = select(media_objects).where(media_objects.c.key.in_(bindparam("keys", expanding=True)))
_USED = select(media_uses.c.key).where(
    media_uses.c.conversation_id == bindparam("conversation"), media_uses.c.key.in_(bindparam("keys", expanding=True))
)
_KNOWN = select(messages.c.id, messages.c.conversation_id, messages.c.seq).where(
    messages.c.id.in_(bindparam("ids", expanding=True))
)
_HOME = select(messages.c.conversation_id).where(messages.c.id.in_(bindparam("ids", expanding=True))).limit(1)
_ANSWERED = select(messages.c.reply_to).where(messages.c.reply_to.in_(bindparam("ids", expanding=True)))
_TAKEN = select(messages.c.client_message_id).where(
    _IN_CONVERSATION,
    messages.c.sender_id == bindparam("sender"),
    messages.c.client_message_id.in_(bindparam("keys", expanding=True)),
)
_PICTURES = Statement(
    select(picture_requests)
    .where(picture_requests.c.conversation_id == bindparam("conversation"), picture_requests.c.id > bindparam("after"))
    .order_by(picture_requests.c.id)
    .limit(bindparam("most"))
)
_FORGOTTEN = Statement(
    select(forgotten_memories.c.key, forgotten_memories.c.through_seq).where(
        forgotten_memories.c.conversation_id == bindparam("conversation")
    )
)
_INFLUENCER = Statement(select(influencers).where(influencers.c.id == bindparam("id")))
_VERSIONS = Statement(
    select(influencer_versions)
    .where(influencer_versions.c.influencer_id == bindparam("influencer"))
    .order_by(influencer_versions.c.n)
)
_SETTINGS = Statement(select(user_settings).where(user_settings.c.user_id == bindparam("user")))

_ADD_CONVERSATION = _adding(conversations)
_ADD_SIDES = Statement(insert(participants))
_ADD_MESSAGES = Statement(insert(messages))
_ADD_FILES = _adding(media_objects)
_ADD_PICTURES = _adding(picture_requests)
_ADD_INFLUENCER = _adding(influencers)
_ADD_VERSIONS = _adding(influencer_versions)
_ADD_SETTINGS = _adding(user_settings)


def _rows(table: Table, found: Iterable[Sequence[Any]]) -> list[Copied]:
    """Booleans as such: SQLite gives numbers, and PostgreSQL does not take them."""
    names = [column.name for column in table.columns]
    booleans = [column.name for column in table.columns if isinstance(column.type, Boolean)]
    rows = [dict(zip(names, row, strict=True)) for row in found]
    for row in rows:
        for name in booleans:
            row[name] = bool(row[name])
    return rows


class Head(NamedTuple):
    """A message without its content. `created_at` in microseconds."""

    id: str
    seq: int
    created_at: int
    role: str
    sender_id: str | None


class RestoreRepository:
    """See the module. On a copy only what reads works."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    # what a copy has

    def find_conversation(self, conversation_id: str) -> Copied | None:
        return self._one(conversations, _CONVERSATION, id=conversation_id)

    def list_sides(self, conversation_id: str) -> list[Copied]:
        return self._all(participants, _SIDES, conversation=conversation_id)

    def list_messages(self, conversation_id: str, after_seq: int, most: int = PAGE) -> list[Copied]:
        """The next page, oldest first."""
        return self._all(messages, _MESSAGES, conversation=conversation_id, after=after_seq, most=most)

    def list_heads(self, conversation_id: str, after_seq: int, most: int = PAGE) -> list[Head]:
        """The same without what they say."""
        parameters = {"conversation": conversation_id, "after": after_seq, "most": most}
        return [Head(*row) for row in self._executor.all(_HEADS, parameters)]

    def measure(self, conversation_id: str) -> tuple[int, int | None, int | None]:
        """How many messages there are, and when the first and the last were made (microseconds)."""
        count, first, last = self._executor.one(_EXTENT, {"conversation": conversation_id}) or (0, None, None)
        return count, first, last

    def list_keys(self, conversation_id: str, after: str, most: int = PAGE) -> list[str]:
        """The next page of the files that messages show, by key."""
        parameters = {"conversation": conversation_id, "after": after, "most": most}
        return [key for (key,) in self._executor.all(_KEYS, parameters)]

    def list_used(self, conversation_id: str, keys: list[str]) -> set[str]:
        """Those of `keys` that messages of the conversation show."""
        found = self._executor.connection.execute(_USED, {"conversation": conversation_id, "keys": keys})
        return set(found.scalars())

    def list_uses(self, message_ids: list[str]) -> tuple[list[Copied], list[Copied]]:
        """What these messages show: (uses, files)."""
        uses = _rows(media_uses, self._executor.connection.execute(_USES, {"ids": message_ids}))
        keys = list({use["key"] for use in uses})
        files = self._executor.connection.execute(_FILES, {"keys": keys}) if keys else ()
        return uses, _rows(media_objects, files)

    def list_pictures(self, conversation_id: str, after: str, most: int = PAGE) -> list[Copied]:
        """The next page of the pictures that were asked for, by id."""
        return self._all(picture_requests, _PICTURES, conversation=conversation_id, after=after, most=most)

    def list_forgotten(self, conversation_id: str) -> list[tuple[str, int]]:
        """(key, through which message) of the memories that are to stay forgotten."""
        found = self._executor.all(_FORGOTTEN, {"conversation": conversation_id})
        return [(key, seq) for key, seq in found]

    def find_influencer(self, influencer_id: str) -> Copied | None:
        return self._one(influencers, _INFLUENCER, id=influencer_id)

    def list_versions(self, influencer_id: str) -> list[Copied]:
        return self._all(influencer_versions, _VERSIONS, influencer=influencer_id)

    def find_settings(self, user_id: str) -> Copied | None:
        return self._one(user_settings, _SETTINGS, user=user_id)

    # what is there already

    def find_home(self, message_ids: list[str]) -> str | None:
        """The conversation that has one of these messages."""
        found: str | None = self._executor.connection.execute(_HOME, {"ids": message_ids}).scalar()
        return found

    def list_known(self, message_ids: list[str]) -> dict[str, tuple[str, int]]:
        """(conversation, number) of those of these messages that there are, by id."""
        found = self._executor.connection.execute(_KNOWN, {"ids": message_ids})
        return {row.id: (row.conversation_id, row.seq) for row in found}

    def list_answered(self, message_ids: list[str]) -> set[str]:
        """Those of these messages that have a reply."""
        return set(self._executor.connection.execute(_ANSWERED, {"ids": message_ids}).scalars())

    def list_taken_keys(self, conversation_id: str, sender_id: str, keys: list[str]) -> set[str]:
        """Those of the sender's idempotency keys that messages of this conversation have."""
        parameters = {"conversation": conversation_id, "sender": sender_id, "keys": keys}
        return set(self._executor.connection.execute(_TAKEN, parameters).scalars())

    # what is added

    def add_conversation(self, row: Copied) -> bool:
        """False when there is one with this id, or for these two."""
        return self._executor.run(_ADD_CONVERSATION, row) == 1

    def add_sides(self, rows: list[Copied]) -> None:
        self._executor.run_many(_ADD_SIDES, rows)

    def add_messages(self, rows: list[Copied]) -> None:
        """None of them may be there."""
        self._executor.run_many(_ADD_MESSAGES, rows)

    def add_files(self, rows: list[Copied]) -> None:
        if rows:
            self._executor.run_many(_ADD_FILES, rows)

    def add_picture(self, row: Copied) -> bool:
        """False when it is known, or its key was used again."""
        return self._executor.run(_ADD_PICTURES, row) == 1

    def add_influencer(self, row: Copied) -> bool:
        """False when its id or name is taken."""
        return self._executor.run(_ADD_INFLUENCER, row) == 1

    def add_versions(self, rows: list[Copied]) -> None:
        if rows:
            self._executor.run_many(_ADD_VERSIONS, rows)

    def add_settings(self, row: Copied) -> bool:
        """False when the person has set something."""
        return self._executor.run(_ADD_SETTINGS, row) == 1

    def _one(self, table: Table, statement: Statement, **parameters: Any) -> Copied | None:
        found = self._all(table, statement, **parameters)
        return found[0] if found else None

    def _all(self, table: Table, statement: Statement, **parameters: Any) -> list[Copied]:
        return _rows(table, self._executor.all(statement, parameters))
