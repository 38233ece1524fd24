"""Messages and their history."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec
import orjson
from sqlalchemy import ColumnElement, bindparam, func, insert, literal_column, or_, select, update

from yral_chat.core.clock import to_text
from yral_chat.core.objects import FAILURES, ErrorCode, Message, MessageStatus, Role
from yral_chat.db.execution import Executor, PageStatement, Parameters, Row, Statement, UpdateById
from yral_chat.db.tables import conversations, messages

# What the wire shows of a row, in the order in which `to_message` reads it.
_SHOWN = (
    messages.c.id,
    messages.c.conversation_id,
    messages.c.seq,
    messages.c.role,
    messages.c.origin,
    messages.c.message_type,
    messages.c.content,
    messages.c.status,
    messages.c.sender_id,
    messages.c.client_message_id,
    messages.c.reply_to,
    messages.c.attempt,
    messages.c.error_code,
    messages.c.token_count,
    messages.c.images,
    messages.c.audio,
    messages.c.audio_seconds,
    messages.c.transcription,
    messages.c.created_at,
    messages.c.completed_at,
)
_HIDDEN = (
    messages.c.body_hash,
    messages.c.is_handed_over,
    messages.c.last_attempt,
    messages.c.provider,
    messages.c.model,
    messages.c.is_listed,
)

# Literals, so that SQLite recognises the partial index ix_messages_unread.
_DELIVERED: ColumnElement[bool] = messages.c.status == literal_column("'delivered'")

RECENT = 10

# The address for a storage key; addresses of other hosts stay as they are.
MediaUrl = Callable[[str], str]


class StoredMessage(msgspec.Struct, frozen=True):
    """A message with what the service keeps to itself about it. Times in microseconds."""

    message: Message
    created_at: int
    completed_at: int | None
    body_hash: str | None
    is_handed_over: bool
    last_attempt: int
    provider: str | None
    model: str | None
    is_listed: bool


class Said(NamedTuple):
    """What a prompt needs of a message."""

    role: Role
    content: str
    images: tuple[str, ...] = ()  # references
    is_unheard: bool = False  # a recording that nobody has transcribed


def to_message(row: Row, media_url: MediaUrl) -> Message:
    """The wire's message out of a row that begins with `_SHOWN`."""
    (
        message_id, conversation_id, seq, role, origin, message_type, content, status, sender_id,
        client_message_id, reply_to, attempt, error_code, token_count, images, audio, audio_seconds, transcription,
        created_at, completed_at,
    ) = row[:20]  # fmt: skip
    return {
        "id": message_id,
        "conversation_id": conversation_id,
        "role": role,
        "content": content,
        "message_type": message_type,
        "media_urls": [media_url(reference) for reference in orjson.loads(images)] if images else [],
        "audio_url": media_url(audio) if audio else None,
        "audio_duration_seconds": audio_seconds,
        "transcription": transcription,
        "token_count": token_count,
        "created_at": to_text(created_at),
        "completed_at": None if completed_at is None else to_text(completed_at),
        "status": status,
        "is_read": status == "read",
        "sender_id": sender_id,
        "client_message_id": client_message_id,
        "reply_to": reply_to,
        "origin": origin,
        "attempt": attempt,
        "sequence": seq,
        "error": FAILURES[cast(ErrorCode, error_code)] if error_code else None,
    }


def _to_stored(row: Row, media_url: MediaUrl) -> StoredMessage:
    created_at, completed_at, body_hash, is_handed_over, last_attempt, provider, model, is_listed = row[18:]
    return StoredMessage(
        message=to_message(row, media_url),
        created_at=created_at,
        completed_at=completed_at,
        body_hash=body_hash,
        is_handed_over=bool(is_handed_over),
        last_attempt=last_attempt,
        provider=provider,
        model=model,
        is_listed=bool(is_listed),
    )


def _from_values(values: dict[str, Any], media_url: MediaUrl) -> StoredMessage:
    return StoredMessage(
        message=to_message(tuple(values.get(column.name) for column in _SHOWN), media_url),
        created_at=values["created_at"],
        completed_at=values["completed_at"],
        body_hash=values["body_hash"],
        is_handed_over=values["is_handed_over"],
        last_attempt=values["last_attempt"],
        provider=None,
        model=None,
        is_listed=values["is_listed"],
    )


