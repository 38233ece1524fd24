"""Units that find or make the conversation which takes a copy in, and say who sees it."""

import msgspec

from yral_chat.core.clock import now
from yral_chat.core.errors import ConversationNotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.influencers import STATUS_RANK
from yral_chat.db.repositories.participants import Side
from yral_chat.db.repositories.restores import Copied
from yral_chat.services.characters.revising import DELETED_NAME
from yral_chat.services.erasing import NO_PERSONA, name_of_deleted
from yral_chat.services.restores.comparing import Overview
from yral_chat.services.restores.erased import Erasures
from yral_chat.services.restores.records import Target, Then

# What grows with the messages as they come back.
_EMPTY: Copied = {
    "message_count": 0,
    "banner_count": 0,
    "last_id": None,
    "last_seq_shown": None,
    "last_content": None,
    "last_role": None,
    "last_type": None,
    "last_created_at": None,
    "last_status": None,
    "last_sender_id": None,
}


def open_target(uow: UnitOfWork, then: Then, persona: Copied | None, first: list[str], erasures: Erasures) -> Target:
    """The conversation itself; the one that has its messages by now; one that the same two have begun since; or a new
    one under the old id.

    `persona` is the copy's row of its influencer, `first` are ids of the first messages. Raises AccountErased.
    """
    erasures.check(uow, *then.present)
    while True:  # both may be made or deleted in this very moment
        for found in (then.id, uow.restores.find_home(first), _find_newer(uow, then)):
            if found is not None and uow.conversations.find_locked(found) is not None:
                return Target(found, is_new=False)
        if persona is not None and uow.influencers.find(persona["id"]) is None:
            uow.restores.add_influencer(_deleted(persona))
        if uow.restores.add_conversation(_renamed(then) | _EMPTY):
            break
    uow.restores.add_sides([_side(then, person) for person in then.sides])
    for person in then.wanted:
        is_ai = then.influencer_id is not None
        uow.conversations.count_for(person, ai=int(is_ai), human=int(not is_ai))
    uow.counters.add(then.influencer_id or NO_PERSONA, conversations=1)
    return Target(then.id, is_new=True)


def _find_newer(uow: UnitOfWork, then: Then) -> str | None:
    if then.influencer_id is not None:
        return uow.conversations.find_id(then.row["user_id"], then.influencer_id)
    if then.gone:
        return None  # whoever has an erased person's id now is somebody else
    return uow.conversations.find_id_of_people(*then.people)


def _deleted(persona: Copied) -> Copied:
    """A persona that is gone altogether: an id for the conversation to refer to, as after its deletion."""
    texts = dict.fromkeys(("avatar_url", "description", "category", "system_instructions", "initial_greeting"), "")
    nothing = dict.fromkeys(("owner_id", "voice", "seed_hash", "card", "status_before_ban"))
    name = name_of_deleted(persona["id"])
    changes: Copied = {
        "name": name,
        "name_key": name,
        "display_name": DELETED_NAME,
        "status": "discontinued",
        "status_rank": STATUS_RANK["discontinued"],
        "suggested_messages": "[]",
        "personality_traits": "{}",
        "conversation_count": 0,
        "updated_at": now(),
    }
    return persona | texts | nothing | changes


def _renamed(then: Then) -> Copied:
    """The row, with nobody in the place of people who are gone."""
    people = {name: then.gone.get(then.row[name], then.row[name]) for name in ("user_id", "other_user_id")}
    return then.row | people | ({"pair": None} if then.gone else {})


def _side(then: Then, person: str) -> Copied:
    """Of a conversation that is made anew. The one of two people who is not wanted has deleted it, and sees nothing."""
    row = then.sides[person] | {"unread_count": 0, "cleared_count": 0}
    if then.influencer_id is not None or person in then.wanted:
        return row
    nobody = then.gone.get(person)
    if nobody is not None:
        return row | {"principal_id": nobody, "is_hidden": True, "read_at": None, "cleared_seq": 0, "read_seq": 0}
    return row | {"is_hidden": True, "cleared_seq": then.through, "read_seq": then.through}


def prepare(uow: UnitOfWork, then: Then, target: Target, overview: Overview, erasures: Erasures) -> bool:
    """Before messages come back to a conversation that was there: shows it to those who get it back. Returns whether
    something was changed. Raises ConversationNotFound, AccountErased."""
    erasures.check(uow, *then.present)
    if uow.conversations.find_locked(target.id) is None:
        raise ConversationNotFound
    if then.influencer_id is not None:
        return False
    sides = uow.participants.list_sides(target.id).values()
    is_home = overview.is_home or target.id == then.id
    shown = [_show_again(uow, then, target, side, overview, is_home=is_home) for side in sides]
    return any(shown)


def _show_again(uow: UnitOfWork, then: Then, target: Target, side: Side, overview: Overview, *, is_home: bool) -> bool:
    """Sets how one of two people sees the conversation; returns whether that was another way before."""
    person = side.principal_id
    if person in then.sides:
        cleared, read = (overview.number_of(then.sides[person][name]) for name in ("cleared_seq", "read_seq"))
    else:
        cleared, read = 0, 0  # nobody, in the place of somebody who is gone
    if person in then.wanted:
        changed = _as_before(uow, target.id, side, cleared, read, is_home=is_home)
    elif overview.reach:
        through = cleared if is_home else _before_what_is_seen(uow, target.id, side, overview.reach)
        changed = _without(uow, target.id, side, through)
    else:
        changed = side
    if changed == side:
        return False
    if side.is_hidden and not changed.is_hidden:
        uow.conversations.count_for(person, human=1)
    uow.participants.save(target.id, changed)
    return True


def _before_what_is_seen(uow: UnitOfWork, conversation_id: str, side: Side, through: int) -> int:
    """`through`, or less where the side sees something that was written at the same time."""
    seen = uow.places.find_from(conversation_id, side.cleared_seq + 1)
    return through if seen is None else min(through, seen.seq - 1)


def _without(uow: UnitOfWork, conversation_id: str, side: Side, through: int) -> Side:
    """What comes back up to this number is deleted for this one, unless they see something before it."""
    if through <= side.cleared_seq or uow.places.count_listed(conversation_id, through) > side.cleared_count:
        return side
    return msgspec.structs.replace(side, cleared_seq=through, read_seq=max(side.read_seq, through))


def _as_before(uow: UnitOfWork, conversation_id: str, side: Side, cleared: int, read: int, *, is_home: bool) -> Side:
    """What was deleted since is seen again, and unread again as far as it was."""
    if side.cleared_seq <= cleared and not side.is_hidden:
        if is_home or side.cleared_seq == cleared:
            return side
        cleared = _before_what_is_seen(uow, conversation_id, side, cleared)
        count = uow.places.count_listed(conversation_id, cleared)
        return msgspec.structs.replace(side, cleared_seq=cleared, cleared_count=count)
    (other,) = (
        principal for principal in uow.participants.list_sides(conversation_id) if principal != side.principal_id
    )
    return Side(
        side.principal_id,
        unread_count=uow.places.count_delivered(conversation_id, other, cleared),
        cleared_seq=cleared,
        cleared_count=uow.places.count_listed(conversation_id, cleared),
        read_seq=read,
        is_hidden=False,
    )
