"""Whether anything is left of people who had their account erased."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Column, Connection, Text, and_, column, func, literal, select, values

from yral_chat.db.tables import (
    conversations,
    events,
    influencers,
    jobs,
    media_objects,
    messages,
    participants,
    picture_requests,
    turns,
    usage_events,
    user_settings,
)
from yral_chat.db.verification.faults import Fault
from yral_chat.db.viewing import looking

AT_ONCE = 200
# Who a row belongs to, and when it was made or last changed: the account may have begun anew.
_PLACES: tuple[tuple[Column[str], Column[int]], ...] = (
    (conversations.c.user_id, conversations.c.created_at),
    (conversations.c.other_user_id, conversations.c.created_at),
    (participants.c.principal_id, participants.c.updated_at),
    (messages.c.sender_id, messages.c.created_at),
    (turns.c.user_id, turns.c.created_at),
    (picture_requests.c.user_id, picture_requests.c.created_at),
    (media_objects.c.owner_id, media_objects.c.created_at),
    (influencers.c.owner_id, influencers.c.created_at),
    (usage_events.c.user_id, usage_events.c.started_at),
    (events.c.user_id, events.c.created_at),
    (user_settings.c.user_id, user_settings.c.updated_at),
)


def find_left(url: str, erased: Sequence[tuple[str, int]]) -> list[Fault]:
    """`erased` are people and when that was, in microseconds. Raises DatabaseUnusable.

    Examples name tables, not people. A persona may be called as a person is: what it says is not looked at.
    """
    with looking(url) as connection:
        parts = [erased[start : start + AT_ONCE] for start in range(0, len(erased), AT_ONCE)]
        return [fault for part in parts for fault in _find(connection, part)]


def _find(connection: Connection, part: Sequence[tuple[str, int]]) -> list[Fault]:
    gone = values(column("user_id", Text), column("at", BigInteger), name="gone").data(list(part)).cte()
    faults = []
    for who, when in _PLACES:
        conditions = [who == gone.c.user_id, when < gone.c.at]
        if who.table is participants:
            conditions.append(participants.c.is_persona.is_(False))
        if who.table is messages:
            conditions.append(messages.c.role == "user")
        count = connection.execute(select(func.count()).select_from(gone).join(who.table, and_(*conditions))).scalar()
        faults += _fault(f"{who.table.name}.{who.name}", count)
    quoted = literal('"') + gone.c.user_id + '"'
    named = and_(func.replace(jobs.c.payload, quoted, "") != jobs.c.payload, jobs.c.created_at < gone.c.at)
    count = connection.execute(select(func.count()).select_from(gone).join(jobs, named)).scalar()
    return [*faults, *_fault("jobs.payload", count)]


def _fault(place: str, count: int | None) -> list[Fault]:
    return [Fault("erased", "Nothing is left of people who had themselves erased.", count, place)] if count else []
