"""Conversations, each side's view of them, and the inbox."""

import hashlib
from typing import Any, Literal, NamedTuple

import msgspec
import orjson
from sqlalchemy import bindparam, case, delete, func, insert, literal_column, select, text, update

from yral_chat.core.clock import to_text
from yral_chat.core.objects import (
    ConversationSummary,
    ConversationType,
    ConversationUser,
    LastMessage,
    Message,
    MessageStatus,
    MessageType,
    Role,
)
from yral_chat.db.execution import Executor, PageStatement, Row, Statement, UpdateById
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import conversations, influencers, participants, principals

LAST_CONTENT = 1000  # characters of a message that the inbox carries

InboxType = Literal["ai_chat", "human_chat"]


class StoredConversation(msgspec.Struct, frozen=True):
    """What decisions need of a conversation. Times in microseconds."""

    id: str
    type: str
    user_id: str
    influencer_id: str | None  # None: of two people
    other_user_id: str | None  # the second of two people; `user_id` is the one who opened it
    owner_id: str | None  # of the influencer
    influencer_status: str | None
    last_seq: int
    last_message_time: int
    message_count: int
    banner_count: int
    last_id: str | None
    last_seq_shown: int | None
    updated_at: int
    pair: str | None  # of two people; None also when one of them was erased, and nobody reads what the other writes

    def other_of(self, user_id: str) -> str:
        """The other one of the two people of a human chat."""
        other = self.other_user_id if user_id == self.user_id else self.user_id
        assert other is not None  # noqa: S101 - human chats have both
        return other


_STORED = select(
    conversations.c.id,
    conversations.c.type,
    conversations.c.user_id,
    conversations.c.influencer_id,
    conversations.c.other_user_id,
    influencers.c.owner_id,
    influencers.c.status,
    conversations.c.last_seq,
    conversations.c.last_message_time,
    conversations.c.message_count,
    conversations.c.banner_count,
    conversations.c.last_id,
    conversations.c.last_seq_shown,
    conversations.c.updated_at,
    conversations.c.pair,
).select_from(conversations.outerjoin(influencers, influencers.c.id == conversations.c.influencer_id))
_ONE_STORED = _STORED.where(conversations.c.id == bindparam("id"))
_BY_ID = Statement(_ONE_STORED)
# Locks the conversation's row alone: the influencer's is everybody's.
_BY_ID_LOCKED = Statement(_ONE_STORED.with_for_update(of=conversations))
_BY_PAIR = Statement(
    select(conversations.c.id).where(
        conversations.c.user_id == bindparam("user"), conversations.c.influencer_id == bindparam("influencer")
    )
)
_BY_PEOPLE = Statement(select(conversations.c.id).where(conversations.c.pair == bindparam("pair")))

_SUMMARY = select(
    conversations.c.id,
    conversations.c.type,
    conversations.c.user_id,
    conversations.c.influencer_id,
    conversations.c.other_user_id,
    conversations.c.message_count,
    conversations.c.created_at,
    conversations.c.updated_at,
    conversations.c.last_id,
    conversations.c.last_seq_shown,
    conversations.c.last_content,
    conversations.c.last_role,
    conversations.c.last_type,
    conversations.c.last_created_at,
    conversations.c.last_status,
    conversations.c.last_sender_id,
    participants.c.principal_id,
    participants.c.unread_count,
    participants.c.cleared_seq,
    participants.c.cleared_count,
    influencers.c.name,
    influencers.c.display_name,
    influencers.c.avatar_url,
    influencers.c.category,
    influencers.c.status,
    influencers.c.suggested_messages,
).select_from(
    participants.join(conversations, conversations.c.id == participants.c.conversation_id).outerjoin(
        influencers, influencers.c.id == conversations.c.influencer_id
    )
)
_OF_PRINCIPAL = participants.c.principal_id == bindparam("principal")
_OF_READER = participants.c.principal_id == bindparam("reader")
# In the words of the indexes, so that SQLite recognises them.
_SHOWN = text("NOT participants.is_hidden")
_UNREAD_ONES = text("participants.unread_count > 0 AND NOT participants.is_persona")
_ONE_SUMMARY = Statement(
    _SUMMARY.where(_OF_PRINCIPAL, participants.c.conversation_id == bindparam("conversation"), _SHOWN)
)


