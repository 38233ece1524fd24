"""CompletionService: lists the models, and begins answers."""

from collections.abc import Callable

import orjson

from yral_chat.clients.language_model import LanguageModel
from yral_chat.core.cache import EncodedBody, LRUCache
from yral_chat.core.clock import SECOND
from yral_chat.core.config import Settings
from yral_chat.core.errors import ConversationNotFound, InfluencerNotFound, NotYourConversation, ServiceUnavailable
from yral_chat.core.metrics import Metrics
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.services.completions.fresh import FreshAnswer, Workshop
from yral_chat.services.completions.ledger import Ledger
from yral_chat.services.completions.records import Answer, Wish
from yral_chat.services.completions.turn_answers import TurnAnswer
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.moderation import ModerationService
from yral_chat.services.overload import Admission
from yral_chat.services.turns import NewMessage, TurnService
from yral_chat.services.usage import Quotas, Tabs


class CompletionService:
    """An answer comes out of what the caller sends, and nothing of it is stored; or it is an ordinary turn of one of
    the caller's conversations. `Answer` is what both have in common."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        cache: LRUCache,
        metrics: Metrics,
        influencers: InfluencerService,
        model: LanguageModel,
        turns: TurnService,
        moderation: ModerationService,
        quotas: Quotas,
        tabs: Tabs,
        admission: Admission,
        wake_jobs: Callable[[], None],
    ) -> None:
        self._admission = admission
        self._database = database
        self._cache = cache
        self._influencers = influencers
        self._turns = turns
        self._ledger = Ledger(metrics, tabs, most_per_user=settings.max_turns_per_user)
        self._workshop = Workshop(settings, database, model, moderation, self._ledger, quotas, wake_jobs)

    def count(self) -> int:
        """Answers without a conversation that are being written."""
        return len(self._ledger)

    async def list_models(self) -> bytes:
        """`{object, data}` with the active influencers, newest first, encoded."""

        async def load() -> tuple[EncodedBody, int]:
            found = await self._database.read(lambda uow: uow.influencers.list_active_names())
            data = [
                {"id": row.id, "object": "model", "created": row.created_at // SECOND, "owned_by": "yral",
                 "name": row.name}
                for row in found
            ]  # fmt: skip
            body = EncodedBody.of(orjson.dumps({"object": "list", "data": data}))
            return body, body.size

        # Below the prefix of the lists, which is dropped with every change of an influencer.
        return (await self._cache.get("influencers:models", load)).body

    async def begin(self, user_id: str, wish: Wish) -> Answer:
        """An answer out of what the caller sends. Raises InfluencerNotFound, ServiceUnavailable,
        Overloaded; a user who has too many answers written at once learns so from the answer itself."""
        self._admission.check()
        influencer = await self._find_influencer(wish.model)
        if self._turns.is_draining:
            raise ServiceUnavailable("The service is restarting. Please try again.", details={"service": "turns"})
        return FreshAnswer(self._workshop, user_id, influencer, wish)

    async def begin_turn(self, user_id: str, wish: Wish, conversation_id: str, key: str | None) -> Answer:
        """The last line becomes a message of this conversation. Raises InfluencerNotFound, ConversationNotFound,
        NotYourConversation, and what TurnService.send raises."""
        influencer = await self._find_influencer(wish.model)
        await self._database.read(_check_conversation, conversation_id, user_id, influencer.id)
        message = NewMessage(content=wish.lines[-1].text, client_message_id=key)
        return TurnAnswer(self._turns, await self._turns.send(user_id, conversation_id, message), influencer.id)

    async def _find_influencer(self, model: str) -> StoredInfluencer:
        found = await self._influencers.find(model)
        if found is None:
            known_id = await self._database.read(lambda uow: uow.influencers.find_id_by_name(model))
            found = await self._influencers.find(known_id or model.lower())
        if found is None or found.status == "discontinued":
            raise InfluencerNotFound
        return found

    async def drain(self, seconds: float) -> None:
        """Lets answers end within `seconds`; `begin` refuses new ones while turns drain."""
        await self._ledger.drain(seconds)


def _check_conversation(uow: UnitOfWork, conversation_id: str, user_id: str, influencer_id: str) -> None:
    """Raises ConversationNotFound, NotYourConversation."""
    conversation = uow.conversations.find(conversation_id)
    if conversation is None or conversation.influencer_id is None:
        raise ConversationNotFound
    if conversation.user_id != user_id:
        raise NotYourConversation
    if conversation.influencer_id != influencer_id:
        raise ConversationNotFound
