"""Where messages stand in their conversation: by their numbers, which rise with their times."""

from typing import NamedTuple

from sqlalchemy import Table, bindparam, func, literal_column, select, update

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.tables import conversations, forgotten_memories, memories, messages, participants, summaries, turns


class Place(NamedTuple):
    """The number of a message, and when it was made (microseconds)."""

    seq: int
    created_at: int


_IN_CONVERSATION = messages.c.conversation_id == bindparam("conversation")
_PLACE = select(messages.c.seq, messages.c.created_at).where(_IN_CONVERSATION)
_BELOW = Statement(_PLACE.where(messages.c.seq < bindparam("number")).order_by(messages.c.seq.desc()).limit(1))
_FROM = Statement(_PLACE.where(messages.c.seq >= bindparam("number")).order_by(messages.c.seq).limit(1))
# These two read the conversation up to there: for what lies otherwise than in the copy, and not for the writer.
_FIRST_SINCE = Statement(
    select(messages.c.seq)
    .where(_IN_CONVERSATION, messages.c.created_at >= bindparam("time"))
    .order_by(messages.c.seq)
    .limit(1)
)
_LAST_BEFORE = Statement(
    select(messages.c.seq)
    .where(_IN_CONVERSATION, messages.c.created_at < bindparam("time"))
    .order_by(messages.c.seq.desc())
    .limit(1)
)
_NTH_FROM_ABOVE = Statement(
    select(messages.c.seq)
    .where(_IN_CONVERSATION, messages.c.seq >= bindparam("low"), messages.c.seq <= bindparam("high"))
    .order_by(messages.c.seq.desc())
    .limit(1)
    .offset(bindparam("newer"))
)
_COUNT_LISTED = Statement(
    select(func.count()).where(_IN_CONVERSATION, messages.c.is_listed.is_(True), messages.c.seq <= bindparam("seq"))
)
_COUNT_DELIVERED = Statement(
    select(func.count()).where(
        _IN_CONVERSATION,
        messages.c.status == literal_column("'delivered'"),  # so that SQLite recognises ix_messages_unread
        messages.c.sender_id == bindparam("sender"),
        messages.c.seq > bindparam("seq"),
    )
)


def _raising(table: Table, column: str, conversation: str = "conversation_id") -> Statement:
    number = table.c[column]
    return Statement(
        update(table)
        .where(
            table.c[conversation] == bindparam("conversation"),
            number >= bindparam("low"),
            number <= bindparam("high"),
        )
        .values({column: number + bindparam("by")})
    )


# Everything that names a message by its number. Whoever works on a turn has the old one in memory, where it only says
# who comes first.
_RAISE = (
    _raising(messages, "seq"),
    _raising(conversations, "last_seq_shown", "id"),
    _raising(turns, "seq"),
    _raising(participants, "cleared_seq"),
    _raising(participants, "read_seq"),
    _raising(memories, "source_seq"),
    _raising(forgotten_memories, "through_seq"),
    _raising(summaries, "through_seq"),
)


class PlaceRepository:
    """The numbers of messages, wherever they stand."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def find_below(self, conversation_id: str, seq: int) -> Place | None:
        """The nearest message with a smaller number."""
        row = self._executor.one(_BELOW, {"conversation": conversation_id, "number": seq})
        return None if row is None else Place(*row)

    def find_from(self, conversation_id: str, seq: int) -> Place | None:
        """The message with this number, or the nearest above."""
        row = self._executor.one(_FROM, {"conversation": conversation_id, "number": seq})
        return None if row is None else Place(*row)

    def find_first_since(self, conversation_id: str, time: int) -> int | None:
        """The number of the first message that was made at `time` or later."""
        return self._executor.number(_FIRST_SINCE, {"conversation": conversation_id, "time": time})

    def find_last_before(self, conversation_id: str, time: int) -> int:
        """The number of the last message that was made before `time`; 0 without one."""
        return self._executor.count(_LAST_BEFORE, {"conversation": conversation_id, "time": time})

    def find_nth_from_above(self, conversation_id: str, low: int, high: int, n: int) -> int | None:
        """The number of the `n`th (from 1) highest between these; None when there are fewer."""
        parameters = {"conversation": conversation_id, "low": low, "high": high, "newer": n - 1}
        return self._executor.number(_NTH_FROM_ABOVE, parameters)

    def raise_numbers(self, conversation_id: str, low: int, high: int, by: int) -> None:
        """Moves the messages between these numbers up, with everything that names them. There is room above."""
        parameters = {"conversation": conversation_id, "low": low, "high": high, "by": by}
        for statement in _RAISE:
            self._executor.run(statement, parameters)

    def count_listed(self, conversation_id: str, through_seq: int) -> int:
        """Messages up to this number that lists show."""
        return self._executor.count(_COUNT_LISTED, {"conversation": conversation_id, "seq": through_seq})

    def count_delivered(self, conversation_id: str, sender_id: str, after_seq: int) -> int:
        """What this person has said after that number and nobody has read."""
        parameters = {"conversation": conversation_id, "sender": sender_id, "seq": after_seq}
        return self._executor.count(_COUNT_DELIVERED, parameters)
