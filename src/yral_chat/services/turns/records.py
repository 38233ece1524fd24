"""What turns are made of, between the request, the database and the model."""

import hashlib
from typing import Literal

import msgspec

from yral_chat.clients.language_model import Usage
from yral_chat.core.clock import SECOND
from yral_chat.core.config import Settings
from yral_chat.core.errors import AppError
from yral_chat.core.objects import ErrorCode, Message, MessageType
from yral_chat.db.repositories.messages import StoredMessage
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import ReplyStream
from yral_chat.services.moderation import Verdict


class NewMessage(msgspec.Struct, frozen=True):
    """What somebody sends; `content` is trimmed, `images` and `audio` are reduced references (services/media).

    `audio_seconds` is what the client says; it counts only for a recording that is not stored here.
    """

    content: str
    message_type: MessageType = "text"
    client_message_id: str | None = None
    images: tuple[str, ...] = ()
    audio: str | None = None
    audio_seconds: int | None = None

    def body_hash(self) -> str:
        """Equal for equal bodies in the sense of contract section 8.3."""
        body: tuple[object, ...] = (self.message_type, self.content)
        if self.images or self.audio is not None:  # messages of text alone keep the hash that they always had
            body = (*body, self.images, self.audio)
        return hashlib.sha256(msgspec.json.encode(body)).hexdigest()


class Limits(msgspec.Struct, frozen=True):
    """How much may run at once, and how long a repetition without a key is one (microseconds)."""

    per_conversation: int
    per_user: int
    duplicate_window: int
    duplicate_grace: int
    lease: int

    @classmethod
    def of(cls, settings: Settings, *, lease: int) -> "Limits":
        return cls(
            per_conversation=settings.max_turns_per_conversation,
            per_user=settings.max_turns_per_user,
            duplicate_window=round(settings.duplicate_window_seconds * SECOND),
            duplicate_grace=round(settings.duplicate_grace_seconds * SECOND),
            lease=lease,
        )


class Accepted(msgspec.Struct, frozen=True):
    """What became of a request in the database.

    `turn` is set when this request makes the model run; `reply` is None where no reply belongs to the message.
    """

    user_message: Message
    reply: StoredMessage | None
    turn: StoredTurn | None
    influencer_id: str

    @property
    def is_replay(self) -> bool:
        return self.turn is None


class Ending(msgspec.Struct, frozen=True):
    """How an attempt ended, before it is stored. `error_code` None: the reply, or the picture, is complete."""

    content: str
    error_code: ErrorCode | None = None
    error: AppError | None = None
    outcome: str = "completed"  # for metrics: the model's outcome
    provider: str = ""
    model: str | None = None
    tokens: int | None = None
    image: str | None = None  # storage key of a made picture
    usage: Usage | None = None  # of the call that gave the text
    crisis: Verdict | None = None  # the content is help for a person in danger: origin `safety`


class Attached(msgspec.Struct, frozen=True):
    """A request's hold on a turn: the stream to follow or to wait for. Neither reply nor stream: nobody answers."""

    user_message: Message
    reply: StoredMessage | None
    stream: ReplyStream | None
    is_replay: bool
    is_senders: bool = True  # False: the bot's owner reads along


StopReason = Literal["cancelled", "deleted", "handed_back"]
