"""Durable events of a person's inbox, each with the person's next sequence number."""

from typing import Any

import orjson
from sqlalchemy import bindparam, delete, func, insert, select

from yral_chat.core.clock import now
from yral_chat.db.execution import Executor, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import events, principals

# The row stays locked until commit, so that a person's events are committed in the order of their numbers.
_NEXT_SEQ = Statement(
    for_both(
        principals,
        lambda statement: (
            statement.values(id=bindparam("user"), ai_conversations=0, human_conversations=0, last_event_seq=1)
            .on_conflict_do_update(index_elements=["id"], set_={"last_event_seq": principals.c.last_event_seq + 1})
            .returning(principals.c.last_event_seq)
        ),
    )
)
_ADD = Statement(insert(events))
_LAST_SEQ = Statement(select(principals.c.last_event_seq).where(principals.c.id == bindparam("user")))
_KEPT = Statement(
    select(events.c.seq, events.c.event, events.c.data)
    .where(
        events.c.user_id == bindparam("user"),
        events.c.seq > bindparam("since"),
        events.c.created_at >= bindparam("oldest"),
    )
    .order_by(events.c.seq)
)
_DELETE_OF_CONVERSATION = Statement(delete(events).where(events.c.conversation_id == bindparam("conversation")))
_DELETE_OF_SIDE = Statement(
    delete(events).where(events.c.conversation_id == bindparam("conversation"), events.c.user_id == bindparam("user"))
)
_DELETE_OLD = Statement(delete(events).where(events.c.created_at < bindparam("oldest")))
_CROWDED = Statement(
    select(events.c.user_id, func.max(events.c.seq)).group_by(events.c.user_id).having(func.count() > bindparam("kept"))
)
_DELETE_BELOW = Statement(
    delete(events).where(events.c.user_id == bindparam("user"), events.c.seq <= bindparam("floor"))
)


class EventRepository:
    """Rows of `events`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, user_id: str, conversation_id: str, event: str, data: Any) -> int:
        """Keeps the event for replay; returns its number for this user."""
        seq: int = self._executor.count(_NEXT_SEQ, {"user": user_id})
        self._executor.run(
            _ADD,
            {
                "user_id": user_id,
                "seq": seq,
                "conversation_id": conversation_id,
                "event": event,
                "data": orjson.dumps(data).decode(),
                "created_at": now(),
            },
        )
        return seq

    def last_seq(self, user_id: str) -> int:
        return self._executor.count(_LAST_SEQ, {"user": user_id})

    def list_since(self, user_id: str, since: int, oldest: int) -> list[tuple[int, str, str]]:
        """(seq, event, data as JSON) after `since` and not older than `oldest` (microseconds), in order."""
        parameters = {"user": user_id, "since": since, "oldest": oldest}
        return [(seq, event, data) for seq, event, data in self._executor.all(_KEPT, parameters)]

    def delete_of_side(self, conversation_id: str, user_id: str) -> None:
        """No text of a conversation stays in the replay of the one who has deleted it."""
        self._executor.run(_DELETE_OF_SIDE, {"conversation": conversation_id, "user": user_id})

    def delete_of_conversation(self, conversation_id: str) -> None:
        """No text of a deleted conversation stays in the replay."""
        self._executor.run(_DELETE_OF_CONVERSATION, {"conversation": conversation_id})

    def trim(self, oldest: int, kept: int) -> None:
        """Drops what is older than `oldest`, and all but the newest `kept` of each user."""
        self._executor.run(_DELETE_OLD, {"oldest": oldest})
        for user_id, newest in self._executor.all(_CROWDED, {"kept": kept}):
            self._executor.run(_DELETE_BELOW, {"user": user_id, "floor": newest - kept})
