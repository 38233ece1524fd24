"""The two sides of a human chat, and what people have not read."""

from typing import NamedTuple

import msgspec
from sqlalchemy import bindparam, case, func, literal_column, select, text, update

from yral_chat.db.execution import Executor, Row, Statement
from yral_chat.db.tables import conversations, participants


class Side(msgspec.Struct, frozen=True):
    """How one of two people sees their conversation."""

    principal_id: str
    unread_count: int
    cleared_seq: int  # messages up to this one are deleted for this side
    cleared_count: int  # so many
    read_seq: int  # of the other's messages, those up to this one are read or deleted
    is_hidden: bool  # then nothing is unread


class Unread(NamedTuple):
    """What a person has not read: conversations by type, and messages of all of them."""

    ai_conversations: int
    human_conversations: int
    messages: int


_COLUMNS = tuple(participants.c[name] for name in Side.__struct_fields__)
_OF_CONVERSATION = participants.c.conversation_id == bindparam("conversation")
_OF_PRINCIPAL = participants.c.principal_id == bindparam("principal")
_SIDES = Statement(select(*_COLUMNS).where(_OF_CONVERSATION))
_SIDE = Statement(select(*_COLUMNS).where(_OF_CONVERSATION, _OF_PRINCIPAL))
_SHOW = Statement(update(participants).where(_OF_CONVERSATION, _OF_PRINCIPAL).values(is_hidden=False))
_CLEAR = Statement(
    update(participants)
    .where(_OF_CONVERSATION, _OF_PRINCIPAL)
    .values(
        is_hidden=True,
        unread_count=0,
        cleared_seq=bindparam("seq"),
        cleared_count=bindparam("count"),
        read_seq=bindparam("seq"),
    )
)
_SET_READ = Statement(
    update(participants)
    .where(_OF_CONVERSATION, _OF_PRINCIPAL)
    .values(unread_count=0, read_at=bindparam("time"), read_seq=bindparam("seq"))
)
_SAVE = Statement(
    update(participants)
    .where(_OF_CONVERSATION, _OF_PRINCIPAL)
    .values(
        unread_count=bindparam("unread"),
        cleared_seq=bindparam("cleared"),
        cleared_count=bindparam("count"),
        read_seq=bindparam("read_through"),
        is_hidden=bindparam("hidden"),
    )
)
_LAST_READ = Statement(
    update(conversations)
    .where(
        conversations.c.id == bindparam("conversation"),
        conversations.c.last_sender_id == bindparam("sender"),
        conversations.c.last_status == "delivered",
        conversations.c.last_seq_shown > bindparam("after"),
    )
    .values(last_status="read")
)
_UNREAD = Statement(
    select(
        # Literals: the type of a bound value would be unknown to PostgreSQL here.
        func.count(case((participants.c.type == literal_column("'ai_chat'"), 1))),
        func.count(case((participants.c.type == literal_column("'human_chat'"), 1))),
        func.coalesce(func.sum(participants.c.unread_count), 0),
    ).where(_OF_PRINCIPAL, text("participants.unread_count > 0 AND NOT participants.is_persona"))
)


def _to_side(row: Row) -> Side:
    principal_id, unread_count, cleared_seq, cleared_count, read_seq, is_hidden = row
    return Side(principal_id, unread_count, cleared_seq, cleared_count, read_seq, bool(is_hidden))


class ParticipantRepository:
    """Rows of `participants`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def list_sides(self, conversation_id: str) -> dict[str, Side]:
        """Both sides, by person."""
        rows = self._executor.all(_SIDES, {"conversation": conversation_id})
        return {row[0]: _to_side(row) for row in rows}

    def find_side(self, conversation_id: str, principal_id: str) -> Side | None:
        row = self._executor.one(_SIDE, {"conversation": conversation_id, "principal": principal_id})
        return None if row is None else _to_side(row)

    def save(self, conversation_id: str, side: Side) -> None:
        """Writes over what there is of this side."""
        self._executor.run(
            _SAVE,
            {
                "conversation": conversation_id,
                "principal": side.principal_id,
                "unread": side.unread_count,
                "cleared": side.cleared_seq,
                "count": side.cleared_count,
                "read_through": side.read_seq,
                "hidden": side.is_hidden,
            },
        )

    def show(self, conversation_id: str, principal_id: str) -> None:
        """The conversation appears in this side's inbox."""
        self._executor.run(_SHOW, {"conversation": conversation_id, "principal": principal_id})

    def clear(self, conversation_id: str, principal_id: str, *, seq: int, count: int) -> None:
        """It goes from there with its `count` messages up to `seq`."""
        parameters = {"conversation": conversation_id, "principal": principal_id, "seq": seq, "count": count}
        self._executor.run(_CLEAR, parameters)

    def mark_read(self, conversation_id: str, side: Side, sender_id: str, *, seq: int, time: int) -> None:
        """This side has read what `sender_id` has said up to `seq`."""
        parameters = {"conversation": conversation_id, "principal": side.principal_id, "seq": seq, "time": time}
        self._executor.run(_SET_READ, parameters)
        parameters = {"conversation": conversation_id, "sender": sender_id, "after": side.read_seq}
        self._executor.run(_LAST_READ, parameters)

    def count_unread(self, principal_id: str) -> Unread:
        """Of a person, not of a persona of the same id."""
        row = self._executor.one(_UNREAD, {"principal": principal_id})
        return Unread(0, 0, 0) if row is None else Unread(row[0], row[1], int(row[2]))
