"""People who write to people (contract section 13.1): open, send, read, delete. No persona has a part in it.

Each of the two has a side of their own in `participants`: what they have not read, and from where on they see it. A
side is hidden while there is nothing to see: opened by the other and still empty, or deleted until the other writes.
The side of somebody who had their account erased stays hidden, so that the conversation goes with the other.
"""

from collections.abc import Callable
from typing import Any

from yral_chat.clients.profiles import ProfileClient
from yral_chat.core.clock import MILLISECOND, SECOND, now
from yral_chat.core.config import Settings
from yral_chat.core.errors import ConversationNotFound, Invalid, NotYourConversation
from yral_chat.core.ids import new_id
from yral_chat.core.objects import ConversationUser, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation, last_message_columns, user_of
from yral_chat.db.repositories.messages import StoredMessage
from yral_chat.db.repositories.participants import Side
from yral_chat.realtime.hub import Hub
from yral_chat.services.erasing import NO_PERSONA, erase_conversation
from yral_chat.services.notifications import queue_push
from yral_chat.services.turns import Attached, NewMessage
from yral_chat.services.turns.accepting import find_repeated, use_files, user_row, with_stored_media


class PeopleService:
    """Messages between people. Raises what contract sections 8.2 and 8.3 name for a message without a reply."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        hub: Hub,
        profiles: ProfileClient,
        *,
        list_handed_over: Callable[[], frozenset[str]],
        wake_jobs: Callable[[], None],
    ) -> None:
        """`list_handed_over` gives messages whose answer was received and whose rows may not say so yet."""
        self._settings = settings
        self._database = database
        self._hub = hub
        self._profiles = profiles
        self._list_handed_over = list_handed_over
        self._wake_jobs = wake_jobs
        self._window = round(settings.duplicate_window_seconds * SECOND)

    async def send(self, user_id: str, conversation_id: str, message: NewMessage) -> Attached:
        """Stores the message and tells the other, or finds the one that this repeats.

        Raises ConversationNotFound for a conversation with a persona.
        """
        profile = await self._profiles.get(user_id)
        sender = user_of(user_id)
        sender["username"], sender["profile_picture_url"] = profile.username, profile.profile_picture_url
        handed_over = self._list_handed_over()

        def unit(uow: UnitOfWork) -> Attached:
            conversation, sides = _open(uow, conversation_id, user_id)
            earlier = self._find_earlier(uow, conversation_id, sides[user_id], message, handed_over)
            if earlier is not None:
                return Attached(earlier.message, None, None, is_replay=True)
            stored = _store(uow, conversation, user_id, with_stored_media(uow, user_id, message))
            if conversation.pair is not None:
                self._tell(uow, sides[conversation.other_of(user_id)], stored, sender)
            return Attached(stored, None, None, is_replay=False)

        return await self._database.write(unit)

    def _find_earlier(
        self, uow: UnitOfWork, conversation_id: str, side: Side, message: NewMessage, handed_over: frozenset[str]
    ) -> StoredMessage | None:
        found = find_repeated(uow, conversation_id, side.principal_id, message, self._window)
        if found is None or message.client_message_id is not None:
            return found
        is_received = found.is_handed_over or found.message["id"] in handed_over
        return None if is_received or found.message["sequence"] <= side.cleared_seq else found

    def _tell(self, uow: UnitOfWork, recipient: Side, message: Message, sender: ConversationUser) -> None:
        """The conversation appears in the recipient's inbox, with its event and push."""
        user_id, conversation_id = recipient.principal_id, message["conversation_id"]
        if recipient.is_hidden:
            show(uow, conversation_id, user_id)
        data: dict[str, Any] = {
            "conversation_id": conversation_id,
            "message": message,
            "influencer_id": None,
            "influencer": None,
            "user": sender,
            "unread_count": recipient.unread_count + 1,
        }
        seq = uow.events.add(user_id, conversation_id, "new_message", data)
        queue_push(uow, self._settings, user_id, message)
        uow.after_commit(lambda: self._hub.publish(user_id, "new_message", data, seq=seq))
        uow.after_commit(self._wake_jobs)


