"""ChatService: open a conversation, list, read history, mark read, delete."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

from yral_chat.clients.profiles import ProfileClient
from yral_chat.core.clock import MILLISECOND, now, to_text
from yral_chat.core.errors import (
    ConversationNotFound,
    Forbidden,
    InfluencerNotFound,
    Invalid,
    MessageNotFound,
    PrincipalNotOwned,
)
from yral_chat.core.ids import new_id
from yral_chat.core.objects import Conversation, ConversationSummary, Json, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.conversations import InboxType, StoredConversation, last_message_columns, user_of
from yral_chat.db.repositories.participants import Side
from yral_chat.realtime.hub import Hub
from yral_chat.services import people
from yral_chat.services.erasing import erase_conversation
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.prompts import names_user, resolve_names
from yral_chat.services.turns import TurnEngine
from yral_chat.services.turns.accepting import open_for_participant, open_for_reader

InboxFilter = Literal["ai", "human", "all"]

# How those see a conversation who have deleted nothing of it.
WHOLE = Side("", unread_count=0, cleared_seq=0, cleared_count=0, read_seq=0, is_hidden=False)

_TYPES: dict[InboxFilter, InboxType | None] = {"ai": "ai_chat", "human": "human_chat", "all": None}


class InboxPage(TypedDict):
    """Of either list; `recent_messages` only where the caller asked for them."""

    conversations: list[ConversationSummary]
    total: int


class UnifiedPage(InboxPage):
    """Of the v3 list; `unread_total` messages of all conversations, whatever the page shows."""

    unread_total: int


class HistoryPage(TypedDict):
    messages: list[Message]
    total: int
    has_more: bool


class ReadMark(TypedDict):
    id: str
    unread_count: int
    last_read_at: str


class ChatService:
    """See the module. Raises ConversationNotFound, NotYourConversation and what the methods name."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        influencers: InfluencerService,
        engine: TurnEngine,
        profiles: ProfileClient,
        *,
        wake_jobs: Callable[[], None],
    ) -> None:
        self._wake_jobs = wake_jobs
        self._database = database
        self._profiles = profiles
        self._hub = hub
        self._influencers = influencers
        self._engine = engine

    async def open(self, user_id: str, influencer_id: str) -> Conversation:
        """The user's conversation with the influencer, made when there is none. Raises InfluencerNotFound."""
        user_name = await self._name_for_greeting(user_id, influencer_id)
        return await self._present(await self._database.write(_open, user_id, influencer_id, user_name))

    async def open_with(self, user_id: str, participant_id: str) -> Conversation:
        """The conversation of two people, made when there is none. Raises Invalid for a persona, and for oneself."""
        return await self._present(await self._database.write(_open_with, user_id, participant_id))

    async def get(self, reader_id: str, conversation_id: str) -> Conversation:
        """For the user, for either of two people, or for the owner of the bot."""
        return await self._present(await self._database.read(_get, reader_id, conversation_id))

    async def list_own(self, user_id: str, *, influencer_id: str | None, limit: int, offset: int) -> InboxPage:
        """The v1 list: the user's AI conversations with their recent messages."""
        page = await self._database.read(_list_own, user_id, influencer_id, limit, offset)
        return await self._present_page(page)

    async def list_inbox(
        self,
        user_id: str,
        *,
        principal: str | None,
        type_: InboxFilter | None,
        influencer_id: str | None,
        limit: int,
        offset: int,
    ) -> InboxPage:
        """The v2 list: the user's own inbox, or that of a bot the user owns.

        Raises PrincipalNotOwned for anybody else's, Invalid for human chats of a bot.
        """
        page = await self._database.read(_list_inbox, user_id, principal, type_, influencer_id, limit, offset)
        return await self._present_page(page)

    async def list_unified(
        self, user_id: str, *, type_: InboxFilter, is_unread: bool, limit: int, offset: int
    ) -> UnifiedPage:
        """The v3 list: the user's own inbox; with `is_unread` what has something unread in it."""
        page = await self._database.read(_list_unified, user_id, type_, is_unread, limit, offset)
        await self._present_page(page)
        return page

    async def list_messages(
        self,
        reader_id: str,
        conversation_id: str,
        *,
        limit: int,
        offset: int,
        is_ascending: bool,
        before: str | None,
        after: str | None,
        is_complete: bool,
    ) -> HistoryPage:
        """A page of the history by offset, or beside a message. Raises MessageNotFound for an unknown anchor."""
        if before is not None or after is not None:
            return await self._database.read(
                _list_beside, reader_id, conversation_id, limit, before, after, is_ascending, is_complete
            )
        return await self._database.read(
            _list_messages, reader_id, conversation_id, limit, offset, is_ascending, is_complete
        )

    async def mark_read(self, reader_id: str, conversation_id: str) -> ReadMark:
        """Everything the other side has said is read."""

        def unit(uow: UnitOfWork) -> ReadMark:
            mark, counts = _mark_read(uow, reader_id, conversation_id)
            # In one order everywhere, so that two units cannot wait for each other.
            for user_id, unread in sorted(counts.items()):
                data = {
                    "conversation_id": conversation_id,
                    "unread_count": unread,
                    "read_at": mark["last_read_at"],
                    "reader_id": reader_id,
                }
                self._tell(uow, user_id, conversation_id, "conversation_read", data)
            return mark

        return await self._database.write(unit)

    async def delete(self, user_id: str, conversation_id: str) -> int:
        """The conversation goes with everything in it; returns how many messages it had.

        Of two people the other one keeps it.
        """

        def unit(uow: UnitOfWork) -> int:
            count = _delete(uow, user_id, conversation_id)
            uow.after_commit(lambda: self._engine.stop_conversation(conversation_id))
            uow.after_commit(self._wake_jobs)
            data = {"conversation_id": conversation_id}
            self._tell(uow, user_id, conversation_id, "conversation_deleted", data)
            return count

        return await self._database.write(unit)

    def _tell(self, uow: UnitOfWork, user_id: str, conversation_id: str, event: str, data: Json) -> None:
        """A durable event for the user's sockets."""
        seq = uow.events.add(user_id, conversation_id, event, data)
        uow.after_commit(lambda: self._hub.publish(user_id, event, data, seq=seq))

    async def _name_for_greeting(self, user_id: str, influencer_id: str) -> str:
        """The user's name where the persona greets by name; "" where it does not, or nobody knows it."""
        influencer = await self._influencers.find(influencer_id)
        if influencer is None or not self._profiles.is_enabled or not names_user(influencer.initial_greeting):
            return ""
        return (await self._profiles.get(user_id)).username or ""

    async def _present(self, conversation: Conversation) -> Conversation:
        _present_influencer(conversation, self._influencers.absolute, is_list=False)
        await self._name_users([conversation])
        return conversation

    async def _present_page(self, page: InboxPage) -> InboxPage:
        for conversation in page["conversations"]:
            _present_influencer(conversation, self._influencers.absolute, is_list=True)
        await self._name_users(page["conversations"])
        return page

    async def _name_users(self, conversations: Sequence[ConversationSummary]) -> None:
        """Fills in names and pictures where the view shows the other person."""
        users = [conversation["user"] for conversation in conversations if conversation["user"] is not None]
        if not users or not self._profiles.is_enabled:
            return
        profiles = await asyncio.gather(*(self._profiles.get(user["principal_id"]) for user in users))
        for user, profile in zip(users, profiles, strict=True):
            user["username"] = profile.username
            user["profile_picture_url"] = profile.profile_picture_url


