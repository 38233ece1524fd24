"""What goes over the inbox socket, as JSON Schema: the document of contract section 10.5."""

from functools import cache
from typing import Any, Literal

from pydantic import ConfigDict, create_model
from typing_extensions import TypedDict

from yral_chat.core.objects import ConversationInfluencer, ConversationUser, Message, Time


class NewMessageData(TypedDict):
    conversation_id: str
    message: Message
    influencer_id: str | None
    influencer: ConversationInfluencer | None
    user: ConversationUser | None
    unread_count: int


class MessageUpdatedData(TypedDict):
    conversation_id: str
    message: Message


class ConversationReadData(TypedDict):
    conversation_id: str
    unread_count: int
    read_at: Time
    reader_id: str


class ConversationDeletedData(TypedDict):
    conversation_id: str


class TypingStatusData(TypedDict):
    conversation_id: str
    influencer_id: str | None
    is_typing: bool


class MessageDeltaData(TypedDict):
    conversation_id: str
    message_id: str
    attempt: int
    offset: int
    text: str


class ResyncData(TypedDict):
    reason: str


_MESSAGE: dict[str, Any] = {
    "id": "01930000-0000-7000-8000-000000000002",
    "conversation_id": "01930000-0000-7000-8000-000000000001",
    "role": "assistant",
    "content": "Sure, let us plan your week.",
    "message_type": "text",
    "media_urls": [],
    "audio_url": None,
    "audio_duration_seconds": None,
    "transcription": None,
    "token_count": 8,
    "created_at": "2026-03-01T09:30:00.123456Z",
    "completed_at": "2026-03-01T09:30:02.123456Z",
    "status": "delivered",
    "is_read": False,
    "sender_id": "inf-1",
    "client_message_id": None,
    "reply_to": "01930000-0000-7000-8000-000000000003",
    "origin": "model",
    "attempt": 1,
    "sequence": 3,
    "error": None,
}
_CONVERSATION = _MESSAGE["conversation_id"]

_EVENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "new_message": (
        NewMessageData,
        {
            "conversation_id": _CONVERSATION,
            "message": _MESSAGE,
            "influencer_id": "inf-1",
            "influencer": {
                "id": "inf-1",
                "name": "ahaanfitness",
                "display_name": "Ahaan",
                "avatar_url": "",
                "category": "fitness",
                "is_online": True,
                "suggested_messages": None,
            },
            "user": None,
            "unread_count": 1,
        },
    ),
    "message_updated": (MessageUpdatedData, {"conversation_id": _CONVERSATION, "message": _MESSAGE}),
    "conversation_read": (
        ConversationReadData,
        {
            "conversation_id": _CONVERSATION,
            "unread_count": 0,
            "read_at": "2026-03-01T09:31:00.000000Z",
            "reader_id": "user-1",
        },
    ),
    "conversation_deleted": (ConversationDeletedData, {"conversation_id": _CONVERSATION}),
    "typing_status": (
        TypingStatusData,
        {"conversation_id": _CONVERSATION, "influencer_id": "inf-1", "is_typing": True},
    ),
    "message_delta": (
        MessageDeltaData,
        {
            "conversation_id": _CONVERSATION,
            "message_id": _MESSAGE["id"],
            "attempt": 1,
            "offset": 5,
            "text": " let us plan",
        },
    ),
    "resync": (ResyncData, {"reason": "missed events are no longer kept"}),
}

CLIENT_FRAMES = {
    "ping": {"description": "The text `ping` is answered with the text `pong`. Everything else is ignored."}
}

CLOSE_CODES = {
    "1009": "client frame above 4 KiB",
    "1012": "server is draining, or an event has not come to this socket: reconnect with since",
    "1013": "the socket cannot keep up (256 frames or 1 MiB waiting), or the service cannot serve it now",
    "4001": "token missing, invalid or expired",
    "4003": "sub is not the user id of the path",
    "4008": "replaced: more than 10 sockets of this user, the oldest closes",
    "4029": "rate limited at connect",
}


@cache
def event_documents() -> dict[str, dict[str, Any]]:
    """Per event: the JSON Schema of the whole frame, and an example."""
    return {
        name: {"schema": _frame_schema(name, data), "example": {"event": name, "seq": 18, "data": example}}
        for name, (data, example) in _EVENTS.items()
    }


def _frame_schema(name: str, data: Any) -> dict[str, Any]:
    frame: Any = create_model(  # type: ignore[call-overload]
        f"{name} frame",
        __config__=ConfigDict(extra="forbid"),
        **{"event": (Literal[name], ...), "seq": (int, ...), "data": (data, ...)},
    )
    schema: dict[str, Any] = frame.model_json_schema()
    return schema