_STORED = select(*_SHOWN, *_HIDDEN)
_IN_CONVERSATION = messages.c.conversation_id == bindparam("conversation")
_BY_ID = Statement(_STORED.where(_IN_CONVERSATION, messages.c.id == bindparam("id")))
_BY_KEY = Statement(
    _STORED.where(
        _IN_CONVERSATION,
        messages.c.sender_id == bindparam("sender"),
        messages.c.client_message_id == bindparam("key"),
    )
)
_REPLY_TO = Statement(_STORED.where(messages.c.reply_to == bindparam("user_message")))
# Newest first. A turn adds two rows, so the sender's newest is among the first few.
_NEWEST_BY = Statement(
    _STORED.where(_IN_CONVERSATION, messages.c.sender_id == bindparam("sender"))
    .order_by(messages.c.seq.desc())
    .limit(1)
)
_NEWEST_MODEL_REPLY = Statement(
    _STORED.where(_IN_CONVERSATION, messages.c.origin == "model").order_by(messages.c.seq.desc()).limit(1)
)
_HAS_USER_MESSAGE_AFTER = Statement(
    select(messages.c.id).where(_IN_CONVERSATION, messages.c.seq > bindparam("seq"), messages.c.role == "user").limit(1)
)
_ADDED = (
    *(column.name for column in _SHOWN if column.name not in ("error_code", "token_count", "transcription")),
    "body_hash",
    "is_handed_over",
    "last_attempt",
    "is_listed",
)
_ADD = Statement(insert(messages), columns=_ADDED)
_SEQ_OF = Statement(select(messages.c.seq).where(_IN_CONVERSATION, messages.c.id == bindparam("id")))
_LISTED = messages.c.is_listed.is_(True)
# What a side of a human chat has deleted lies at or below `cleared`; in AI chats that is 0.
_LEFT = messages.c.seq > bindparam("cleared")
_LISTED_PAGE = select(*_SHOWN).where(_IN_CONVERSATION, _LISTED, _LEFT)
_FULL_PAGE = select(*_SHOWN).where(_IN_CONVERSATION, _LEFT)
_NEWEST_FIRST, _OLDEST_FIRST = messages.c.seq.desc(), messages.c.seq.asc()
# By (with unfinished rows, oldest first), and by (with unfinished rows, on the older side).
_PAGES = {
    (is_complete, is_ascending): PageStatement(
        rows.order_by(_OLDEST_FIRST if is_ascending else _NEWEST_FIRST)
        .limit(bindparam("limit"))
        .offset(bindparam("offset"))
    )
    for is_complete, rows in ((False, _LISTED_PAGE), (True, _FULL_PAGE))
    for is_ascending in (False, True)
}
_BESIDE = {
    (is_complete, is_older): PageStatement(
        rows.where(messages.c.seq < bindparam("seq") if is_older else messages.c.seq > bindparam("seq"))
        .order_by(_NEWEST_FIRST if is_older else _OLDEST_FIRST)
        .limit(bindparam("limit"))
    )
    for is_complete, rows in ((False, _LISTED_PAGE), (True, _FULL_PAGE))
    for is_older in (False, True)
}
_COUNT_UNFINISHED = Statement(select(func.count()).where(_IN_CONVERSATION, messages.c.is_listed.is_(False)))
_RECENT = PageStatement(_LISTED_PAGE.order_by(messages.c.seq.desc()).limit(RECENT))
_inner = messages.alias("inner")
_TENTH_NEWEST = (
    select(_inner.c.seq)
    .where(_inner.c.conversation_id == conversations.c.id, _inner.c.is_listed.is_(True))
    .order_by(_inner.c.seq.desc())
    .limit(1)
    .offset(RECENT - 1)
    .correlate(conversations)
    .scalar_subquery()
)
_RECENT_OF_MANY = (
    select(*_SHOWN)
    .select_from(conversations.join(messages, messages.c.conversation_id == conversations.c.id))
    .where(
        conversations.c.id.in_(bindparam("conversations", expanding=True)),
        _LISTED,
        messages.c.seq >= func.coalesce(_TENTH_NEWEST, 0),
    )
)


def _has_status(*statuses: MessageStatus) -> ColumnElement[bool]:
    # Not IN: its list is expanded at each execution, and these statements have a fixed text.
    return or_(*(messages.c.status == status for status in statuses))


