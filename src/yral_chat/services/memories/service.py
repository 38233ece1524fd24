"""MemoryService: what is remembered of a person, drawn from messages in the background (contract section 14)."""

import re
import time
from collections.abc import Sequence

import msgspec
from typing_extensions import TypedDict

from yral_chat.clients.language_model import ModelFailure, Persona
from yral_chat.core.clock import now, to_text
from yral_chat.core.config import Settings
from yral_chat.core.errors import MemoryNotFound
from yral_chat.core.logging import correlation_id
from yral_chat.core.metrics import Extraction, Metrics
from yral_chat.core.objects import VOICE_MESSAGE, Time
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.db.repositories.memories import EVERYTHING, MAX_PER_CONVERSATION, StoredMemory
from yral_chat.db.repositories.messages import Said
from yral_chat.services.background_model import BackgroundModel, QuotaUsedUp, is_final
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.memories.asking import read_facts, request_for
from yral_chat.services.memories.facts import Fact
from yral_chat.services.memories.statements import facts_in
from yral_chat.services.prompts import persona_of
from yral_chat.services.summaries import queue_summary
from yral_chat.services.turns.accepting import open_for_user

EXTRACT_SECONDS = 30.0  # of a model's work; nobody waits for it
# How a recording's words stand in its message (contract section 8.6).
_TRANSCRIBED = re.compile(r"\[Transcribed: (.*)\]\Z", re.S)


class Memory(TypedDict):
    key: str
    value: str
    source_message_id: str | None
    updated_at: Time


class MemoryList(TypedDict):
    conversation_id: str
    memories: list[Memory]
    total: int


class Source(msgspec.Struct, frozen=True):
    """The message that facts are drawn from, and the names of those that are known."""

    message_id: str
    seq: int
    text: str
    influencer_id: str
    known_keys: list[str]


