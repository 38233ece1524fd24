"""The objects of the wire (contract section 5), declared once.

They are TypedDicts: repositories build them from rows, events and responses encode them as they are, and
FastAPI draws the OpenAPI document from the same declaration. A 50-message page costs one orjson call and no
conversion; the tests check every response against the document.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$",
        examples=["2026-03-01T09:30:00.123456Z"],
        json_schema_extra={"format": "date-time"},
    ),
]

Role = Literal["user", "assistant", "system"]
MessageType = Literal["text", "multimodal", "image", "audio"]
MessageStatus = Literal["pending", "streaming", "delivered", "read", "failed", "cancelled"]
Origin = Literal["user", "model", "greeting", "image", "creator", "safety", "system"]
ErrorCode = Literal["BLOCKED_CONTENT", "TRANSIENT", "NO_PROVIDER", "CANCELLED"]
InfluencerStatus = Literal["active", "coming_soon", "discontinued"]
ConversationType = Literal["ai_chat", "human_chat"]

# What stands for a recording until its words are known (contract section 8.6).
VOICE_MESSAGE = "[Voice message]"


def is_external(reference: str) -> bool:
    """Whether a reference to a file is an address elsewhere, and not the storage key of a file of ours."""
    return reference.startswith(("http://", "https://"))


FINAL_READABLE: frozenset[str] = frozenset({"delivered", "read"})
RUNNING: frozenset[str] = frozenset({"pending", "streaming"})


class MessageError(TypedDict):
    code: ErrorCode
    message: str
    retryable: bool


class Message(TypedDict):
    """Contract section 5.1."""

    id: str
    conversation_id: str
    role: Role
    content: str
    message_type: MessageType
    media_urls: list[str]
    audio_url: str | None
    audio_duration_seconds: int | None
    transcription: str | None
    token_count: int | None
    created_at: Time
    completed_at: Time | None
    status: MessageStatus
    is_read: bool
    sender_id: str | None
    client_message_id: str | None
    reply_to: str | None
    origin: Origin
    attempt: int
    sequence: int
    error: MessageError | None


class LastMessage(TypedDict):
    id: str
    content: Annotated[str, Field(max_length=1000)]
    role: Role
    message_type: MessageType
    created_at: Time
    status: MessageStatus
    is_read: bool
    sender_id: str | None


class ConversationInfluencer(TypedDict):
    """Contract section 5.4. `suggested_messages` is null in lists once the conversation has begun."""

    id: str
    name: str
    display_name: str
    avatar_url: str
    category: str
    is_online: bool
    suggested_messages: list[str] | None


class ConversationUser(TypedDict):
    principal_id: str
    username: str | None
    profile_picture_url: str | None


class ConversationSummary(TypedDict):
    """A row of the v2 inbox: contract section 5.3 without `recent_messages`."""

    id: str
    conversation_type: ConversationType
    user_id: str
    influencer_id: str | None
    influencer: ConversationInfluencer | None
    user: ConversationUser | None
    created_at: Time
    updated_at: Time
    message_count: int
    unread_count: int
    takeover_active: bool
    last_message: LastMessage | None


class Conversation(ConversationSummary):
    """Contract section 5.3."""

    recent_messages: list[Message]


class Influencer(TypedDict):
    """Contract section 5.5."""

    id: str
    name: str
    display_name: str
    avatar_url: str
    description: str
    category: str
    is_active: InfluencerStatus
    is_nsfw: bool
    parent_principal_id: str | None
    source: str | None
    system_prompt: str | None
    suggested_messages: list[str]
    voice: str | None
    created_at: Time
    updated_at: Time
    conversation_count: int
    message_count: int


# What people read about a failed reply, and whether a repetition may help. Contract section 9.2.
FAILURES: dict[ErrorCode, MessageError] = {
    "BLOCKED_CONTENT": {
        "code": "BLOCKED_CONTENT",
        "message": "The reply was refused by the safety layer.",
        "retryable": False,
    },
    "TRANSIENT": {"code": "TRANSIENT", "message": "The reply could not be generated.", "retryable": True},
    "NO_PROVIDER": {
        "code": "NO_PROVIDER",
        "message": "No language model can be reached right now.",
        "retryable": True,
    },
    "CANCELLED": {"code": "CANCELLED", "message": "The reply was stopped.", "retryable": True},
}

Json = dict[str, Any]
