"""Memories and settings through the wire: drawn behind the turn, given to the next prompt, deleted for good."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from tests.api.conftest import MakeUser, StartService
from tests.client import Api, Json, messages
from tests.rows import add_influencer, fetch
from tests.service import FakeModel, Service
from tests.waiting import there, until
from yral_chat.db.tables import jobs, summaries, usage_events
from yral_chat.services.summaries import SUMMARISE_JOB
from yral_chat.services.turns.replying import EXTRACT_JOB
from yral_chat.services.usage import RECORD_JOB

HEADING = "# What the person has told about themselves"


@pytest.fixture
def remembering(service_with: StartService, model: FakeModel) -> Service:
    """A service that remembers, with a short window."""
    model.tell(kinds={"structured": {"pieces": [facts()]}})
    return service_with(MEMORIES_ENABLED="true", HISTORY_MESSAGES="4")


@pytest.fixture
async def person(remembering: Service, user_of: MakeUser) -> AsyncIterator[Api]:
    """Somebody new, who leaves nothing to be done for the next test to count."""
    yield user_of(remembering)
    await settled(remembering)


def facts(**found: str) -> str:
    return orjson.dumps({"facts": [{"key": k, "value": v, "confidence": 90} for k, v in found.items()]}).decode()


def path(conversation: str, key: str = "") -> str:
    return f"/api/v1/chat/conversations/{conversation}/memories{'/' if key else ''}{key}"


async def memories(api: Api, conversation: str) -> list[Json]:
    response = await api.get(path(conversation))
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["conversation_id"] == conversation
    assert found["total"] == len(found["memories"])
    listed: list[Json] = found["memories"]
    return listed


async def remembered(api: Api, conversation: str, **expected: str) -> list[Json]:
    async def look() -> list[Json]:
        found = await memories(api, conversation)
        return found if {memory["key"]: memory["value"] for memory in found} == expected else []

    return await until(look, what=f"memories {expected}")


async def settled(service: Service) -> None:
    """Until everything behind the turns is done."""
    waiting = select(jobs.c.id).where(jobs.c.name.in_([EXTRACT_JOB, SUMMARISE_JOB, RECORD_JOB]))
    await until(there(lambda: not fetch(service, waiting)), what="jobs done")


def asked(model: FakeModel, *, is_structured: bool) -> list[dict[str, Any]]:
    """The bodies of the requests for a reply, or for facts."""
    bodies = [request["body"] for request in model.requests()]
    return [body for body in bodies if ("responseJsonSchema" in body["generationConfig"]) == is_structured]


def system_of(body: dict[str, Any]) -> str:
    text: str = body["systemInstruction"]["parts"][0]["text"]
    return text


async def test_a_fact_is_drawn_listed_and_given_to_the_next_prompts(
    person: Api, remembering: Service, model: FakeModel
) -> None:
    conversation = (await person.open(add_influencer(remembering, system_instructions="You adore riddles.")))["id"]
    model.tell(kinds={"structured": {"pieces": [facts(name="Rahul", city="Paris")]}})
    user_message, _ = await person.said(conversation, "Hi, I am Rahul!")
    [memory] = await remembered(person, conversation, name="Rahul")
    assert memory["source_message_id"] == user_message["id"]
    assert memory["updated_at"].endswith("Z")
    [source] = asked(model, is_structured=True)
    assert "riddles" not in orjson.dumps(source).decode()
    assert "You said" not in orjson.dumps(source).decode()
    await settled(remembering)
    model.tell(kinds={"structured": {"pieces": [facts()]}})
    for number in range(2):
        await person.said(conversation, f"Tell me a riddle {number}")
        await settled(remembering)
    before, first, second = map(system_of, asked(model, is_structured=False))
    assert HEADING not in before
    assert first.startswith(before)
    assert first.endswith('- name: "Rahul"')
    assert first == second
    await settled(remembering)
    usage = fetch(remembering, select(usage_events).where(usage_events.c.conversation_id == conversation))
    drawn = [row for row in usage if row.id.startswith("memories.extract:")]
    assert len(drawn) == 3
    assert all(row.prompt_tokens > 0 and row.user_id == person.user_id and row.outcome == "completed" for row in drawn)
    assert len({row.turn_id for row in usage}) == 3


async def test_replies_do_not_wait_for_an_extraction(person: Api, model: FakeModel) -> None:
    conversation = (await person.open())["id"]
    model.tell(kinds={"structured": {"pieces": [facts(city="Pune")], "first_byte_delay": 5}})
    await person.said(conversation, "I live in Pune")
    await until(there(lambda: len(asked(model, is_structured=True)) == 1), what="extraction under way")
    await person.said(conversation, "And how are you, in Pune?")
    assert await memories(person, conversation) == []
    await remembered(person, conversation, city="Pune")


async def test_a_later_message_supersedes_and_a_regenerated_reply_draws_nothing(
    person: Api, remembering: Service, model: FakeModel
) -> None:
    conversation = (await person.open())["id"]
    model.tell(kinds={"structured": {"pieces": [facts(city="Pune")]}})
    await person.said(conversation, "I live in Pune")
    await remembered(person, conversation, city="Pune")
    model.tell(kinds={"structured": {"pieces": [facts(lives_in="Delhi")]}})
    _, reply = await person.said(conversation, "I have moved to Delhi")
    await remembered(person, conversation, city="Delhi")
    count = len(asked(model, is_structured=True))
    response = await person.post(f"{messages(conversation)}/{reply['id']}/regenerate")
    assert response.status_code == 200, response.text
    await settled(remembering)
    assert len(asked(model, is_structured=True)) == count == 2


async def test_what_is_deleted_is_gone_from_the_next_prompt(
    person: Api, remembering: Service, model: FakeModel
) -> None:
    conversation = (await person.open())["id"]
    model.tell(kinds={"structured": {"pieces": [facts(pet="Biscuit", city="Pune", job="nurse")]}})
    await person.said(conversation, "I am a nurse in Pune and my cat is Biscuit")
    await remembered(person, conversation, pet="Biscuit", city="Pune", job="nurse")
    model.tell(kinds={"structured": {"pieces": [facts()]}})
    assert (await person.delete(path(conversation, "city"))).json() == {"deleted": 1}
    assert (await person.delete(path(conversation, "city"))).status_code == 404
    assert (await person.delete(path(conversation, "x" * 300))).status_code == 404
    await person.said(conversation, "hello")
    system = system_of(asked(model, is_structured=False)[-1])
    assert '- pet: "Biscuit"' in system
    assert "- city:" not in system
    assert (await person.delete(path(conversation))).json() == {"deleted": 2}
    assert (await person.delete(path(conversation))).json() == {"deleted": 0}
    await person.said(conversation, "hello again")
    assert HEADING not in system_of(asked(model, is_structured=False)[-1])


async def test_memories_are_their_persons_alone(person: Api, remembering: Service, user_of: MakeUser) -> None:
    owner, stranger = user_of(remembering), user_of(remembering)
    conversation = (await person.open(add_influencer(remembering, owner_id=owner.user_id)))["id"]
    for other in (owner, stranger):
        assert (await other.get(path(conversation))).status_code == 403
        assert (await other.delete(path(conversation))).status_code == 403
        assert (await other.delete(path(conversation, "city"))).status_code == 403
    human = (await person.post("/api/v1/chat/human/conversations", {"participant_id": owner.user_id})).json()["id"]
    assert (await person.get(path(human))).status_code == 409
    assert (await person.delete(path(human))).status_code == 409
    assert (await person.delete(path(human, "city"))).status_code == 409
    assert (await person.get(path("unknown"))).status_code == 404
    assert (await person.delete(path("unknown"))).status_code == 404


async def test_people_switch_it_off_for_themselves(person: Api, remembering: Service, model: FakeModel) -> None:
    conversation = (await person.open())["id"]
    model.tell(kinds={"structured": {"pieces": [facts(city="Pune")]}})
    await person.said(conversation, "I live in Pune")
    await remembered(person, conversation, city="Pune")
    answer = await person.request("PUT", "/api/v1/users/me/settings", json={"memories_enabled": False})
    assert answer.json() == {"memories_enabled": False, "locale": None, "time_zone": None}
    await person.said(conversation, "I really live in Pune")
    await settled(remembering)
    assert len(asked(model, is_structured=True)) == 1
    assert HEADING not in system_of(asked(model, is_structured=False)[-1])
    assert len(await memories(person, conversation)) == 1, "what is there can still be seen, and deleted"
    assert (await person.delete(path(conversation, "city"))).status_code == 200


async def test_a_deployment_that_does_not_remember_still_lists(api: Api, service: Service, model: FakeModel) -> None:
    conversation = (await api.open())["id"]
    await api.said(conversation, "My name is Rahul")
    assert await memories(api, conversation) == []
    await settled(service)
    assert asked(model, is_structured=True) == []


async def test_deleting_the_conversation_ends_what_would_be_drawn_from_it(
    person: Api, remembering: Service, model: FakeModel
) -> None:
    conversation = (await person.open())["id"]
    model.tell(kinds={"structured": {"pieces": [facts(city="Pune")], "is_held": True}})
    await person.said(conversation, "I live in Pune")
    await until(there(lambda: len(asked(model, is_structured=True)) == 1), what="extraction under way")
    assert (await person.delete(f"/api/v1/chat/conversations/{conversation}")).status_code == 200
    model.tell(release=100)
    await settled(remembering)
    assert (await person.get(path(conversation))).status_code == 404
    again = (await person.open())["id"]
    assert await memories(person, again) == []


async def test_a_vendor_that_is_down_is_asked_again(person: Api, model: FakeModel) -> None:
    conversation = (await person.open())["id"]
    model.tell(kinds={"structured": {"status": 503}})
    await person.said(conversation, "I live in Pune")
    await until(there(lambda: len(asked(model, is_structured=True)) > 1), what="extraction tried")
    model.tell(kinds={"structured": {"pieces": ["Here you are: ", facts(city="Pune")]}})
    await remembered(person, conversation, city="Pune")


async def test_a_long_conversation_is_carried_on_by_its_summary(
    person: Api, remembering: Service, model: FakeModel
) -> None:
    conversation = (await person.open(add_influencer(remembering)))["id"]
    for number in range(8):
        await person.said(conversation, f"Part {number} of a long story. It goes on.")

    def is_written() -> bool:
        return bool(fetch(remembering, select(summaries).where(summaries.c.conversation_id == conversation)))

    await until(there(is_written), what="summary")
    await person.said(conversation, "Where were we?")
    system = system_of(asked(model, is_structured=False)[-1])
    _, _, block = system.partition("# What was said before")
    assert "Part 0 of a long story" in block
    assert all(line.startswith("> ") for line in block.splitlines()[2:])


async def test_plain_statements_are_remembered_offline(service_with: StartService, user_of: MakeUser) -> None:
    person = user_of(service_with(MEMORIES_ENABLED="true", GEMINI_API_KEY=None, GEMINI_BASE_URL=None))
    conversation = (await person.open())["id"]
    await person.said(conversation, "My name is Priya and I live in Pune. I'm allergic to peanuts.")
    await remembered(person, conversation, name="Priya", city="Pune", allergies="peanuts")


# settings


async def change(api: Api, **body: Any) -> Any:
    return await api.request("PUT", "/api/v1/users/me/settings", json=body)


async def test_settings_have_defaults_and_take_any_of_them(api: Api, other: Api) -> None:
    defaults = {"memories_enabled": True, "locale": None, "time_zone": None}
    assert (await api.get("/api/v1/users/me/settings")).json() == defaults
    assert (await change(api)).json() == defaults
    assert (await change(api, locale="hi-latn-in")).json() == {**defaults, "locale": "hi-Latn-IN"}
    expected = {"memories_enabled": False, "locale": "hi-Latn-IN", "time_zone": "Asia/Kolkata"}
    assert (await change(api, memories_enabled=False, time_zone=" Asia/Kolkata ")).json() == expected
    assert (await change(api, memories_enabled=None, unknown=1)).json() == expected
    assert (await api.get("/api/v1/users/me/settings")).json() == expected
    assert (await change(api, locale=None, time_zone=None)).json() == expected, "null is as good as absent"
    assert (await change(api, locale="", time_zone=" ")).json() == {**defaults, "memories_enabled": False}
    assert (await other.get("/api/v1/users/me/settings")).json() == defaults


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("locale", "english please"),
        ("locale", "e"),
        ("locale", "x" * 101),
        ("locale", 7),
        ("time_zone", "Mars/Olympus"),
        ("time_zone", "../../etc/passwd"),
        ("time_zone", "/etc/localtime"),
        ("time_zone", "Asia"),
        ("time_zone", "a\x00b"),
        ("memories_enabled", "yes"),
        ("memories_enabled", 1),
    ],
)
async def test_settings_refuse_what_is_none(api: Api, field: str, value: object) -> None:
    response = await change(api, **{field: value})
    assert response.status_code == 422, response.text
    assert response.json()["details"]["errors"][0]["loc"] == ["body", field]


async def test_two_changes_at_once_keep_each_other(api: Api) -> None:
    await asyncio.gather(change(api, locale="en-IN"), change(api, time_zone="Asia/Kolkata"))
    found = (await api.get("/api/v1/users/me/settings")).json()
    assert found == {"memories_enabled": True, "locale": "en-IN", "time_zone": "Asia/Kolkata"}