def _present_influencer(conversation: ConversationSummary, absolute: Callable[[str], str], *, is_list: bool) -> None:
    influencer = conversation["influencer"]
    if influencer is None:
        return
    influencer["avatar_url"] = absolute(influencer["avatar_url"])
    if is_list and conversation["message_count"] > 1:
        influencer["suggested_messages"] = None


def _open(uow: UnitOfWork, user_id: str, influencer_id: str, user_name: str = "") -> Conversation:
    # None, or it is deleted in this very moment.
    while (found := uow.conversations.find_id(user_id, influencer_id)) is None or (
        uow.conversations.find_locked(found) is None
    ):
        made = _add(uow, user_id, influencer_id, user_name)
        if made is not None:
            return _view(uow, made, user_id)
    return _view(uow, found, user_id)


def _add(uow: UnitOfWork, user_id: str, influencer_id: str, user_name: str) -> str | None:
    """The id of a new conversation; None when somebody else's identical request was faster, and has committed."""
    influencer = uow.influencers.find(influencer_id)
    if influencer is None or influencer.status == "discontinued":
        raise InfluencerNotFound
    if user_id == influencer_id:
        raise Forbidden("Nobody talks to themselves")  # the two sides of a conversation are told apart by their ids
    conversation_id, time = new_id(), now()
    if not uow.conversations.add_ai(conversation_id, user_id, influencer_id, time):
        return None
    greeting = resolve_names(influencer.initial_greeting, influencer.display_name, user_name)
    if greeting:
        _greet(uow, conversation_id, user_id, influencer_id, greeting, time)
    uow.counters.add(influencer_id, conversations=1, all_messages=1 if greeting else 0)
    return conversation_id