class MemoryService:
    """See the module. The routes raise ConversationNotFound, NotYourConversation, Conflict in a human chat."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        influencers: InfluencerService,
        model: BackgroundModel,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics
        self._settings = settings
        self._database = database
        self._influencers = influencers
        self._model = model

    async def list_own(self, user_id: str, conversation_id: str) -> MemoryList:
        """What is remembered, by key; also while remembering is switched off."""
        return await self._database.read(_list_own, user_id, conversation_id)

    async def delete(self, user_id: str, conversation_id: str, key: str) -> int:
        """Forgets one. Raises MemoryNotFound."""
        return await self._database.write(_delete, user_id, conversation_id, key)

    async def delete_all(self, user_id: str, conversation_id: str) -> int:
        """Forgets everything; returns how much that was."""
        return await self._database.write(_delete_all, user_id, conversation_id)

    async def extract(self, jobs: list[Job]) -> None:
        """The job `memories.extract`: draws facts from the user message of a turn that was answered.

        Raises ModelFailure when another try may go better; what that try cost is recorded all the same.
        """
        for job in jobs:
            await self._extract(job)

    async def _extract(self, job: Job) -> None:
        source = await self._database.read(self._find_source, job)
        facts: list[Fact] = []
        outcome: Extraction = "skipped"
        if source is not None:
            try:
                facts = await self._find_facts(source, job)
                outcome = "found" if facts else "nothing"
            except ModelFailure as failure:
                if not is_final(failure):
                    self._count("failed")
                    raise
                outcome = "failed"
        await self._database.write(self._store, job, source, facts)
        self._count(outcome)

    def _count(self, outcome: Extraction) -> None:
        if self._metrics is not None:
            self._metrics.memory_extracted(outcome)

    async def _find_facts(self, source: Source, job: Job) -> list[Fact]:
        if self._model.is_offline:
            return facts_in(source.text)
        influencer = await self._influencers.find(source.influencer_id)
        persona = Persona("", "") if influencer is None else persona_of(influencer)
        request = request_for(
            source.text,
            source.known_keys,
            persona,
            deadline=time.monotonic() + EXTRACT_SECONDS,
            correlation_id=correlation_id.get(),
        )
        try:
            return read_facts(await self._model.answer(request, job), source.text)
        except QuotaUsedUp:
            return facts_in(source.text)

    def _find_source(self, uow: UnitOfWork, job: Job) -> Source | None:
        """None when there is nothing to draw from, or nobody wants it."""
        conversation = uow.conversations.find(job.payload["conversation_id"])
        found = uow.messages.find_said(job.payload["message_id"])
        if conversation is None or found is None or not self._may_remember(uow, conversation.user_id):
            return None
        said, _, seq = found
        text = _own_words(said)
        if not any(character.isalpha() for character in text):
            return None
        known = [memory.key for memory in uow.memories.list_all(conversation.id)]
        return Source(job.payload["message_id"], seq, text, conversation.influencer_id or "", known)

    def _may_remember(self, uow: UnitOfWork, user_id: str) -> bool:
        return self._settings.memories_enabled and uow.settings.find(user_id).memories_enabled

    def _store(self, uow: UnitOfWork, job: Job, source: Source | None, facts: Sequence[Fact]) -> None:
        """Keeps the facts and deletes the job: together, so that it happens once."""
        if not uow.jobs.delete(job.id):
            return
        conversation = uow.conversations.find_locked(job.payload["conversation_id"])
        if conversation is None or not self._may_remember(uow, conversation.user_id):
            return
        if source is not None:
            remember(uow, conversation.id, source, facts)
        queue_summary(uow, conversation, job.payload, self._settings.history_messages)


def remember(uow: UnitOfWork, conversation_id: str, source: Source, facts: Sequence[Fact]) -> None:
    """Adds facts or updates those with their keys: what was said later wins, whenever it is found.

    The conversation is locked by this unit.
    """
    known = {memory.key: memory for memory in uow.memories.list_all(conversation_id)}
    for fact in facts:
        key = _key_among(known, fact)
        before = known.get(key)
        if before is not None and before.source_seq > source.seq:
            continue
        if max(uow.memories.forgotten_through(conversation_id, name) for name in {key, fact.key}) >= source.seq:
            continue
        time_now = now()
        known[key] = StoredMemory(
            key=key,
            value=fact.value,
            source_message_id=source.message_id,
            source_seq=source.seq,
            confidence=fact.confidence,
            created_at=time_now if before is None else before.created_at,
            updated_at=time_now,
        )
        if len(known) > MAX_PER_CONVERSATION:
            least = min(known.values(), key=lambda memory: (memory.confidence, memory.updated_at, memory.key))
            uow.memories.delete(conversation_id, least.key)
            del known[least.key]
            if least.key == key:
                continue
        uow.memories.save(conversation_id, known[key])


def _key_among(known: dict[str, StoredMemory], fact: Fact) -> str:
    """The key under which the fact is known: its own, or a longer or shorter form of it with the same value."""
    if fact.key in known:
        return fact.key
    parts, value = set(fact.key.split("_")), fact.value.casefold()
    for memory in known.values():
        others = set(memory.key.split("_"))
        if memory.value.casefold() == value and (parts <= others or others <= parts):
            return memory.key
    return fact.key


def _own_words(said: Said) -> str:
    """What the person has written or said, without what stands for a recording."""
    if said.is_unheard and said.content == VOICE_MESSAGE:
        return ""
    return _TRANSCRIBED.sub(r"\1", said.content).strip()


def _open(uow: UnitOfWork, user_id: str, conversation_id: str, *, is_locked: bool) -> int:
    """Checks the caller; returns the number of the newest message."""
    return open_for_user(uow, conversation_id, user_id, is_locked=is_locked).last_seq


def _list_own(uow: UnitOfWork, user_id: str, conversation_id: str) -> MemoryList:
    _open(uow, user_id, conversation_id, is_locked=False)
    found: list[Memory] = [
        {
            "key": memory.key,
            "value": memory.value,
            "source_message_id": memory.source_message_id,
            "updated_at": to_text(memory.updated_at),
        }
        for memory in uow.memories.list_all(conversation_id)
    ]
    return {"conversation_id": conversation_id, "memories": found, "total": len(found)}


def _delete(uow: UnitOfWork, user_id: str, conversation_id: str, key: str) -> int:
    newest = _open(uow, user_id, conversation_id, is_locked=True)
    if not uow.memories.delete(conversation_id, key):
        raise MemoryNotFound
    uow.memories.forget(conversation_id, key, newest)
    return 1


def _delete_all(uow: UnitOfWork, user_id: str, conversation_id: str) -> int:
    newest = _open(uow, user_id, conversation_id, is_locked=True)
    uow.memories.forget(conversation_id, EVERYTHING, newest)
    return uow.memories.delete_all(conversation_id)
