"""Turns that run or wait. A row is work that somebody must finish; finishing deletes it."""

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from yral_chat.db.tables import principals, turns


class StoredTurn(msgspec.Struct, frozen=True):
    """One row. Times in microseconds; `owner` is a process, None when handed back."""

    id: str  # also the id of the assistant message
    conversation_id: str
    user_id: str
    user_message_id: str
    kind: str
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
_BY_ID = _ALL.where(turns.c.id == bindparam("id"))
_OF_CONVERSATION = _ALL.where(_IN_CONVERSATION).order_by(turns.c.seq)
_ORPHANS = _ALL.where(turns.c.lease_until <= bindparam("time")).order_by(turns.c.lease_until, turns.c.seq).limit(500)
_COUNT_IN_CONVERSATION = select(func.count()).where(_IN_CONVERSATION)
_COUNT_OF_USER = select(func.count()).where(turns.c.user_id == bindparam("user"))
_LOCK_USER = select(principals.c.id).where(principals.c.id == bindparam("user")).with_for_update()
_ADD = insert(turns)
_FINISH = delete(turns).where(turns.c.id == bindparam("id"), turns.c.attempt == bindparam("run"))
_TAKE_OVER = (
    update(turns)
    .where(turns.c.id == bindparam("turn"), turns.c.attempt == bindparam("run"))
    .values(
        attempt=turns.c.attempt + 1,
        takeovers=turns.c.takeovers + 1,
        owner=bindparam("process"),
        lease_until=bindparam("until"),
    )
)
_RENEW = (
    update(turns)
    .where(turns.c.owner == bindparam("process"), turns.c.id.in_(bindparam("ids", expanding=True)))
    .values(lease_until=bindparam("until"))
)
_HAND_BACK = update(turns).where(turns.c.owner == bindparam("process")).values(owner=None, lease_until=0)
_ORPHAN_ALL = update(turns).values(owner=None, lease_until=0)


class TurnRepository:
    """Rows of `turns`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, turn: StoredTurn) -> None:
        self._connection.execute(_ADD, {name: getattr(turn, name) for name in turn.__struct_fields__})

    def find(self, turn_id: str) -> StoredTurn | None:
        row = self._connection.execute(_BY_ID, {"id": turn_id}).first()
        return None if row is None else StoredTurn(*row)

    def list_of_conversation(self, conversation_id: str) -> list[StoredTurn]:
        """In the order in which they run."""
        rows = self._connection.execute(_OF_CONVERSATION, {"conversation": conversation_id})
        return [StoredTurn(*row) for row in rows]

    def list_orphans(self, time: int) -> list[StoredTurn]:
        """Turns whose lease has ended at `time`, in order; at most 500."""
        return [StoredTurn(*row) for row in self._connection.execute(_ORPHANS, {"time": time})]

    def count_in_conversation(self, conversation_id: str) -> int:
        return self._connection.execute(_COUNT_IN_CONVERSATION, {"conversation": conversation_id}).scalar_one()

    def count_of_user(self, user_id: str) -> int:
        """Exact also when the user sends in two conversations at once: the second counts after the first commit."""
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(_LOCK_USER, {"user": user_id})
        return self._connection.execute(_COUNT_OF_USER, {"user": user_id}).scalar_one()

    def finish(self, turn_id: str, attempt: int) -> bool:
        """Ends the turn; False when this attempt is not the one in charge any more, and nothing may be written."""
        return self._connection.execute(_FINISH, {"id": turn_id, "run": attempt}).rowcount == 1

    def take_over(self, turn: StoredTurn, owner: str, lease_until: int) -> bool:
        """Makes `owner` run the next attempt; False when somebody else was faster."""
        parameters = {"turn": turn.id, "run": turn.attempt, "process": owner, "until": lease_until}
        return self._connection.execute(_TAKE_OVER, parameters).rowcount == 1

    def renew(self, owner: str, turn_ids: list[str], lease_until: int) -> None:
        self._connection.execute(_RENEW, {"process": owner, "ids": turn_ids, "until": lease_until})

    def hand_back(self, owner: str) -> int:
        """Whoever comes next may take over what `owner` runs. Returns how many turns that are."""
        return self._connection.execute(_HAND_BACK, {"process": owner}).rowcount

    def orphan_all(self) -> int:
        """For the only process of a database, at its start: whoever ran these is gone."""
        return self._connection.execute(_ORPHAN_ALL).rowcount
