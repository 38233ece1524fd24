"""Counts that many people change at once: appended as deltas, folded by a job."""

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, update

from yral_chat.db.execution import Executor, Statement
from yral_chat.db.repositories.upserts import for_both
from yral_chat.db.tables import counter_deltas, counters, influencers

_ADD_DELTA = Statement(
    insert(counter_deltas), columns=("influencer_id", "conversations", "user_messages", "all_messages")
)
# What is deleted is what is returned: a delta that is committed meanwhile stays for the next fold.
_TAKE = Statement(
    delete(counter_deltas)
    .where(counter_deltas.c.id.in_(select(counter_deltas.c.id).order_by(counter_deltas.c.id).limit(5000)))
    .returning(
        counter_deltas.c.influencer_id,
        counter_deltas.c.conversations,
        counter_deltas.c.user_messages,
        counter_deltas.c.all_messages,
    )
)
_ANY = Statement(select(counter_deltas.c.id).limit(1))
_FOLD_INFLUENCER = Statement(
    update(influencers)
    .where(influencers.c.id == bindparam("influencer"))
    .values(
        conversation_count=influencers.c.conversation_count + bindparam("new_conversations"),
        message_count=influencers.c.message_count + bindparam("new_messages"),
    )
)
_FOLD_TOTAL = Statement(
    for_both(
        counters,
        lambda statement: statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": counters.c.value + statement.excluded.value}
        ),
    )
)
_TOTALS = Statement(select(counters.c.name, counters.c.value))
_PENDING_CONVERSATIONS = Statement(
    select(func.coalesce(func.sum(counter_deltas.c.conversations), 0)).where(
        counter_deltas.c.influencer_id == bindparam("influencer")
    )
)
_FOLDED_CONVERSATIONS = Statement(
    select(influencers.c.conversation_count).where(influencers.c.id == bindparam("influencer"))
)
_PENDING_TOTALS = Statement(
    select(
        func.coalesce(func.sum(counter_deltas.c.conversations), 0),
        func.coalesce(func.sum(counter_deltas.c.all_messages), 0),
    )
)


class Totals(msgspec.Struct, frozen=True):
    """Of the whole service."""

    conversations: int
    messages: int


class CounterRepository:
    """Rows of `counters` and `counter_deltas`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, influencer_id: str, *, conversations: int = 0, user_messages: int = 0, all_messages: int = 0) -> None:
        """Notes a change; nobody waits for anybody."""
        self._executor.run(
            _ADD_DELTA,
            {
                "influencer_id": influencer_id,
                "conversations": conversations,
                "user_messages": user_messages,
                "all_messages": all_messages,
            },
        )

    def has_deltas(self) -> bool:
        return self._executor.one(_ANY, {}) is not None

    def fold(self) -> list[str]:
        """Moves up to 5,000 noted changes into the counts; returns the influencers that changed."""
        rows = self._executor.all(_TAKE, {})
        if not rows:
            return []
        changes: dict[str, list[int]] = {}
        for influencer_id, *numbers in rows:
            sums = changes.setdefault(influencer_id, [0, 0, 0])
            for place, number in enumerate(numbers):
                sums[place] += number
        # In one order everywhere, so that two folds cannot wait for each other.
        for influencer_id, (new_conversations, new_messages, _) in sorted(changes.items()):
            self._executor.run(
                _FOLD_INFLUENCER,
                {
                    "influencer": influencer_id,
                    "new_conversations": new_conversations,
                    "new_messages": new_messages,
                },
            )
        for name, place in (("conversations", 0), ("messages", 2)):
            value = sum(sums[place] for sums in changes.values())
            self._executor.run(_FOLD_TOTAL, {"name": name, "value": value})
        return sorted(changes)

    def count_conversations(self, influencer_id: str) -> int:
        """The exact number, folded or not."""
        parameters = {"influencer": influencer_id}
        folded = self._executor.count(_FOLDED_CONVERSATIONS, parameters) or 0
        return folded + int(self._executor.count(_PENDING_CONVERSATIONS, parameters))

    def totals(self) -> Totals:
        """The exact totals, folded or not."""
        folded: dict[str, int] = dict(self._executor.all(_TOTALS, {}))
        conversations, messages = self._executor.one(_PENDING_TOTALS, {}) or (0, 0)
        return Totals(
            conversations=folded.get("conversations", 0) + int(conversations),
            messages=folded.get("messages", 0) + int(messages),
        )
