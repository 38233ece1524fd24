"""Bodies of the v1 routes, beyond the objects of core/objects.py."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field
from typing_extensions import TypedDict

from yral_chat.api.deps import Id, Text, cleaned, whole
from yral_chat.core.objects import Conversation, ConversationSummary, Influencer, Message, MessageType, Time


class OpenConversation(BaseModel):
    influencer_id: Id


class OpenHumanChat(BaseModel):
    participant_id: Id


class HumanChatList(TypedDict):
    conversations: list[ConversationSummary]
    total: int
    limit: int
    offset: int
    has_more: bool


class ConversationList(TypedDict):
    conversations: list[Conversation]
    total: int
    limit: int
    offset: int
    has_more: bool


class MessageList(TypedDict):
    conversation_id: str
    messages: list[Message]
    total: int
    limit: int
    offset: int
    has_more: bool


class ReadResult(TypedDict):
    id: str
    unread_count: int
    last_read_at: Time


class DeleteResult(TypedDict):
    success: Literal[True]
    message: str
    deleted_conversation_id: str
    deleted_messages_count: int


class SendResult(TypedDict):
    user_message: Message
    assistant_message: Message | None


class InfluencerList(TypedDict):
    influencers: list[Influencer]
    total: int
    limit: int
    offset: int
    has_more: bool


class Me(TypedDict):
    user_id: str
    is_anonymous: bool
    owned_bot_ids: list[str]


class DevTokenRequest(BaseModel):
    user_id: Id
    ttl_seconds: Annotated[int, Field(ge=1, le=86400), whole] | None = None
    is_anonymous: bool | None = None


class DevToken(TypedDict):
    token: str
    token_type: Literal["Bearer"]
    expires_in: int
    expires_at: Time


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _number_as_text(value: Any) -> Any:
    """A JSON number is taken as its text; true and false are no numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a number of JSON")  # Python's parser takes NaN and Infinity
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _empty_as_absent(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Key = Annotated[str, Field(min_length=1, max_length=128), cleaned]
Content = Annotated[str, Field(max_length=4000), cleaned]


class SendMessage(BaseModel):
    """What a person sends; which fields it needs depends on its type (contract section 8.2)."""

    message_type: Annotated[MessageType, BeforeValidator(_lower)]
    content: Annotated[Content | None, BeforeValidator(_number_as_text)] = ""
    media_urls: Annotated[
        list[Annotated[str, Field(min_length=1), cleaned]] | None, Field(max_length=10), BeforeValidator(_one_as_list)
    ] = None
    audio_url: Annotated[Text | None, BeforeValidator(_empty_as_absent)] = None
    audio_duration_seconds: Annotated[int, Field(ge=0, le=300), whole] | None = None
    client_message_id: Annotated[Key | None, BeforeValidator(_empty_as_absent)] = None


class MakePicture(BaseModel):
    prompt: Annotated[Annotated[str, Field(max_length=1000), cleaned] | None, Field()] = None