def _open(uow: UnitOfWork, conversation_id: str, user_id: str) -> tuple[StoredConversation, dict[str, Side]]:
    """Locked, with both sides. A conversation with a persona is none here, whosever it is."""
    conversation = uow.conversations.find_locked(conversation_id)
    if conversation is None or conversation.influencer_id is not None:
        raise ConversationNotFound
    sides = uow.participants.list_sides(conversation_id)
    if user_id not in sides:
        raise NotYourConversation
    if sides[user_id].is_hidden:
        raise ConversationNotFound
    return conversation, sides


def _store(uow: UnitOfWork, conversation: StoredConversation, sender_id: str, message: NewMessage) -> Message:
    time = max(now(), conversation.last_message_time + MILLISECOND)
    (stored,) = uow.messages.add(user_row(conversation, sender_id, message, time))
    use_files(uow, message, stored.message)
    updated_at = max(conversation.updated_at, time)
    uow.conversations.update(
        conversation.id,
        last_seq=stored.message["sequence"],
        last_message_time=time,
        message_count=conversation.message_count + 1,
        updated_at=updated_at,
        **last_message_columns(stored.message, time),
    )
    reader = "" if conversation.pair is None else conversation.other_of(sender_id)
    uow.conversations.touch(conversation.id, updated_at, reader=reader, unread=1)
    uow.counters.add(NO_PERSONA, all_messages=1)
    return stored.message


def open_pair(uow: UnitOfWork, user_id: str, participant_id: str) -> str:
    """The conversation of these two, made when there is none; now in the caller's inbox. Raises Invalid."""
    place: list[str | int] = ["body", "participant_id"]
    if participant_id == user_id:
        raise Invalid.field(place, "Nobody talks to themselves", "own_id")
    if uow.influencers.find(participant_id) is not None:
        raise Invalid.field(place, "This is a persona; open a conversation with it instead", "not_a_person")
    # None, or both delete it in this very moment.
    while (found := uow.conversations.find_id_of_people(user_id, participant_id)) is None or (
        uow.conversations.find_locked(found) is None
    ):
        conversation_id = new_id()
        if uow.conversations.add_human(conversation_id, user_id, participant_id, now()):
            uow.counters.add(NO_PERSONA, conversations=1)
            return conversation_id
    side = uow.participants.find_side(found, user_id)
    if side is not None and side.is_hidden:
        show(uow, found, user_id)
    return found


def show(uow: UnitOfWork, conversation_id: str, user_id: str) -> None:
    """A hidden conversation appears in the person's inbox."""
    uow.participants.show(conversation_id, user_id)
    uow.conversations.count_for(user_id, human=1)


def mark_read(uow: UnitOfWork, conversation: StoredConversation, reader_id: str, time: int) -> dict[str, int]:
    """The reader has read everything that the other has said. Returns the unread counts of those who see it."""
    sides, other_id = uow.participants.list_sides(conversation.id), conversation.other_of(reader_id)
    side = sides[reader_id]
    uow.messages.mark_read_from(conversation.id, other_id, after_seq=side.read_seq)
    uow.participants.mark_read(conversation.id, side, other_id, seq=conversation.last_seq, time=time)
    counts = {reader_id: 0}
    if not sides[other_id].is_hidden:
        counts[other_id] = sides[other_id].unread_count
    return counts


def delete(uow: UnitOfWork, conversation: StoredConversation, user_id: str) -> int:
    """It goes for this person; with the second one it goes for good. Returns how many messages the person had."""
    sides = uow.participants.list_sides(conversation.id)
    uow.conversations.count_for(user_id, human=-1)
    if sides[conversation.other_of(user_id)].is_hidden:
        erase_conversation(uow, conversation)
    else:
        count = conversation.message_count
        uow.participants.clear(conversation.id, user_id, seq=conversation.last_seq, count=count)
        uow.events.delete_of_side(conversation.id, user_id)
    return conversation.message_count - sides[user_id].cleared_count
