"""An account as one JSON document, written page by page: it takes the same memory whatever there is.

Each page is a unit of work of its own, and nothing is held between them, however slowly the client reads. Pages follow
keys that never change, so that nothing that is there from beginning to end is left out or comes twice; what is added
or deleted meanwhile may be in it or not.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import orjson

from yral_chat.core.clock import now, to_text
from yral_chat.core.objects import Message
from yral_chat.db.database import Database, UnitOfWork

# Messages have up to 4,000 characters: a page is 3 MB at most.
PAGE = 200


class Exporter:
    """One export. `write` gives its bytes."""

    def __init__(
        self, database: Database, user_id: str, *, absolute: Callable[[str], str], media_url: Callable[[str], str]
    ) -> None:
        self._database = database
        self._user_id = user_id
        self._absolute = absolute
        self._media_url = media_url

    async def write(self) -> AsyncGenerator[bytes, None]:
        """The document of contract section 14 in pieces."""
        head = orjson.dumps({"exported_at": to_text(now()), "user_id": self._user_id})
        yield head[:-1]
        for name, items in (
            (b"conversations", self._conversations()),
            (b"human_conversations", self._human_conversations()),
            (b"influencers", _each(self._influencers())),
            (b"media", _each(self._files())),
        ):
            yield b',"%b":[' % name
            is_first = True
            async for begins, piece in items:
                yield b"," + piece if begins and not is_first else piece
                is_first = False
            yield b"]"
        yield b"}"

    async def _conversations(self) -> "AsyncIterator[_Piece]":
        after = ""
        while page := await self._database.read(_list_ai, self._user_id, after):
            for conversation_id, after in page:  # noqa: B007 - the last one is where the next page begins
                async for piece in self._conversation(conversation_id, has_memories=True):
                    yield piece

    async def _human_conversations(self) -> "AsyncIterator[_Piece]":
        for conversation_id in await self._database.read(_list_human, self._user_id):
            async for piece in self._conversation(conversation_id, has_memories=False):
                yield piece

    async def _conversation(self, conversation_id: str, *, has_memories: bool) -> "AsyncIterator[_Piece]":
        """One conversation; nothing for one that is gone, or that this person has deleted."""
        found = await self._database.read(_open, conversation_id, self._user_id, has_memories)
        if found is None:
            return
        summary, seq = found
        if summary["influencer"] is not None:
            summary["influencer"]["avatar_url"] = self._absolute(summary["influencer"]["avatar_url"])
        yield True, orjson.dumps(summary)[:-1] + b',"messages":['
        is_first = True
        while page := await self._database.read(_list_messages, conversation_id, seq):
            seq = page[-1]["sequence"]
            joined = orjson.dumps(page)[1:-1]
            yield False, joined if is_first else b"," + joined
            is_first = False
        yield False, b"]}"

    async def _influencers(self) -> AsyncIterator[Any]:
        after = (0, "")
        while page := await self._database.read(_list_influencers, self._user_id, after):
            for influencer, after in page:  # noqa: B007 - as above
                if influencer is not None:
                    influencer["avatar_url"] = self._absolute(influencer["avatar_url"])
                    yield influencer

    async def _files(self) -> AsyncIterator[Any]:
        after = (0, "")
        while page := await self._database.read(
            lambda uow, after: uow.accounts.list_files(self._user_id, after, PAGE), after
        ):
            after = (page[-1].created_at, page[-1].key)
            for file in page:
                yield {
                    "storage_key": file.key,
                    "url": self._media_url(file.key),
                    "mime_type": file.mime_type,
                    "size": file.size,
                    "uploaded_at": to_text(file.created_at),
                }


# (whether an item of the array begins here, bytes)
_Piece = tuple[bool, bytes]


async def _each(items: AsyncIterator[Any]) -> AsyncIterator[_Piece]:
    async for item in items:
        yield True, orjson.dumps(item)


def _list_ai(uow: UnitOfWork, user_id: str, after: str) -> list[tuple[str, str]]:
    return uow.accounts.list_ai_conversations(user_id, after, PAGE)


def _list_human(uow: UnitOfWork, user_id: str) -> list[str]:
    return uow.accounts.list_human_conversations(user_id)


def _open(uow: UnitOfWork, conversation_id: str, user_id: str, has_memories: bool) -> tuple[dict[str, Any], int] | None:
    """The conversation without its messages, and the number after which they begin."""
    summary = uow.conversations.find_summary(conversation_id, user_id)
    side = uow.participants.find_side(conversation_id, user_id)
    if summary is None or side is None:
        return None
    document: dict[str, Any] = dict(summary)
    if has_memories:
        document["memories"] = [
            {
                "key": memory.key,
                "value": memory.value,
                "source_message_id": memory.source_message_id,
                "updated_at": to_text(memory.updated_at),
            }
            for memory in uow.memories.list_all(conversation_id)
        ]
    return document, side.cleared_seq


def _list_messages(uow: UnitOfWork, conversation_id: str, seq: int) -> list[Message]:
    """The next page, oldest first."""
    found, _ = uow.messages.list_beside(conversation_id, seq, cleared=0, limit=PAGE, is_older=False, is_complete=False)
    return found


def _list_influencers(uow: UnitOfWork, user_id: str, after: tuple[int, str]) -> list[tuple[Any, tuple[int, str]]]:
    """The next page of the person's influencers with their prompts, each with its place."""
    page = []
    for place in uow.accounts.list_owned(user_id, after, PAGE // 10):
        influencer = uow.influencers.find(place[1])
        page.append((None if influencer is None else influencer.to_wire(is_owner=True), place))
    return page