def _inbox(*, is_bot: bool, has_type: bool, has_influencer: bool, is_unread: bool) -> Statement:
    # A person may be called as a bot is: what others say to the bot is not theirs.
    query = _SUMMARY.where(_OF_PRINCIPAL, participants.c.is_persona.is_(is_bot))
    # Only what is shown is unread; said once more, SQLite would take the index of everything.
    query = query.where(_UNREAD_ONES if is_unread else _SHOWN)
    if has_type:
        query = query.where(participants.c.type == bindparam("type"))
    if has_influencer:
        query = query.where(conversations.c.influencer_id == bindparam("influencer"))
    query = query.order_by(participants.c.updated_at.desc(), participants.c.conversation_id)
    return PageStatement(query.limit(bindparam("limit")).offset(bindparam("offset")))


# By (a bot's, filtered by type, filtered by influencer, unread ones only).
_INBOX = {
    (is_bot, has_type, has_influencer, is_unread): _inbox(
        is_bot=is_bot, has_type=has_type, has_influencer=has_influencer, is_unread=is_unread
    )
    for is_bot in (False, True)
    for has_type in (False, True)
    for has_influencer in (False, True)
    for is_unread in (False, True)
}

_ADDED = ("id", "type", "user_id", "influencer_id", "other_user_id", "pair", "last_seq", "last_message_time",
          "message_count", "created_at", "updated_at")  # fmt: skip


def _add(*unique: str) -> Statement:
    """Gives the id, or nothing where there is one with the same `unique` columns."""
    return Statement(
        for_both(
            conversations,
            lambda statement: statement.on_conflict_do_nothing(index_elements=unique).returning(conversations.c.id),
        ),
        columns=_ADDED,
    )


_ADD_AI, _ADD_HUMAN = _add("user_id", "influencer_id"), _add("pair")
_ADD_PARTICIPANTS = Statement(
    insert(participants),
    columns=("conversation_id", "principal_id", "type", "unread_count", "is_hidden", "is_persona", "updated_at"),
)
_ADD_PRINCIPAL = Statement(
    for_both(principals, lambda statement: statement.on_conflict_do_nothing(index_elements=["id"]))
)
_COUNT = Statement(
    update(principals)
    .where(principals.c.id == bindparam("principal"))
    .values(
        ai_conversations=principals.c.ai_conversations + bindparam("ai"),
        human_conversations=principals.c.human_conversations + bindparam("human"),
    )
)
_VISIBLE = Statement(
    select(
        # Literals: the type of a bound value would be unknown to PostgreSQL here.
        func.count(case((participants.c.type == literal_column("'ai_chat'"), 1))),
        func.count(case((participants.c.type == literal_column("'human_chat'"), 1))),
    ).where(_OF_PRINCIPAL, text("NOT participants.is_hidden AND NOT participants.is_persona"))
)
_COUNTS = Statement(
    select(principals.c.ai_conversations, principals.c.human_conversations).where(
        principals.c.id == bindparam("principal")
    )
)
_UPDATE = UpdateById(conversations)
_TOUCH_PARTICIPANTS = Statement(
    update(participants)
    .where(participants.c.conversation_id == bindparam("conversation"))
    .values(
        updated_at=bindparam("time"),
        unread_count=participants.c.unread_count + case((_OF_READER, bindparam("change")), else_=0),
    )
)
_UNREAD = Statement(
    select(participants.c.unread_count).where(
        participants.c.conversation_id == bindparam("conversation"), _OF_PRINCIPAL
    )
)
_SET_READ = Statement(
    update(participants)
    .where(participants.c.conversation_id == bindparam("conversation"), _OF_PRINCIPAL)
    .values(unread_count=0, read_at=bindparam("time"))
)
_LAST_READ = Statement(
    update(conversations)
    .where(
        conversations.c.id == bindparam("conversation"),
        conversations.c.last_role == bindparam("side"),
        conversations.c.last_status == "delivered",
    )
    .values(last_status="read")
)
_DELETE = Statement(delete(conversations).where(conversations.c.id == bindparam("conversation")))


class _SummaryRow(NamedTuple):
    """The columns of `_SUMMARY`, in their order."""

    id: str
    type: ConversationType
    user_id: str
    influencer_id: str | None
    other_user_id: str | None
    message_count: int
    created_at: int
    updated_at: int
    last_id: str | None
    last_seq_shown: int | None
    last_content: str
    last_role: Role
    last_type: MessageType
    last_created_at: int
    last_status: MessageStatus
    last_sender_id: str | None
    principal_id: str
    unread_count: int
    cleared_seq: int
    cleared_count: int
    name: str
    display_name: str
    avatar_url: str
    category: str
    status: str
    suggested_messages: str


