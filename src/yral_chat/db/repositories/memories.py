"""What is remembered of a conversation: facts about its user, what is to stay forgotten, and the rolling summary."""

import msgspec
from sqlalchemy import bindparam, delete, func, or_, select

from yral_chat.db.execution import Executor, PageStatement, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import forgotten_memories, memories, summaries

MAX_PER_CONVERSATION = 100  # contract section 17
EVERYTHING = "*"  # as a forgotten key: no memory has a key like this


class StoredMemory(msgspec.Struct, frozen=True):
    """One fact. `confidence` in percent, times in microseconds, `source_seq` the number of the message it is from."""

    key: str
    value: str
    source_message_id: str | None
    source_seq: int
    confidence: int
    created_at: int
    updated_at: int


class Summary(msgspec.Struct, frozen=True):
    """What was said up to `through_seq`, in short."""

    text: str = ""
    through_seq: int = 0


_COLUMNS = tuple(memories.c[name] for name in StoredMemory.__struct_fields__)
_IN_CONVERSATION = memories.c.conversation_id == bindparam("conversation")
_BY_KEY = memories.c.key == bindparam("name")
_LIST = PageStatement(select(*_COLUMNS).where(_IN_CONVERSATION).order_by(memories.c.key).limit(MAX_PER_CONVERSATION))
_SAVE = Statement(
    for_both(
        memories,
        lambda statement: statement.on_conflict_do_update(
            index_elements=["conversation_id", "key"],
            set_={
                name: statement.excluded[name]
                for name in ("value", "source_message_id", "source_seq", "confidence", "updated_at")
            },
        ),
    )
)
_DELETE = Statement(delete(memories).where(_IN_CONVERSATION, _BY_KEY))
_DELETE_ALL = Statement(delete(memories).where(_IN_CONVERSATION))
_FORGET = Statement(
    for_both(
        forgotten_memories,
        lambda statement: statement.on_conflict_do_update(
            index_elements=["conversation_id", "key"], set_={"through_seq": statement.excluded.through_seq}
        ),
    )
)
_FORGOTTEN_THROUGH = Statement(
    select(func.max(forgotten_memories.c.through_seq)).where(
        forgotten_memories.c.conversation_id == bindparam("conversation"),
        or_(forgotten_memories.c.key == bindparam("name"), forgotten_memories.c.key == EVERYTHING),
    )
)
_SUMMARY = Statement(
    select(summaries.c.text, summaries.c.through_seq).where(summaries.c.conversation_id == bindparam("conversation"))
)
_SAVE_SUMMARY = Statement(
    for_both(
        summaries,
        lambda statement: statement.on_conflict_do_update(
            index_elements=["conversation_id"],
            set_={name: statement.excluded[name] for name in ("text", "through_seq", "updated_at")},
            where=summaries.c.through_seq < statement.excluded.through_seq,
        ),
    )
)


class MemoryRepository:
    """Rows of `memories`, `forgotten_memories` and `summaries`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def list_all(self, conversation_id: str) -> list[StoredMemory]:
        """By key; at most MAX_PER_CONVERSATION."""
        rows = self._executor.all(_LIST, {"conversation": conversation_id})
        return [StoredMemory(*row) for row in rows]

    def save(self, conversation_id: str, memory: StoredMemory) -> None:
        """Adds the memory, or writes over the one with its key."""
        self._executor.run(_SAVE, {"conversation_id": conversation_id, **msgspec.structs.asdict(memory)})

    def delete(self, conversation_id: str, key: str) -> int:
        return self._executor.run(_DELETE, {"conversation": conversation_id, "name": key})

    def delete_all(self, conversation_id: str) -> int:
        return self._executor.run(_DELETE_ALL, {"conversation": conversation_id})

    def forget(self, conversation_id: str, key: str, through_seq: int) -> None:
        """Nothing for `key` (EVERYTHING: for any) is drawn again from messages up to this number."""
        self._executor.run(_FORGET, {"conversation_id": conversation_id, "key": key, "through_seq": through_seq})

    def forgotten_through(self, conversation_id: str, key: str) -> int:
        """Up to which message nothing may be drawn for `key`; 0 when nothing was deleted."""
        return self._executor.count(_FORGOTTEN_THROUGH, {"conversation": conversation_id, "name": key})

    def find_summary(self, conversation_id: str) -> Summary:
        """An empty one where there is none yet."""
        row = self._executor.one(_SUMMARY, {"conversation": conversation_id})
        return Summary() if row is None else Summary(*row)

    def save_summary(self, conversation_id: str, summary: Summary, time: int) -> None:
        """Writes over one that reaches less far; a later one stays."""
        self._executor.run(
            _SAVE_SUMMARY, {"conversation_id": conversation_id, **msgspec.structs.asdict(summary), "updated_at": time}
        )
