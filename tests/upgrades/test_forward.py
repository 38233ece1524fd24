"""What people had in a service of an earlier revision they have in this one."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest
from sqlalchemy import func, select

from tests.client import Api, Document, Json
from tests.crash.outside import whole_history
from tests.fakes.webhook import WebhookReceiver
from tests.files import fetched
from tests.rows import fetch
from tests.service import FakeModel, Service
from tests.upgrades.conftest import EARLIER, LeftBy
from tests.upgrades.dumps import DATA, faults_of
from tests.upgrades.life import AT_REST, CUT_OFF
from tests.upgrades.make import SETTINGS
from tests.upgrades.seen import Looking, differences, plain
from tests.waiting import there, until
from yral_chat.db.tables import counter_deltas, jobs, media_objects, turns

PEOPLE = (*AT_REST, "zoe")


class Upgraded:
    """A service of today on what an earlier one has left, with people of then and what they saw then."""

    def __init__(self, service: Service, revision: str, webhook: WebhookReceiver) -> None:
        self.service = service
        self.webhook = webhook
        self.seen: Json = plain(orjson.loads(gzip.decompress((DATA / revision / "seen.json.gz").read_bytes())))
        document = Document.of(service)
        self.looking = {name: Looking(service.url, document, name) for name in PEOPLE}

    def person(self, name: str) -> Api:
        return self.looking[name].api

    def has_settled(self) -> bool:
        """Nothing runs or waits. A push that is older than a day is given up, which is right."""
        waiting = (select(turns.c.id), select(counter_deltas.c.id), select(jobs.c.id).where(~jobs.c.is_dead))
        return not any(fetch(self.service, query) for query in waiting)

    def dead_jobs(self) -> set[str]:
        return {row.name for row in fetch(self.service, select(jobs.c.name))}


@pytest.fixture
async def upgraded(
    left_by: LeftBy, revision: str, tmp_path: Path, model: FakeModel, dialect: str
) -> AsyncIterator[Upgraded]:
    url = left_by(revision)
    async with AsyncExitStack() as stack:
        webhook = await stack.enter_async_context(WebhookReceiver(SETTINGS["PUSH_SECRET"]))
        told = {"PUSH_URL": webhook.url, "OPERATOR_WEBHOOK_URL": webhook.url, "UPLOAD_RETENTION_HOURS": "0.0001"}
        database = {"DATABASE_URL": url} if dialect == "postgresql" else {}
        service = Service(tmp_path, **model.settings, **SETTINGS | told | database)
        await asyncio.to_thread(stack.enter_context, service)
        upgraded = Upgraded(service, revision, webhook)
        for looking in upgraded.looking.values():
            stack.push_async_callback(looking.api.close)
        yield upgraded


@pytest.mark.parametrize("revision", EARLIER)
async def test_what_people_had_is_there_and_what_was_cut_off_is_finished(upgraded: Upgraded, revision: str) -> None:
    await until(there(upgraded.has_settled), what="everything that was left is done", seconds=30)
    for name in AT_REST:
        assert differences(upgraded.seen[name], await upgraded.looking[name].look()) == [], name
    await _files_are_there(upgraded)
    await _the_reply_is_finished(upgraded.person("zoe"))
    assert faults_of(upgraded.service.database_url) == []
    if revision >= "0003":
        assert upgraded.dead_jobs() <= {"push.send"}
        assert "influencer.banned" in {delivery.payload["type"] for delivery in upgraded.webhook.taken}
    await _life_goes_on(upgraded)
    assert faults_of(upgraded.service.database_url) == []


async def _files_are_there(upgraded: Upgraded) -> None:
    """The pictures and recordings of messages; what nobody used has expired."""
    found = [message for person in AT_REST for message in await _messages(upgraded.person(person))]
    urls = [url for message in found for url in (*message["media_urls"], message["audio_url"]) if url is not None]
    stored = fetch(upgraded.service, select(func.count()).select_from(media_objects))
    assert len(urls) == stored[0][0]
    for url in urls:
        assert (await fetched(url)).status_code == 200, url


async def _messages(person: Api) -> list[Json]:
    inbox = (await person.get("/api/v2/chat/conversations", params={"type": "all"})).json()["conversations"]
    return [message for conversation in inbox for message in await person.history(conversation["id"])]


async def _the_reply_is_finished(zoe: Api) -> None:
    """By a new attempt, and once: whoever sends again gets the same."""
    (question,) = [message for message in await _messages(zoe) if message["content"] == CUT_OFF]
    history = await whole_history(zoe, question["conversation_id"])
    (reply,) = [message for message in history if message["reply_to"] == question["id"]]
    assert (reply["status"], reply["content"], reply["attempt"]) == ("delivered", f"You said: {CUT_OFF}", 2)
    again = await zoe.said(question["conversation_id"], CUT_OFF, client_message_id=CUT_OFF)
    assert again == (question, reply)


async def _life_goes_on(upgraded: Upgraded) -> None:
    ada = upgraded.person("ada")
    for persona in (await ada.influencers())[:5]:
        conversation = await ada.open(persona["id"])
        _, reply = await ada.said(conversation["id"], "Still there?")
        assert reply["content"] == "You said: Still there?"