def _last_message(row: _SummaryRow) -> LastMessage | None:
    if row.last_id is None or (row.last_seq_shown or 0) <= row.cleared_seq:
        return None
    return {
        "id": row.last_id,
        "content": row.last_content,
        "role": row.last_role,
        "message_type": row.last_type,
        "created_at": to_text(row.last_created_at),
        "status": row.last_status,
        "is_read": row.last_status == "read",
        "sender_id": row.last_sender_id,
    }


def _other_user(row: _SummaryRow) -> ConversationUser | None:
    """In human chats the one who does not look."""
    if row.other_user_id is None:
        return None
    return user_of(row.other_user_id if row.principal_id == row.user_id else row.user_id)


def user_of(user_id: str) -> ConversationUser:
    """A person on the wire, as yet without name and picture."""
    return {"principal_id": user_id, "username": None, "profile_picture_url": None}


def _to_summary(columns: Row) -> ConversationSummary:
    row = _SummaryRow._make(columns)
    return {
        "id": row.id,
        "conversation_type": row.type,
        "user_id": row.user_id,
        "influencer_id": row.influencer_id,
        "influencer": {
            "id": row.influencer_id,
            "name": row.name,
            "display_name": row.display_name,
            "avatar_url": row.avatar_url,
            "category": row.category,
            "is_online": row.status == "active",
            "suggested_messages": orjson.loads(row.suggested_messages),
        }
        if row.influencer_id is not None
        else None,
        "user": _other_user(row),
        "created_at": to_text(row.created_at),
        "updated_at": to_text(row.updated_at),
        "message_count": row.message_count - row.cleared_count,
        "unread_count": row.unread_count,
        "takeover_active": False,
        "last_message": _last_message(row),
    }


