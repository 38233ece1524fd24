"""What is kept of facts and summaries, and in which order: on both databases."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.db.conftest import add_influencer
from yral_chat.clients.language_model import (
    Completion,
    Delta,
    ModelCall,
    ModelFailure,
    ModelRequest,
    Usage,
)
from yral_chat.core.cache import LRUCache
from yral_chat.core.clock import now
from yral_chat.core.config import Settings
from yral_chat.core.ids import new_id
from yral_chat.core.metrics import Metrics
from yral_chat.core.objects import VOICE_MESSAGE
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.jobs import Job
from yral_chat.db.repositories.memories import EVERYTHING, MAX_PER_CONVERSATION, StoredMemory, Summary
from yral_chat.db.repositories.settings import UserSettings
from yral_chat.services import chat
from yral_chat.services.background_model import BackgroundModel
from yral_chat.services.influencers import InfluencerService
from yral_chat.services.memories.facts import Fact
from yral_chat.services.memories.service import MemoryService, Source, remember
from yral_chat.services.recall import SUMMARY_CHARACTERS
from yral_chat.services.summaries import LEAST_MESSAGES, SUMMARISE_JOB, SummaryService
from yral_chat.services.turns import accepting, ending
from yral_chat.services.turns.records import Ending, Limits, NewMessage
from yral_chat.services.turns.replying import EXTRACT_JOB, extraction_of
from yral_chat.services.usage import RECORD_JOB, Meter, Prices, Quotas, Tabs

LIMITS = Limits(per_conversation=5, per_user=10, duplicate_window=0, duplicate_grace=0, lease=60_000_000)
SETTINGS = Settings(environment="test", history_messages=2)


class Scripted:
    """A `LanguageModel` that says what it was told to say; None: it fails."""

    def __init__(self, *answers: str | None) -> None:
        self._answers = list(answers)
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest, calls: list[ModelCall]) -> AsyncIterator[Delta | Completion]:
        self.requests.append(request)
        calls.append(ModelCall("fake", "fake-1", now(), "completed", Usage(prompt=7, output=3)))
        text = self._answers.pop(0)
        if text is None:
            raise ModelFailure("overloaded", "as told")
        yield Delta(text)
        yield Completion("completed", "stop", Usage(prompt=7, output=3), "fake", "fake-1")

    async def close(self) -> None:
        """Holds nothing open."""


def background(
    database: Database, model: Scripted, *, is_offline: bool = False, settings: Settings = SETTINGS
) -> BackgroundModel:
    prices = Prices({})
    quotas = Quotas(settings, prices, [])
    tabs = Tabs(database, quotas, Meter(Metrics(), prices), wake_jobs=lambda: None)
    return BackgroundModel(model, quotas, tabs, is_offline=is_offline)


def memories_of(database: Database, model: Scripted, *, is_offline: bool = False) -> MemoryService:
    return MemoryService(SETTINGS, database, influencers(database), background(database, model, is_offline=is_offline))


def influencers(database: Database) -> InfluencerService:
    cache = LRUCache(max_items=10, max_bytes=1_000_000, ttl_seconds=10)
    return InfluencerService(database, cache, base_url="http://test")


def open_conversation(uow: UnitOfWork) -> str:
    add_influencer(uow, "bot")
    return chat._open(uow, "user", "bot")["id"]


def answered(uow: UnitOfWork, conversation: str, text: str) -> dict[str, str]:
    """A whole turn; returns the payload of its extraction."""
    accepted = accepting.accept(uow, "user", conversation, NewMessage(text), LIMITS, "process", frozenset())
    assert accepted.turn is not None
    ending.end(uow, accepted.turn, Ending("Nice. Really.", provider="p", model="m"), [], str)
    return extraction_of(accepted.turn, "bot")


def queued(uow: UnitOfWork, name: str, payload: dict[str, str]) -> Job:
    """The job as it is when it runs for the first time."""
    uow.jobs.add(name, payload)
    [job] = [job for job in uow.jobs.lease_due(now() + 60_000_000, {name: 1000}) if job.payload == payload]
    return job


def found(seq: int, *facts: Fact, message_id: str = "") -> tuple[Source, list[Fact]]:
    return Source(message_id or f"message-{seq}", seq, "", "bot", []), list(facts)


def values(uow: UnitOfWork, conversation: str) -> dict[str, str]:
    return {memory.key: memory.value for memory in uow.memories.list_all(conversation)}


async def test_what_was_said_later_wins_whenever_it_is_found(database: Database) -> None:
    def unit(uow: UnitOfWork) -> None:
        conversation = open_conversation(uow)
        remember(uow, conversation, *found(5, Fact("city", "Delhi", 80)))
        [first] = uow.memories.list_all(conversation)
        remember(uow, conversation, *found(3, Fact("city", "Pune", 100), Fact("pet", "a cat", 90)))
        assert values(uow, conversation) == {"city": "Delhi", "pet": "a cat"}
        remember(uow, conversation, *found(7, Fact("city", "Goa", 60)))
        city, _ = uow.memories.list_all(conversation)
        assert (city.value, city.source_message_id, city.source_seq, city.confidence) == ("Goa", "message-7", 7, 60)
        assert city.created_at == first.created_at
        assert city.updated_at >= first.updated_at

    await database.write(unit)


async def test_the_same_fact_updates_instead_of_doubling(database: Database) -> None:
    def unit(uow: UnitOfWork) -> None:
        conversation = open_conversation(uow)
        for seq, key in ((1, "favourite_food"), (3, "favourite_food"), (5, "food")):
            remember(uow, conversation, *found(seq, Fact(key, "Pani puri" if seq > 1 else "pani puri", 80)))
        assert values(uow, conversation) == {"favourite_food": "Pani puri"}
        remember(uow, conversation, *found(7, Fact("allergies", "pani puri", 80)))
        assert len(values(uow, conversation)) == 2

    await database.write(unit)


async def test_the_least_sure_and_oldest_goes_when_there_are_too_many(database: Database) -> None:
    def unit(uow: UnitOfWork) -> None:
        conversation = open_conversation(uow)
        uow.memories.save(conversation, StoredMemory("doubtful", "x", None, 1, 41, 1, 1))
        for number in range(MAX_PER_CONVERSATION - 1):
            uow.memories.save(conversation, StoredMemory(f"k{number:03}", "x", None, 1, 80, 1, number))
        remember(uow, conversation, *found(2, Fact("new", "y", 80)))
        assert "doubtful" not in values(uow, conversation)
        remember(uow, conversation, *found(3, Fact("newer", "z", 80)))
        assert "k000" not in values(uow, conversation)
        remember(uow, conversation, *found(4, Fact("unsure", "z", 40)))
        kept = values(uow, conversation)
        assert len(kept) == MAX_PER_CONVERSATION
        assert {"new", "newer"} <= kept.keys()
        assert "unsure" not in kept

    await database.write(unit)


async def test_what_was_deleted_is_not_drawn_again_from_what_was_said_before(database: Database) -> None:
    def unit(uow: UnitOfWork) -> None:
        conversation = open_conversation(uow)
        remember(uow, conversation, *found(3, Fact("city", "Pune", 80), Fact("pet", "a cat", 80)))
        assert uow.memories.delete(conversation, "city") == 1
        uow.memories.forget(conversation, "city", 4)
        remember(uow, conversation, *found(3, Fact("city", "Pune", 80)))
        assert values(uow, conversation) == {"pet": "a cat"}
        remember(uow, conversation, *found(5, Fact("city", "Pune", 80)))
        assert values(uow, conversation) == {"city": "Pune", "pet": "a cat"}
        uow.memories.forget(conversation, EVERYTHING, 6)
        assert uow.memories.delete_all(conversation) == 2
        remember(uow, conversation, *found(6, Fact("job", "a nurse", 80)))
        assert values(uow, conversation) == {}

    await database.write(unit)


async def test_extraction_asks_once_and_writes_once_when_its_job_runs_twice(database: Database) -> None:
    def prepare(uow: UnitOfWork) -> tuple[str, Job]:
        conversation = open_conversation(uow)
        return conversation, queued(uow, EXTRACT_JOB, answered(uow, conversation, "I live in Pune"))

    conversation, job = await database.write(prepare)
    model = Scripted(*['{"facts": [{"key": "city", "value": "Pune", "confidence": 90}]}'] * 2)
    service = memories_of(database, model)
    await service.extract([job])
    await service.delete("user", conversation, "city")
    await service.extract([job])
    assert (await service.list_own("user", conversation))["memories"] == []
    text = model.requests[0].messages[0].text + model.requests[0].system
    assert "Nice. Really." not in text, "the persona's words are no source"
    assert "Be kind." not in text, "nor are its instructions"


async def test_a_failed_extraction_is_tried_again_and_leaves_its_cost(database: Database) -> None:
    def prepare(uow: UnitOfWork) -> tuple[str, Job]:
        conversation = open_conversation(uow)
        return conversation, queued(uow, EXTRACT_JOB, answered(uow, conversation, "I live in Pune"))

    conversation, job = await database.write(prepare)
    service = memories_of(database, Scripted(None, '{"facts": [{"key": "city", "value": "Pune"}]}'))
    with pytest.raises(ModelFailure):
        await service.extract([job])
    assert (await service.list_own("user", conversation))["total"] == 0
    again = msgspec.structs.replace(job, attempts=job.attempts + 1)
    await service.extract([again])
    assert (await service.list_own("user", conversation))["total"] == 1
    costs = await database.write(lambda uow: uow.jobs.lease_due(now() + 1, {RECORD_JOB: 100}))
    kept = [(cost.payload["key"], len(cost.payload["calls"])) for cost in costs if cost.payload["calls"]]
    key = f"{EXTRACT_JOB}:{job.id}:{job.created_at}"
    # The first has failed and was recorded; that it was so is not noted in the job here, so that it counts as lost.
    assert sorted(kept) == [(f"{key}:1", 1), (f"{key}:1", 1), (f"{key}:2", 1)]


async def test_who_has_used_up_the_quota_is_remembered_without_a_model(database: Database) -> None:
    def prepare(uow: UnitOfWork) -> tuple[str, Job]:
        conversation = open_conversation(uow)
        return conversation, queued(uow, EXTRACT_JOB, answered(uow, conversation, "I live in Pune"))

    conversation, job = await database.write(prepare)
    model, used_up = Scripted(), SETTINGS.model_copy(update={"quota_tokens_per_user_day": 10})
    asking = background(database, model, settings=used_up)
    service = MemoryService(used_up, database, influencers(database), asking)
    await service.extract([job])
    assert model.requests == []
    assert await database.read(lambda uow: values(uow, conversation)) == {"city": "Pune"}
    assert await database.read(lambda uow: uow.usage.has_open()) is False


async def test_a_transcribed_recording_is_a_source_and_an_unheard_one_is_none(database: Database) -> None:
    def prepare(uow: UnitOfWork) -> tuple[str, Job, Job]:
        conversation = open_conversation(uow)
        payloads = [answered(uow, conversation, text) for text in ("spoken", "silent")]
        spoken, silent = (payload["message_id"] for payload in payloads)
        uow.messages.update(spoken, audio="a", transcription="x", content="[Transcribed: I live in Pune]")
        uow.messages.update(silent, audio="a", content=VOICE_MESSAGE)
        first, second = (queued(uow, EXTRACT_JOB, payload) for payload in payloads)
        return conversation, first, second

    conversation, *jobs = await database.write(prepare)
    model = Scripted('{"facts": [{"key": "city", "value": "Pune"}]}')
    await memories_of(database, model).extract(list(jobs))
    assert (await memories_of(database, model).list_own("user", conversation))["total"] == 1
    assert "Transcribed" not in model.requests[0].messages[0].text


async def test_a_late_extraction_writes_nothing_for_what_is_gone_or_switched_off(database: Database) -> None:
    def prepare(uow: UnitOfWork) -> tuple[str, Job, Job]:
        conversation = open_conversation(uow)
        first = queued(uow, EXTRACT_JOB, answered(uow, conversation, "I live in Pune"))
        second = queued(uow, EXTRACT_JOB, answered(uow, conversation, "I live in Goa"))
        return conversation, first, second

    conversation, first, second = await database.write(prepare)
    service = memories_of(database, Scripted(), is_offline=True)
    await database.write(lambda uow: uow.settings.change("user", now(), memories_enabled=False))
    await service.extract([first])
    assert (await service.list_own("user", conversation))["total"] == 0

    def delete(uow: UnitOfWork) -> None:
        uow.settings.change("user", now(), memories_enabled=True)
        stored = uow.conversations.find_locked(conversation)
        assert stored is not None
        uow.memories.save(conversation, StoredMemory("city", "Pune", None, 1, 80, 1, 1))
        uow.conversations.delete(stored.id)

    await database.write(delete)
    await service.extract([second])
    assert await database.read(lambda uow: uow.memories.list_all(conversation)) == []
    left = await database.write(lambda uow: uow.jobs.lease_due(now() + 1, {EXTRACT_JOB: 10}))
    assert left == []


async def test_a_long_conversation_is_summarised_by_the_model_or_without_it(database: Database) -> None:
    def talk(uow: UnitOfWork, conversation: str, first: int) -> dict[str, str]:
        payload: dict[str, str] = {}
        for number in range(first, first + LEAST_MESSAGES // 2 + 2):
            payload = answered(uow, conversation, f"Topic {number} is on my mind. And more.")
        return payload

    def prepare(uow: UnitOfWork) -> tuple[str, Job]:
        conversation = open_conversation(uow)
        return conversation, queued(uow, EXTRACT_JOB, talk(uow, conversation, 0))

    conversation, job = await database.write(prepare)
    model = Scripted("They spoke of many topics. " * 100, None)
    summaries = SummaryService(SETTINGS, database, influencers(database), background(database, model))
    await memories_of(database, Scripted(), is_offline=True).extract([job])

    async def run() -> Summary:
        jobs = await database.write(lambda uow: uow.jobs.lease_due(now() + 60_000_000, {SUMMARISE_JOB: 10}))
        assert len(jobs) == 1
        await summaries.summarise(jobs)
        await summaries.summarise(jobs)  # the second run finds that it is done
        return await database.read(lambda uow: uow.memories.find_summary(conversation))

    first = await run()
    assert first.text.startswith("They spoke")
    assert first.text.endswith(".")
    assert len(first.text) <= SUMMARY_CHARACTERS
    assert "Topic 0" in model.requests[0].messages[0].text

    second_job = await database.write(lambda uow: queued(uow, EXTRACT_JOB, talk(uow, conversation, 50)))
    await memories_of(database, Scripted(), is_offline=True).extract([second_job])
    second = await run()
    assert second.through_seq > first.through_seq
    assert "The person said: Topic 50 is on my mind." in second.text
    assert "And more" not in second.text
    assert "Topic 56" not in second.text, "what is still in the window is not summarised"


async def test_a_summary_that_reaches_less_far_does_not_overwrite(database: Database) -> None:
    def unit(uow: UnitOfWork) -> None:
        conversation = open_conversation(uow)
        assert uow.memories.find_summary(conversation) == Summary()
        uow.memories.save_summary(conversation, Summary("late", 20), now())
        uow.memories.save_summary(conversation, Summary("early", 10), now())
        assert uow.memories.find_summary(conversation) == Summary("late", 20)

    await database.write(unit)


async def test_settings_are_the_defaults_until_they_are_saved(database: Database) -> None:
    user = new_id()
    assert await database.read(lambda uow: uow.settings.find(user)) == UserSettings()
    await database.write(lambda uow: uow.settings.change(user, now(), locale="hi-IN"))
    await database.write(lambda uow: uow.settings.change(user, now(), memories_enabled=False))
    assert await database.read(lambda uow: uow.settings.find_locale(user)) == "hi-IN"
    assert (await database.read(lambda uow: uow.settings.find(user))).memories_enabled is False
