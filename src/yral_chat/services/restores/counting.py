"""The last unit of a conversation: what is kept beside its messages becomes what they come to.

Putting back counts as it goes. But whatever has lost messages may have lost them without counting.
"""

from typing import NamedTuple

import msgspec

from yral_chat.core.errors import ConversationNotFound
from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation
from yral_chat.db.repositories.participants import Side
from yral_chat.services.erasing import NO_PERSONA


class Counted(NamedTuple):
    """What `conversation` should count, and how each side should be."""

    conversation: StoredConversation
    message_count: int
    sides: list[tuple[Side, Side]]  # (as it is, as it should be)

    @property
    def is_right(self) -> bool:
        return self.message_count == self.conversation.message_count and all(is_ == to_be for is_, to_be in self.sides)


def is_miscounted(uow: UnitOfWork, conversation_id: str) -> bool:
    """A look that writes nothing: it reads the whole conversation, half a millisecond for a thousand messages."""
    conversation = uow.conversations.find(conversation_id)
    return conversation is not None and not _count(uow, conversation).is_right


def count_anew(uow: UnitOfWork, conversation_id: str) -> bool:
    """Returns whether a number was wrong. Raises ConversationNotFound."""
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None:
        raise ConversationNotFound
    counted = _count(uow, conversation)
    wrong = counted.message_count - conversation.message_count
    if wrong:
        uow.conversations.update(conversation_id, message_count=counted.message_count)
        uow.counters.add(conversation.influencer_id or NO_PERSONA, all_messages=wrong)
    for is_, to_be in counted.sides:
        if is_ != to_be:
            uow.participants.save(conversation_id, to_be)
    return not counted.is_right


def _count(uow: UnitOfWork, conversation: StoredConversation) -> Counted:
    message_count = uow.places.count_listed(conversation.id, conversation.last_seq) - conversation.banner_count
    sides = uow.participants.list_sides(conversation.id).values()
    return Counted(conversation, message_count, [(side, _counted(uow, conversation, side)) for side in sides])


def _counted(uow: UnitOfWork, conversation: StoredConversation, side: Side) -> Side:
    person = side.principal_id
    if conversation.influencer_id is not None:
        other = conversation.influencer_id if person == conversation.user_id else conversation.user_id
    else:
        other = conversation.other_of(person)
    unread = 0 if side.is_hidden else uow.places.count_delivered(conversation.id, other, side.cleared_seq)
    cleared = uow.places.count_listed(conversation.id, side.cleared_seq) if side.cleared_seq else 0
    return msgspec.structs.replace(side, unread_count=unread, cleared_count=cleared)