class ConversationRepository:
    """Rows of `conversations` and `participants`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def find(self, conversation_id: str) -> StoredConversation | None:
        return self._one(_BY_ID, conversation_id)

    def find_locked(self, conversation_id: str) -> StoredConversation | None:
        """As `find`, and nobody else changes this conversation until the unit ends."""
        return self._one(_BY_ID_LOCKED, conversation_id)

    def _one(self, query: Statement, conversation_id: str) -> StoredConversation | None:
        row: Any = self._executor.one(query, {"id": conversation_id})
        return None if row is None else StoredConversation(*row)

    def find_id(self, user_id: str, influencer_id: str) -> str | None:
        return self._executor.text(_BY_PAIR, {"user": user_id, "influencer": influencer_id})

    def find_id_of_people(self, user_id: str, other_user_id: str) -> str | None:
        """Of these two, in either order."""
        return self._executor.text(_BY_PEOPLE, {"pair": _pair(user_id, other_user_id)})

    def add_ai(self, conversation_id: str, user_id: str, influencer_id: str, time: int) -> bool:
        """Adds an empty AI conversation with both sides; False when the pair has one already."""
        row = {"id": conversation_id, "type": "ai_chat", "user_id": user_id, "influencer_id": influencer_id}
        if not self._add(_ADD_AI, row, influencer_id, time):
            return False
        self.count_for(user_id, ai=1)
        return True

    def add_human(self, conversation_id: str, user_id: str, other_user_id: str, time: int) -> bool:
        """Adds an empty human chat, hidden from the other until somebody writes; False when the two have one."""
        row = {"id": conversation_id, "type": "human_chat", "user_id": user_id, "other_user_id": other_user_id}
        if not self._add(_ADD_HUMAN, row | {"pair": _pair(user_id, other_user_id)}, other_user_id, time):
            return False
        self.count_for(user_id, human=1)
        return True

    def _add(self, statement: Statement, row: dict[str, Any], other_side: str, time: int) -> bool:
        nothing = {"influencer_id": None, "other_user_id": None, "pair": None}
        fresh = {"last_seq": 0, "last_message_time": 0, "message_count": 0, "created_at": time, "updated_at": time}
        if self._executor.text(statement, nothing | fresh | row) is None:
            return False
        is_human = row["type"] == "human_chat"
        side = {"conversation_id": row["id"], "type": row["type"], "unread_count": 0, "updated_at": time}
        self._executor.run_many(
            _ADD_PARTICIPANTS,
            [
                {**side, "principal_id": row["user_id"], "is_hidden": False, "is_persona": False},
                {**side, "principal_id": other_side, "is_hidden": is_human, "is_persona": not is_human},
            ],
        )
        return True

    def count_for(self, user_id: str, *, ai: int = 0, human: int = 0) -> None:
        """So many conversations have come to the person's inbox, or have gone."""
        person = {"id": user_id, "ai_conversations": 0, "human_conversations": 0, "last_event_seq": 0}
        self._executor.run(_ADD_PRINCIPAL, person)
        self._executor.run(_COUNT, {"principal": user_id, "ai": ai, "human": human})

    def count_anew(self, user_id: str) -> None:
        """Counts what is in the person's inbox, for one that `principals` does not know."""
        row = self._executor.one(_VISIBLE, {"principal": user_id})
        if row is not None and any(row):
            self.count_for(user_id, ai=row[0], human=row[1])

    def find_summary(self, conversation_id: str, principal_id: str) -> ConversationSummary | None:
        """One side's view, with the influencer's suggestions; None also for a side that does not see it."""
        parameters = {"conversation": conversation_id, "principal": principal_id}
        row = self._executor.one(_ONE_SUMMARY, parameters)
        return None if row is None else _to_summary(row)

    def list_inbox(
        self,
        principal_id: str,
        *,
        is_bot: bool,
        type_: InboxType | None,
        influencer_id: str | None,
        limit: int,
        offset: int,
        is_unread: bool = False,
    ) -> list[ConversationSummary]:
        """One side's conversations, newest first; `type_` None means all, `is_unread` those with something unread.

        One indexed query.
        """
        parameters: dict[str, Any] = {"principal": principal_id, "limit": limit, "offset": offset}
        if type_ is not None:
            parameters["type"] = type_
        if influencer_id is not None:
            parameters["influencer"] = influencer_id
        statement = _INBOX[is_bot, type_ is not None, influencer_id is not None, is_unread]
        return [_to_summary(row) for row in self._executor.all(statement, parameters)]

    def count(self, principal_id: str) -> tuple[int, int]:
        """(AI, human) conversations of a person, from maintained counters."""
        row = self._executor.one(_COUNTS, {"principal": principal_id})
        return (0, 0) if row is None else (row[0], row[1])

    def update(self, conversation_id: str, **values: Any) -> None:
        self._executor.update(_UPDATE, conversation_id, values)

    def touch(self, conversation_id: str, time: int, *, reader: str = "", unread: int = 0) -> None:
        """Moves the conversation to the front of both sides' inboxes; `reader` has `unread` more to read."""
        parameters = {"conversation": conversation_id, "time": time, "reader": reader, "change": unread}
        self._executor.run(_TOUCH_PARTICIPANTS, parameters)

    def count_unread(self, conversation_id: str, principal_id: str) -> int:
        parameters = {"conversation": conversation_id, "principal": principal_id}
        count: int = self._executor.count(_UNREAD, parameters)
        return count

    def mark_read(self, conversation_id: str, principal_id: str, side: str, time: int) -> None:
        """`principal_id` has read everything that `side` (the other one's role) has said."""
        parameters = {"conversation": conversation_id, "principal": principal_id, "time": time}
        self._executor.run(_SET_READ, parameters)
        self._executor.run(_LAST_READ, {"conversation": conversation_id, "side": side})

    def delete(self, conversation_id: str) -> None:
        """The conversation goes with its messages, turns and sides. What people count is the caller's matter."""
        self._executor.run(_DELETE, {"conversation": conversation_id})


def _pair(user_id: str, other_user_id: str) -> str:
    """Equal for two people in either order; a hash, because two ids can be longer than an index takes."""
    return hashlib.sha256(orjson.dumps(sorted((user_id, other_user_id)))).hexdigest()


def last_message_columns(message: Message, created_at: int) -> dict[str, Any]:
    """The `last_*` columns that show `message`, which was made at `created_at` (microseconds)."""
    return {
        "last_id": message["id"],
        "last_seq_shown": message["sequence"],
        "last_content": message["content"][:LAST_CONTENT],
        "last_role": message["role"],
        "last_type": message["message_type"],
        "last_created_at": created_at,
        "last_status": message["status"],
        "last_sender_id": message["sender_id"],
    }
