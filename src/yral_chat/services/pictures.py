"""PictureService: a person asks for a picture and waits for it (contract section 8.7)."""

import asyncio

from yral_chat.clients.images import ImageModel
from yral_chat.core import deadlines
from yral_chat.core.clock import now
from yral_chat.core.config import Settings
from yral_chat.core.errors import Conflict, GenerationTimeout, IdempotencyConflict, ServiceUnavailable
from yral_chat.core.ids import new_id
from yral_chat.core.objects import FAILURES, Message
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.conversations import StoredConversation
from yral_chat.db.repositories.pictures import PictureRequest
from yral_chat.db.repositories.turns import StoredTurn
from yral_chat.realtime.hub import Hub
from yral_chat.services.turns import TurnEngine, TurnResult
from yral_chat.services.turns.accepting import check_limits, check_open, open_for_user
from yral_chat.services.turns.budgets import TurnBudgets
from yral_chat.services.turns.picturing import stored_picture
from yral_chat.services.turns.records import Limits

# A request whose turn runs nowhere here looks again this often: it ended between two looks, or waits for a take-over.
LOOK_SECONDS = 0.05


class PictureService:
    """See the module."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        hub: Hub,
        engine: TurnEngine,
        image_model: ImageModel | None,
        budgets: TurnBudgets,
    ) -> None:
        self._budgets = budgets
        self._settings = settings
        self._database = database
        self._hub = hub
        self._engine = engine
        self._image_model = image_model
        self._limits = Limits.of(settings, lease=engine.lease)

    async def ask(self, user_id: str, conversation_id: str, prompt: str, key: str | None) -> tuple[str, bool]:
        """The id of the request, and whether an earlier one has asked for this picture already.

        Raises what contract section 8.7 names.
        """
        if self._image_model is None:
            raise ServiceUnavailable("Pictures cannot be made here", details={"service": "images"})

        def accept(uow: UnitOfWork) -> tuple[str, bool]:
            request, turn, influencer_id = self._accept(uow, user_id, conversation_id, prompt, key)
            if turn is not None:
                self._budgets.hold(uow, turn, influencer_id)
                self._engine.launch_after(uow, turn, None, influencer_id)
            return request.id, turn is None

        return await self._engine.accept(accept)

    async def wait(self, request_id: str) -> Message:
        """The message with the picture. Raises the refusal that its end means; GenerationTimeout when it may still
        come."""
        deadlines.extend(self._settings.image_timeout_seconds)
        try:
            async with asyncio.timeout(self._settings.image_timeout_seconds):
                result = await self._wait(request_id)
        except TimeoutError as error:
            raise GenerationTimeout("The picture is not ready yet. It appears when it is.") from error
        if result.error is not None:
            raise result.error
        assert result.assistant_message is not None  # noqa: S101 - a picture that was made has its message
        return result.assistant_message

    def hand_over(self, message: Message) -> None:
        """Notes that whoever asked has received the picture."""
        self._engine.hand_over(message["id"])

    async def _wait(self, request_id: str) -> TurnResult:
        """The end of the turn, wherever it runs."""
        while True:
            if (stream := self._hub.find_reply(request_id)) is not None:
                await stream.wait_end(self._settings.image_timeout_seconds)
                if stream.is_ended and not stream.result.is_running:
                    result: TurnResult = stream.result
                    return result
            found = await self._database.read(lambda uow: stored_picture(uow, uow.pictures.find(request_id)))
            if found is not None:
                return found
            if self._engine.has_drained:  # the next process makes it
                raise TimeoutError
            await asyncio.sleep(LOOK_SECONDS)

    def _accept(
        self, uow: UnitOfWork, user_id: str, conversation_id: str, prompt: str, key: str | None
    ) -> tuple[PictureRequest, StoredTurn | None, str]:
        """The request, and the turn that this call starts, if it does (contract section 8.3)."""
        conversation = open_for_user(uow, conversation_id, user_id, is_locked=True)
        if conversation.influencer_id is None:
            raise Conflict("Only a persona makes pictures")
        earlier = self._find_earlier(uow, conversation_id, prompt, key)
        if earlier is not None and not _may_run_again(earlier):
            return earlier, None, conversation.influencer_id
        check_open(conversation)
        check_limits(uow, conversation, self._limits)
        if earlier is None:
            request = _request(conversation, prompt, key)
            uow.pictures.add(request)
            attempt = 1
        else:
            request, attempt = earlier, earlier.attempt + 1
            uow.pictures.begin(request.id, attempt)
        turn = self._turn(conversation, request.id, attempt)
        uow.turns.add(turn)
        return request, turn, conversation.influencer_id

    def _find_earlier(
        self, uow: UnitOfWork, conversation_id: str, prompt: str, key: str | None
    ) -> PictureRequest | None:
        if key is not None:
            found = uow.pictures.find_by_key(conversation_id, key)
            if found is not None and found.prompt != prompt:
                raise IdempotencyConflict
            return found
        newest = uow.pictures.find_newest(conversation_id)
        time = now()
        if newest is None or newest.prompt != prompt or time - newest.created_at > self._limits.duplicate_window:
            return None
        if newest.status == "done" and time - (newest.completed_at or 0) > self._limits.duplicate_grace:
            return None
        return newest

    def _turn(self, conversation: StoredConversation, request_id: str, attempt: int) -> StoredTurn:
        time = now()
        return StoredTurn(
            id=request_id,
            conversation_id=conversation.id,
            user_id=conversation.user_id,
            user_message_id="",
            kind="picture",
            seq=conversation.last_seq,
            attempt=attempt,
            takeovers=0,
            is_regeneration=False,
            is_replacement=False,
            owner=self._engine.owner,
            lease_until=time + self._limits.lease,
            created_at=time,
        )


def _may_run_again(request: PictureRequest) -> bool:
    return request.error_code is not None and FAILURES[request.error_code]["retryable"]


def _request(conversation: StoredConversation, prompt: str, key: str | None) -> PictureRequest:
    return PictureRequest(
        id=new_id(),
        conversation_id=conversation.id,
        user_id=conversation.user_id,
        request_key=key,
        prompt=prompt,
        status="running",
        error_code=None,
        attempt=1,
        created_at=now(),
        completed_at=None,
    )
