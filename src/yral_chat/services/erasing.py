"""What goes for good."""

import hashlib

from yral_chat.db.database import UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation
from yral_chat.services.media.service import remove_files

# Under which name the service's totals count what belongs to no persona.
NO_PERSONA = ""


def erase_conversation(uow: UnitOfWork, conversation: StoredConversation) -> None:
    """The conversation goes with its messages, its events, and the files that nothing else uses.

    `conversation` is locked. How many conversations people have is the caller's matter (`count_for`), and so is waking
    the jobs that remove the files.
    """
    files = uow.media.list_keys_of_conversation(conversation.id)
    uow.events.delete_of_conversation(conversation.id)
    uow.conversations.delete(conversation.id)
    remove_files(uow, uow.media.delete_unused(files))
    persona = conversation.influencer_id or NO_PERSONA
    uow.counters.add(persona, conversations=-1, all_messages=-conversation.message_count)


def name_of_deleted(influencer_id: str) -> str:
    """As long as the name of a persona may be, none of its owner's words, and unique."""
    return f"deleted{hashlib.sha256(influencer_id.encode()).hexdigest()[:8]}"
