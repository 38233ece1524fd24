"""A short life of a service, in which all happens once that its tables have a word for; then the power fails."""

import asyncio
from contextlib import AsyncExitStack

import httpx2
import orjson

from tests.api import people
from tests.client import PLAIN, Api, Document, messages
from tests.history.stored import is_at_rest
from tests.rows import add_influencer, fetch
from tests.service import FakeModel, Service
from tests.waiting import there, until
from yral_chat.db.tables import memories, turns

SETTINGS = {
    "MEMORIES_ENABLED": "true",
    "QUOTA_TOKENS_PER_USER_DAY": "100000000",
    "QUOTA_TOKENS_PER_INFLUENCER_DAY": "100000000",
    "STREAM_COALESCE_MS": "0",
}
FACTS = orjson.dumps({"facts": [{"key": "name", "value": "Ana", "confidence": 90}]}).decode()


async def live(service: Service, model: FakeModel) -> None:
    """Ana talks to two personas, to Ben and to Cas, and owns one; Dora has herself erased. In the end, the service is
    killed while it writes a reply."""
    service.settings |= {**SETTINGS, **model.picture_settings}
    model.tell(kinds={"structured": {"pieces": [FACTS]}})
    service.start()
    async with AsyncExitStack() as stack:
        document = Document(httpx2.get(f"{service.url}/openapi.json", verify=PLAIN).json())
        ana, ben, cas, dora = (Api(service.url, document, name) for name in ("ana", "ben", "cas", "dora"))
        for api in (ana, ben, cas, dora):
            stack.push_async_callback(api.close)
        await _talk_to_personas(ana, add_influencer(service, owner_id="ana"), model)
        await _talk_to_people(ana, ben, cas)
        await _be_erased(dora, ben)
        await until(there(lambda: bool(fetch(service, memories.select()))), what="a memory")
        await until(there(lambda: is_at_rest(service)), what="nothing runs and nothing waits")
        await _leave_in_the_middle(ana, service, model)


async def _talk_to_personas(ana: Api, own: str, model: FakeModel) -> None:
    first, second = (await ana.influencers())[:2]
    conversation = await ana.open(first["id"])
    await ana.open(second["id"])
    for number in range(3):
        await ana.said(conversation["id"], f"My name is Ana, {number}")
    await ana.post(f"{people.V1}/{conversation['id']}/read")
    model.tell(script=[{"status": 400}])
    await ana.send(conversation["id"], "This fails")
    picture = await ana.post(f"{people.V1}/{conversation['id']}/images", {"prompt": "a boat"})
    assert picture.status_code == 201, picture.text
    for text in ("You are brief.", "You are long."):
        path = f"/api/v1/influencers/{own}/system-prompt"
        assert (await ana.request("PATCH", path, json={"system_instructions": text})).status_code == 200


async def _talk_to_people(ana: Api, ben: Api, cas: Api) -> None:
    talk = (await people.open_with(ana, ben))["id"]
    for number in range(3):
        await people.wrote(ben if number else ana, talk, f"Number {number}")
    await ana.post(f"{people.V1}/{talk}/read")
    await ana.delete(f"{people.V1}/{talk}")
    for number in range(3):
        await people.wrote(ben, talk, f"Are you there, {number}")
    await people.wrote(ana, (await people.open_with(ana, cas))["id"], "Hello Cas")


async def _be_erased(dora: Api, ben: Api) -> None:
    await dora.said((await dora.open())["id"], "Forget me")
    talk = (await people.open_with(dora, ben))["id"]
    await people.wrote(dora, talk, "Forget this")
    await people.wrote(ben, talk, "I stay")
    assert (await dora.delete("/api/v1/users/me")).status_code == 200


async def _leave_in_the_middle(ana: Api, service: Service, model: FakeModel) -> None:
    conversation = (await ana.open((await ana.influencers())[1]["id"]))["id"]
    model.tell(default={"pieces": ["One", " two"], "chunk_delay": 60})
    body = {"message_type": "text", "content": "Tell me a long story"}
    async with ana.streaming("POST", f"{messages(conversation)}/stream", body) as (_, events):
        await anext(aiter(events))
        await until(there(lambda: bool(fetch(service, turns.select()))), what="a turn")
        await asyncio.to_thread(service.kill)
    model.reset()