_FOR_SAID = (messages.c.role, messages.c.content, messages.c.images, messages.c.audio, messages.c.transcription)
_SAID = Statement(select(*_FOR_SAID, messages.c.seq).where(messages.c.id == bindparam("id")))
# What may be shown to a model: user messages and finished replies, help texts excepted (contract section 5.2).
_SHOWN_TO_MODELS = (
    _IN_CONVERSATION,
    _LISTED,
    messages.c.origin != "safety",
    (messages.c.role == "user") | ((messages.c.role == "assistant") & _has_status("delivered", "read")),
)
_FOR_PROMPT = PageStatement(
    select(*_FOR_SAID)
    .where(*_SHOWN_TO_MODELS, messages.c.seq < bindparam("before"))
    .order_by(messages.c.seq.desc())
    .limit(bindparam("limit"))
)
_WINDOW_START = Statement(
    select(messages.c.seq).where(*_SHOWN_TO_MODELS).order_by(messages.c.seq.desc()).limit(1).offset(bindparam("newer"))
)
_BETWEEN = PageStatement(
    select(*_FOR_SAID, messages.c.seq)
    .where(*_SHOWN_TO_MODELS, messages.c.seq > bindparam("after"), messages.c.seq < bindparam("before"))
    .order_by(messages.c.seq.desc())
    .limit(bindparam("limit"))
)
_LAST_FINAL = Statement(
    _STORED.where(
        _IN_CONVERSATION,
        _LISTED,
        messages.c.role != "system",
        _has_status("delivered", "read", "cancelled"),
    )
    .order_by(messages.c.seq.desc())
    .limit(1)
)
_UPDATE = UpdateById(messages)
_MARK_READ = Statement(
    update(messages).where(_IN_CONVERSATION, messages.c.role == bindparam("side"), _DELIVERED).values(status="read")
)
_MARK_READ_FROM = Statement(
    update(messages)
    .where(
        _IN_CONVERSATION, messages.c.seq > bindparam("after"), messages.c.sender_id == bindparam("sender"), _DELIVERED
    )
    .values(status="read")
)
_SAVE_PARTIAL = Statement(
    update(messages)
    .where(messages.c.id == bindparam("message"), _has_status("pending", "streaming"))
    .values(status="streaming", content=bindparam("text"))
)
_HAND_OVER = Statement(update(messages).where(messages.c.id == bindparam("message")).values(is_handed_over=True))