def _greet(uow: UnitOfWork, conversation_id: str, user_id: str, influencer_id: str, greeting: str, time: int) -> None:
    (stored,) = uow.messages.add(
        {
            "id": new_id(),
            "conversation_id": conversation_id,
            "seq": 1,
            "role": "assistant",
            "origin": "greeting",
            "message_type": "text",
            "content": greeting,
            "status": "delivered",
            "is_listed": True,
            "sender_id": influencer_id,
            "client_message_id": None,
            "body_hash": None,
            "reply_to": None,
            "attempt": 1,
            "last_attempt": 1,
            "is_handed_over": False,
            "created_at": time,
            "completed_at": time,
        }
    )
    uow.conversations.update(
        conversation_id,
        last_seq=1,
        last_message_time=time + MILLISECOND,
        message_count=1,
        **last_message_columns(stored.message, time),
    )
    uow.conversations.touch(conversation_id, time, reader=user_id, unread=1)


def _open_with(uow: UnitOfWork, user_id: str, participant_id: str) -> Conversation:
    return _view(uow, people.open_pair(uow, user_id, participant_id), user_id)


def _view(uow: UnitOfWork, conversation_id: str, reader_id: str) -> Conversation:
    """A reader's view with recent messages: a participant's own, or the bot owner's."""
    stored = open_for_reader(uow, conversation_id, reader_id)
    principal = _side(stored, reader_id)
    summary = uow.conversations.find_summary(conversation_id, principal)
    if summary is None:
        raise ConversationNotFound
    if principal == stored.influencer_id:
        summary["user"] = user_of(stored.user_id)
    cleared = _cleared(uow, stored, reader_id).cleared_seq
    return {**summary, "recent_messages": uow.messages.list_recent(conversation_id, cleared=cleared)}


def _side(conversation: StoredConversation, reader_id: str) -> str:
    """The principal whose view this reader has: one who is both user and owner has the user's."""
    if reader_id == conversation.user_id or conversation.influencer_id is None:
        return reader_id
    return conversation.influencer_id


def _cleared(uow: UnitOfWork, conversation: StoredConversation, reader_id: str) -> Side:
    """What the reader has deleted of it; with a persona everything or nothing."""
    side = uow.participants.find_side(conversation.id, reader_id) if conversation.influencer_id is None else None
    return side or WHOLE


def _get(uow: UnitOfWork, reader_id: str, conversation_id: str) -> Conversation:
    return _view(uow, conversation_id, reader_id)


def _list_own(uow: UnitOfWork, user_id: str, influencer_id: str | None, limit: int, offset: int) -> InboxPage:
    page = _list(uow, user_id, "ai", influencer_id, limit, offset, is_own=True)
    recent = uow.messages.list_recent_of([conversation["id"] for conversation in page["conversations"]])
    page["conversations"] = [
        {**conversation, "recent_messages": recent[conversation["id"]]}  # type: ignore[typeddict-unknown-key]
        for conversation in page["conversations"]
    ]
    return page


def _list_inbox(
    uow: UnitOfWork,
    user_id: str,
    principal: str | None,
    type_: InboxFilter | None,
    influencer_id: str | None,
    limit: int,
    offset: int,
) -> InboxPage:
    if principal is None or principal == user_id:
        type_ = type_ or ("ai" if principal is None else "all")
        return _list(uow, user_id, type_, influencer_id, limit, offset, is_own=True)
    if not uow.influencers.is_owned_by(principal, user_id):
        raise PrincipalNotOwned
    if type_ in ("human", "all"):
        raise Invalid.field(["query", "type"], "A bot has AI conversations only")
    return _list(uow, principal, "ai", influencer_id, limit, offset, is_own=False)


def _list(
    uow: UnitOfWork,
    principal: str,
    type_: InboxFilter,
    influencer_id: str | None,
    limit: int,
    offset: int,
    *,
    is_own: bool,
) -> InboxPage:
    if not is_own and influencer_id not in (None, principal):
        return {"conversations": [], "total": 0}  # a bot talks as itself only
    total = _count(uow, principal, type_, influencer_id, is_own=is_own)
    found = uow.conversations.list_inbox(
        principal,
        is_bot=not is_own,
        type_=_TYPES[type_],
        influencer_id=influencer_id if is_own else None,
        limit=limit,
        offset=offset,
    )
    if not is_own:
        for conversation in found:
            conversation["user"] = user_of(conversation["user_id"])
    return {"conversations": found, "total": total}


