"""Each message comes back under its own number. Where others have that number now, these move up.

Numbers rise with times, by a millisecond at least (contract section 5.1). In a conversation that has only grown, the
number of a missing message is free. It is not where the conversation was deleted and begun anew, or where the database
itself was restored to an earlier time and went on from there: what was written since then is later, and moves up as a
whole.

Two messages may have been made at the same time, where a clock was set back or another service went on with a copy. The
one that comes back goes behind the other, a millisecond later.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from yral_chat.core.clock import MILLISECOND
from yral_chat.core.errors import ConversationNotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.places import Place
from yral_chat.db.repositories.restores import Head

# Messages that move in one unit of work.
CHUNK = 250


# Before every message.
START = Place(0, 0)


class Placed(NamedTuple):
    """Messages that are missing, with the numbers and times that they will get. `crowded_at`: the time of the first
    whose place is taken by later messages; it is not placed."""

    messages: list[Head]
    crowded_at: int | None = None


def place(uow: UnitOfWork, conversation_id: str, missing: Sequence[Head], distance: int, last: Place = START) -> Placed:
    """Each keeps its number, or its distance from the one before, as far as no earlier message stands higher.

    `missing` are neighbours in the copy, in their order; `distance` is by how much the number of the one before them is
    higher here, and `last` where the missing one before them was placed. One question for each run that stands together
    here, too.
    """
    placed: list[Head] = []
    earliest = last.created_at + MILLISECOND
    while len(placed) < len(missing):
        first = missing[len(placed)]
        seq, time = max(first.seq + distance, last.seq + 1), max(first.created_at, earliest)
        distance = seq - first.seq
        below, above = uow.places.find_below(conversation_id, seq), uow.places.find_from(conversation_id, seq)
        if above is not None and above.created_at < time + MILLISECOND:
            earliest = max(earliest, above.created_at + MILLISECOND)
            distance = uow.places.find_last_before(conversation_id, max(time, earliest)) + 1 - first.seq
        elif below is not None and abs(below.created_at - time) < MILLISECOND:
            earliest = below.created_at + MILLISECOND
        elif (above is not None and above.seq == seq) or (below is not None and below.created_at > time):
            return Placed(placed, time)
        else:
            placed += _fill(missing[len(placed) :], distance, earliest, above)
            last = place_of(placed[-1])
            earliest = last.created_at + MILLISECOND
    return Placed(placed)


def _fill(missing: Sequence[Head], distance: int, earliest: int, above: Place | None) -> Iterator[Head]:
    """As many as stand before `above`, none before `earliest`."""
    for head in missing:
        here = head._replace(seq=head.seq + distance, created_at=max(head.created_at, earliest))
        if above is not None and (here.seq >= above.seq or here.created_at + MILLISECOND > above.created_at):
            return
        yield here
        earliest = here.created_at + MILLISECOND


def place_of(head: Head) -> Place:
    return Place(head.seq, head.created_at)


def is_free(uow: UnitOfWork, conversation_id: str, placed: Sequence[Head]) -> bool:
    """Whether they may still be put there."""
    return place(uow, conversation_id, placed, 0) == Placed(list(placed))


def end_of(uow: UnitOfWork, conversation_id: str) -> Place:
    """What is written comes behind that. Raises ConversationNotFound."""
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None:
        raise ConversationNotFound
    return Place(conversation.last_seq, conversation.last_message_time)


def keep_free(uow: UnitOfWork, conversation_id: str, last: Place, seen: Place) -> bool:
    """What is written from now on comes behind `last`, too. Raises ConversationNotFound.

    False when something that may stand in the way was written since `seen` was the end.
    """
    end = end_of(uow, conversation_id)
    if seen.seq >= last.seq and seen.created_at >= last.created_at:
        return True
    if end != seen:
        return False
    time = max(end.created_at, last.created_at)
    uow.conversations.update(conversation_id, last_seq=max(end.seq, last.seq), last_message_time=time)
    return True


def begin_to_move(uow: UnitOfWork, conversation_id: str, low: int, through: int) -> tuple[int, int]:
    """(high, by): what lies from `low` to `high` is to move up by so much, beyond all that there is.

    In between there is room for `through` numbers. What is written from now on comes behind that. Raises
    ConversationNotFound.
    """
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None:
        raise ConversationNotFound
    high = conversation.last_seq
    by = high + through - low + 1
    uow.conversations.update(conversation_id, last_seq=high + by)
    return high, by


def move_some(uow: UnitOfWork, conversation_id: str, low: int, high: int, by: int) -> int:
    """Moves the highest of them; returns up to where others are left. Their order is right at every moment, so that
    it may end here and begin anew."""
    if uow.conversations.find_locked(conversation_id) is None:
        raise ConversationNotFound
    start = uow.places.find_nth_from_above(conversation_id, low, high, CHUNK) or low
    uow.places.raise_numbers(conversation_id, start, high, by)
    return start - 1
