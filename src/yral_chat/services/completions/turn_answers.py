"""Answers that are replies to a message of a conversation: they go on when the caller leaves."""

from collections.abc import AsyncGenerator

import msgspec

from yral_chat.clients.language_model import Usage
from yral_chat.core.clock import SECOND
from yral_chat.core.errors import ModelUnavailable, NotStreamable
from yral_chat.services.completions.records import Finish
from yral_chat.services.turns import Attached, TurnResult, TurnService


class TurnAnswer:
    """See `Answer`."""

    def __init__(self, turns: TurnService, attached: Attached, influencer_id: str) -> None:
        reply, stream = attached.reply, attached.stream
        if reply is None or stream is None:
            raise NotStreamable
        self.id = f"chatcmpl-{reply.message['id']}"
        self.created = reply.created_at // SECOND
        self.model = influencer_id
        self.metadata: dict[str, str] | None = {
            "conversation_id": reply.message["conversation_id"],
            "user_message_id": attached.user_message["id"],
            "assistant_message_id": reply.message["id"],
        }
        self.is_replay = attached.is_replay
        self._turns = turns
        self._attached = attached
        self._stream = stream

    async def whole(self, seconds: float) -> tuple[str, Finish]:
        result = await self._turns.wait(self._attached, seconds)
        return _text_of(result), _finish_of_turn(result)

    async def pieces(self) -> AsyncGenerator[str | Finish]:
        stream, attempt, place = self._stream, self._stream.attempt, 0
        # Its frames say when to look: the text is taken from the stream itself.
        async for _ in self._turns.follow(self._attached):
            if stream.attempt != attempt:
                if place:  # what was said cannot be taken back here
                    raise ModelUnavailable
                attempt = stream.attempt
            piece, place = stream.text[place:], len(stream.text)
            yield piece
        # The turn has ended, or its time is up: waiting no longer tells which, as the refusal that it means.
        result = await self._turns.wait(self._attached, 0.0)
        text, said = _text_of(result), stream.text[:place]
        yield text[place:] if text.startswith(said) else text
        yield _finish_of_turn(result)

    def received(self) -> None:
        self._turns.hand_over(self._attached)


def _finish_of_turn(result: TurnResult) -> Finish:
    """A repeated request made no call: of a stored reply only its own tokens are known."""
    message = result.assistant_message
    assert message is not None  # noqa: S101 - a result without an error has its message
    usage = result.usage or Usage(output=message["token_count"] or 0)
    finish = Finish.of(usage, is_truncated=result.is_truncated)
    return msgspec.structs.replace(finish, reason="content_filter") if message["origin"] == "safety" else finish


def _text_of(result: TurnResult) -> str:
    message = result.assistant_message
    assert message is not None  # noqa: S101 - a result without an error has its message
    return message["content"]