def _count(uow: UnitOfWork, principal: str, type_: InboxFilter, influencer_id: str | None, *, is_own: bool) -> int:
    """From maintained counters; with a filter on the influencer there is one conversation or none."""
    if not is_own:
        return uow.counters.count_conversations(principal)
    if influencer_id is not None:
        return int(type_ != "human" and uow.conversations.find_id(principal, influencer_id) is not None)
    ai, human = uow.conversations.count(principal)
    return {"ai": ai, "human": human, "all": ai + human}[type_]


def _list_unified(
    uow: UnitOfWork, user_id: str, type_: InboxFilter, is_unread: bool, limit: int, offset: int
) -> UnifiedPage:
    unread = uow.participants.count_unread(user_id)
    if is_unread:
        ai, human = unread.ai_conversations, unread.human_conversations
    else:
        ai, human = uow.conversations.count(user_id)
    found = uow.conversations.list_inbox(
        user_id,
        is_bot=False,
        type_=_TYPES[type_],
        influencer_id=None,
        limit=limit,
        offset=offset,
        is_unread=is_unread,
    )
    total = {"ai": ai, "human": human, "all": ai + human}[type_]
    return {"conversations": found, "total": total, "unread_total": unread.messages}


def _total(uow: UnitOfWork, conversation: StoredConversation, side: Side, *, is_complete: bool) -> int:
    unfinished = uow.messages.count_unfinished(conversation.id) if is_complete else 0
    return conversation.message_count - side.cleared_count + conversation.banner_count + unfinished


def _list_messages(
    uow: UnitOfWork,
    reader_id: str,
    conversation_id: str,
    limit: int,
    offset: int,
    is_ascending: bool,
    is_complete: bool,
) -> HistoryPage:
    conversation = open_for_reader(uow, conversation_id, reader_id)
    side = _cleared(uow, conversation, reader_id)
    total = _total(uow, conversation, side, is_complete=is_complete)
    found = uow.messages.list_page(
        conversation_id,
        cleared=side.cleared_seq,
        limit=limit,
        offset=offset,
        is_ascending=is_ascending,
        is_complete=is_complete,
    )
    return {"messages": found, "total": total, "has_more": offset + len(found) < total}


def _list_beside(
    uow: UnitOfWork,
    reader_id: str,
    conversation_id: str,
    limit: int,
    before: str | None,
    after: str | None,
    is_ascending: bool,
    is_complete: bool,
) -> HistoryPage:
    conversation = open_for_reader(uow, conversation_id, reader_id)
    side = _cleared(uow, conversation, reader_id)
    seq = uow.messages.find_seq(conversation_id, before or after or "")
    if seq is None or seq <= side.cleared_seq:
        raise MessageNotFound
    is_older = before is not None
    found, has_more = uow.messages.list_beside(
        conversation_id, seq, cleared=side.cleared_seq, limit=limit, is_older=is_older, is_complete=is_complete
    )
    if is_older == is_ascending:  # nearest first is newest first on the older side
        found.reverse()
    return {
        "messages": found,
        "total": _total(uow, conversation, side, is_complete=is_complete),
        "has_more": has_more,
    }


def _mark_read(uow: UnitOfWork, reader_id: str, conversation_id: str) -> tuple[ReadMark, dict[str, int]]:
    """What the reader is answered, and the unread counts of everybody who is told of it."""
    conversation = open_for_reader(uow, conversation_id, reader_id, is_locked=True)
    time = now()
    if conversation.influencer_id is None:
        counts = people.mark_read(uow, conversation, reader_id, time)
    else:
        counts = {reader_id: _mark_persona_read(uow, conversation, _side(conversation, reader_id), time)}
    mark: ReadMark = {"id": conversation_id, "unread_count": counts[reader_id], "last_read_at": to_text(time)}
    return mark, counts


def _mark_persona_read(uow: UnitOfWork, conversation: StoredConversation, principal: str, time: int) -> int:
    """Of a conversation with a persona, for one of its sides; returns what is unread after that."""
    side: Literal["assistant", "user"] = "assistant" if principal == conversation.user_id else "user"
    uow.messages.mark_read(conversation.id, side)
    uow.conversations.mark_read(conversation.id, principal, side, time)
    return uow.conversations.count_unread(conversation.id, principal)


def _delete(uow: UnitOfWork, user_id: str, conversation_id: str) -> int:
    conversation = open_for_participant(uow, conversation_id, user_id, is_locked=True)
    if conversation.influencer_id is None:
        return people.delete(uow, conversation, user_id)
    erase_conversation(uow, conversation)
    uow.conversations.count_for(user_id, ai=-1)
    return conversation.message_count