class MessageRepository:
    """Rows of `messages`. Lists come as wire objects; single rows as `StoredMessage`."""

    def __init__(self, executor: Executor, media_url: MediaUrl) -> None:
        self._executor = executor
        self._media_url = media_url

    def add(self, *rows: dict[str, Any]) -> list[StoredMessage]:
        """Adds rows and returns them as they are stored; media columns that are left out are null."""
        complete = [{"images": None, "audio": None, "audio_seconds": None, **row} for row in rows]
        self._executor.run_many(_ADD, complete)
        return [_from_values(row, self._media_url) for row in complete]

    def find(self, conversation_id: str, message_id: str) -> StoredMessage | None:
        return self._one(_BY_ID, conversation=conversation_id, id=message_id)

    def find_by_key(self, conversation_id: str, sender_id: str, key: str) -> StoredMessage | None:
        return self._one(_BY_KEY, conversation=conversation_id, sender=sender_id, key=key)

    def find_newest_by(self, conversation_id: str, sender_id: str) -> StoredMessage | None:
        return self._one(_NEWEST_BY, conversation=conversation_id, sender=sender_id)

    def find_newest_model_reply(self, conversation_id: str) -> StoredMessage | None:
        return self._one(_NEWEST_MODEL_REPLY, conversation=conversation_id)

    def find_reply_to(self, user_message_id: str) -> StoredMessage | None:
        return self._one(_REPLY_TO, user_message=user_message_id)

    def find_last_final(self, conversation_id: str) -> StoredMessage | None:
        """What the inbox shows as the last message."""
        return self._one(_LAST_FINAL, conversation=conversation_id)

    def has_user_message_after(self, conversation_id: str, seq: int) -> bool:
        parameters = {"conversation": conversation_id, "seq": seq}
        return self._executor.one(_HAS_USER_MESSAGE_AFTER, parameters) is not None

    def list_page(
        self, conversation_id: str, *, cleared: int, limit: int, offset: int, is_ascending: bool, is_complete: bool
    ) -> list[Message]:
        """A page by offset, of what lies above `cleared`; `is_complete` adds the unfinished rows."""
        parameters = {"conversation": conversation_id, "cleared": cleared, "limit": limit, "offset": offset}
        return self._many(_PAGES[is_complete, is_ascending], parameters)

    def list_beside(
        self, conversation_id: str, seq: int, *, cleared: int, limit: int, is_older: bool, is_complete: bool
    ) -> tuple[list[Message], bool]:
        """The `limit` rows nearest to `seq` on one side, nearest first, and whether more lie beyond."""
        parameters = {"conversation": conversation_id, "cleared": cleared, "seq": seq, "limit": limit + 1}
        found = self._many(_BESIDE[is_complete, is_older], parameters)
        return found[:limit], len(found) > limit

    def list_recent(self, conversation_id: str, *, cleared: int = 0) -> list[Message]:
        """The newest ten of what lies above `cleared`, newest first."""
        return self._many(_RECENT, {"conversation": conversation_id, "cleared": cleared})

    def list_recent_of(self, conversation_ids: list[str]) -> dict[str, list[Message]]:
        """The newest ten of each, newest first, in one query."""
        recent: dict[str, list[Message]] = {conversation_id: [] for conversation_id in conversation_ids}
        if conversation_ids:
            rows = self._executor.connection.execute(_RECENT_OF_MANY, {"conversations": conversation_ids})
            for row in rows:
                recent[row.conversation_id].append(to_message(tuple(row), self._media_url))
        for found in recent.values():
            found.sort(key=lambda message: -message["sequence"])
        return recent

    def list_for_prompt(self, conversation_id: str, *, before_seq: int, limit: int) -> list[Said]:
        """The newest `limit` messages below `before_seq` that a model may see, oldest first."""
        parameters = {"conversation": conversation_id, "before": before_seq, "limit": limit}
        rows = self._executor.all(_FOR_PROMPT, parameters)
        return [_to_said(row) for row in reversed(rows)]

    def find_said(self, message_id: str) -> tuple[Said, str | None, int] | None:
        """One message for a prompt, the reference of its recording, and its sequence number."""
        row = self._executor.one(_SAID, {"id": message_id})
        return None if row is None else (_to_said(row[:5]), row[3], row[5])

    def find_window_start(self, conversation_id: str, size: int) -> int | None:
        """The number of the oldest of the newest `size` (1 or more) messages for a prompt; None: there are fewer."""
        return self._executor.number(_WINDOW_START, {"conversation": conversation_id, "newer": size - 1})

    def list_between(
        self, conversation_id: str, after_seq: int, before_seq: int, *, limit: int
    ) -> list[tuple[Said, int]]:
        """The newest `limit` messages for a prompt between these numbers, oldest first, with their own."""
        parameters = {"conversation": conversation_id, "after": after_seq, "before": before_seq, "limit": limit}
        return [(_to_said(row[:5]), row[5]) for row in reversed(self._executor.all(_BETWEEN, parameters))]

    def count_unfinished(self, conversation_id: str) -> int:
        return self._executor.count(_COUNT_UNFINISHED, {"conversation": conversation_id})

    def find_seq(self, conversation_id: str, message_id: str) -> int | None:
        parameters = {"conversation": conversation_id, "id": message_id}
        return self._executor.number(_SEQ_OF, parameters)

    def update(self, message_id: str, **values: Any) -> None:
        self._executor.update(_UPDATE, message_id, values)

    def save_partial(self, texts: dict[str, str]) -> None:
        """Notes how far running replies have come, by message id."""
        if texts:
            rows = [{"message": message_id, "text": content} for message_id, content in texts.items()]
            self._executor.run_many(_SAVE_PARTIAL, rows)

    def mark_read(self, conversation_id: str, side: Role) -> int:
        """Marks every delivered message of `side` as read; returns how many were."""
        return self._executor.run(_MARK_READ, {"conversation": conversation_id, "side": side})

    def mark_read_from(self, conversation_id: str, sender_id: str, *, after_seq: int) -> int:
        """Marks what this person has said after `after_seq` as read; returns how many messages that were."""
        parameters = {"conversation": conversation_id, "sender": sender_id, "after": after_seq}
        return self._executor.run(_MARK_READ_FROM, parameters)

    def mark_handed_over(self, message_ids: list[str]) -> None:
        self._executor.run_many(_HAND_OVER, [{"message": message_id} for message_id in message_ids])

    def _one(self, query: Statement, **parameters: str) -> StoredMessage | None:
        row = self._executor.one(query, parameters)
        return None if row is None else _to_stored(row, self._media_url)

    def _many(self, query: Statement, parameters: Parameters) -> list[Message]:
        media_url = self._media_url
        return [to_message(row, media_url) for row in self._executor.all(query, parameters)]


def _to_said(row: Row) -> Said:
    role, content, images, audio, transcription = row
    references = tuple(orjson.loads(images)) if images else ()
    return Said(role, content, references, is_unheard=audio is not None and transcription is None)


def is_listed(role: str, status: MessageStatus, content: str) -> bool:
    """False for the unfinished rows of contract section 5.2."""
    if role != "assistant":
        return True
    return status in ("delivered", "read") or (status in ("failed", "cancelled") and content != "")
