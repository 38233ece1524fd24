"""Turns that run or wait. A row is work that somebody must finish; finishing deletes it."""

from typing import Literal

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, update

from yral_chat.db.execution import Executor, Row, Statement
from yral_chat.db.tables import principals, turns

TurnKind = Literal["reply", "picture"]


class StoredTurn(msgspec.Struct, frozen=True):
    """One row. Times in microseconds; `owner` is a process, None when handed back."""

    id: str  # also the id of the assistant message
    conversation_id: str
    user_id: str
    user_message_id: str
    kind: TurnKind
    seq: int
    attempt: int
    takeovers: int
    is_regeneration: bool
    is_replacement: bool
    owner: str | None
    lease_until: int
    created_at: int


_ALL = select(*(turns.c[name] for name in StoredTurn.__struct_fields__))
_IN_CONVERSATION = turns.c.conversation_id == bindparam("conversation")
_BY_ID = Statement(_ALL.where(turns.c.id == bindparam("id")))
_NEXT_REPLY = Statement(_ALL.where(_IN_CONVERSATION, turns.c.kind == "reply").order_by(turns.c.seq).limit(1))
_ORPHANS = Statement(
    _ALL.where(turns.c.lease_until <= bindparam("time")).order_by(turns.c.lease_until, turns.c.seq).limit(500)
)
_COUNT_IN_CONVERSATION = Statement(select(func.count()).where(_IN_CONVERSATION))
_COUNT_OF_USER = Statement(select(func.count()).where(turns.c.user_id == bindparam("user")))
_LOCK_USER = Statement(select(principals.c.id).where(principals.c.id == bindparam("user")).with_for_update())
_ADD = Statement(insert(turns))
_FINISH = Statement(delete(turns).where(turns.c.id == bindparam("id"), turns.c.attempt == bindparam("run")))
_TAKE_OVER = Statement(
    update(turns)
    .where(turns.c.id == bindparam("turn"), turns.c.attempt == bindparam("run"))
    .values(
        attempt=turns.c.attempt + 1,
        takeovers=turns.c.takeovers + 1,
        owner=bindparam("process"),
        lease_until=bindparam("until"),
    )
)
_RENEW = Statement(
    update(turns)
    .where(turns.c.owner == bindparam("process"), turns.c.id == bindparam("turn"))
    .values(lease_until=bindparam("until"))
)
_HAND_BACK = Statement(update(turns).where(turns.c.owner == bindparam("process")).values(owner=None, lease_until=0))
_ORPHAN_ALL = Statement(update(turns).values(owner=None, lease_until=0))


def _to_turn(row: Row) -> StoredTurn:
    turn = StoredTurn(*row)
    return msgspec.structs.replace(
        turn, is_regeneration=bool(turn.is_regeneration), is_replacement=bool(turn.is_replacement)
    )


class TurnRepository:
    """Rows of `turns`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, turn: StoredTurn) -> None:
        self._executor.run(_ADD, {name: getattr(turn, name) for name in turn.__struct_fields__})

    def find(self, turn_id: str) -> StoredTurn | None:
        row = self._executor.one(_BY_ID, {"id": turn_id})
        return None if row is None else _to_turn(row)

    def find_next_reply(self, conversation_id: str) -> StoredTurn | None:
        """The open turn whose reply comes first."""
        row = self._executor.one(_NEXT_REPLY, {"conversation": conversation_id})
        return None if row is None else _to_turn(row)

    def list_orphans(self, time: int) -> list[StoredTurn]:
        """Turns whose lease has ended at `time`, in order; at most 500."""
        return [_to_turn(row) for row in self._executor.all(_ORPHANS, {"time": time})]

    def count_in_conversation(self, conversation_id: str) -> int:
        return self._executor.count(_COUNT_IN_CONVERSATION, {"conversation": conversation_id})

    def count_of_user(self, user_id: str) -> int:
        """Exact also when the user sends in two conversations at once: the second counts after the first commit."""
        if self._executor.dialect == "postgresql":
            self._executor.one(_LOCK_USER, {"user": user_id})
        return self._executor.count(_COUNT_OF_USER, {"user": user_id})

    def finish(self, turn_id: str, attempt: int) -> bool:
        """Ends the turn; False when this attempt is not the one in charge any more, and nothing may be written."""
        return self._executor.run(_FINISH, {"id": turn_id, "run": attempt}) == 1

    def take_over(self, turn: StoredTurn, owner: str, lease_until: int) -> bool:
        """Makes `owner` run the next attempt; False when somebody else was faster."""
        parameters = {"turn": turn.id, "run": turn.attempt, "process": owner, "until": lease_until}
        return self._executor.run(_TAKE_OVER, parameters) == 1

    def renew(self, owner: str, turn_ids: list[str], lease_until: int) -> None:
        rows = [{"process": owner, "turn": turn_id, "until": lease_until} for turn_id in turn_ids]
        self._executor.run_many(_RENEW, rows)

    def hand_back(self, owner: str) -> int:
        """Whoever comes next may take over what `owner` runs. Returns how many turns that are."""
        return self._executor.run(_HAND_BACK, {"process": owner})

    def orphan_all(self) -> int:
        """For the only process of a database, at its start: whoever ran these is gone."""
        return self._executor.run(_ORPHAN_ALL, {})
