"""The process ends at the n-th unit of work of a send, for all n: exactly one reply, whatever n is."""

import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.client import Api, Event, messages
from tests.crash.conftest import MakeUser
from tests.crash.dying import MOMENTS, Moment
from tests.crash.outside import CUT, ended, open_turns, whole_history
from tests.faults.books import balanced
from tests.history.stored import is_at_rest
from tests.programs import PrivatePostgres
from tests.service import ROOT, FakeModel, Service
from tests.waiting import there, until
from yral_chat.db.verification import examine

# A send has about ten units, and what follows from it some more.
FEWEST = 8
MOST = 60
NEVER = 1_000_000


class Doom:
    """A service that dies at the n-th unit of each send, and who sends."""

    def __init__(self, service: Service, moment: Moment) -> None:
        self.service = service
        service.command = [sys.executable, "-m", "tests.crash.dying"]
        # A quota, so that something is held back for each reply that could be left so.
        quota = {"QUOTA_TOKENS_PER_USER_DAY": "100000000"}
        service.settings |= {"PYTHONPATH": str(ROOT), "DIE_WHEN": moment, **quota}

    def start(self, at: int) -> None:
        """Whatever the last one left behind is taken up by this one."""
        self.service.settings |= {"DIE_AT": str(at), "DIE_FOR": f"send-{at}"}
        self.service.start()

    @property
    def is_over(self) -> bool:
        return self.service.process.process.poll() is not None

    async def send(self, api: Api, conversation_id: str, content: str) -> list[Event]:
        """What reached the sender before the end, and whether there was one: see `is_over`."""
        found: list[Event] = []
        body = {"message_type": "text", "content": content, "client_message_id": content}
        path, headers = (
            f"{messages(conversation_id)}/stream",
            {"X-Correlation-ID": self.service.settings["DIE_FOR"] or ""},
        )
        with suppress(*CUT):
            async with api.streaming("POST", path, body, headers=headers) as (response, events):
                assert response.status_code == 200
                async for event in events:
                    found.append(event)  # noqa: PERF401 - those before the cut count
        await until(there(lambda: self.is_over or is_at_rest(self.service)), what="the end, or rest", seconds=30)
        return found


async def check(api: Api, conversation_id: str, content: str, seen: list[Event]) -> None:
    """After the restart: what was acknowledged is there, and the same key gives the one reply."""
    found = [message for message in await whole_history(api, conversation_id) if message["content"] == content]
    assert len(found) <= 1
    if seen:
        assert [message["id"] for message in found] == [seen[0].data["user_message"]["id"]]
    if found:  # it goes on without being asked
        (reply,) = [entry for entry in await whole_history(api, conversation_id) if entry["reply_to"] == found[0]["id"]]
        assert (await ended(api, conversation_id, reply["id"]))["status"] == "delivered"
    user, reply = await api.said(conversation_id, content, client_message_id=content)
    assert reply["content"] == f"You said: {content}"
    if found:
        assert user["id"] == found[0]["id"]
    if seen and seen[-1].event == "done":
        told = seen[-1].data["assistant_message"]
        assert {**reply, "attempt": told["attempt"]} == told, "what was told as done stays as it was"
    newest = (await whole_history(api, conversation_id))[-2:]
    assert [message["id"] for message in newest] == [user["id"], reply["id"]]


async def sweep(doom: Doom, new_user: MakeUser, step: int = 1) -> int:
    """Returns the last n at which it died: the next one was not reached before everything was done."""
    doom.start(at=1)
    api = new_user(doom.service)
    conversation = await api.open()
    number, reached, is_over = 1, 0, True
    while is_over:
        content = f"dies at {number}"
        seen = await doom.send(api, conversation["id"], content)
        is_over = doom.is_over
        doom.service.kill()
        assert examine(doom.service.database_url).faults == []
        number = number + step if is_over else NEVER
        doom.start(at=number)
        await check(api, conversation["id"], content, seen)
        assert number in (*range(MOST), NEVER)
        reached = number - step if is_over else reached
    assert open_turns(doom.service) == 0
    await balanced(doom.service)
    return reached


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_send_that_dies_at_any_unit_of_work_has_one_reply(
    sqlite_service: Service, new_user: MakeUser, model: FakeModel, moment: Moment
) -> None:
    assert await sweep(Doom(sqlite_service, moment), new_user) >= FEWEST


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["run", "committed"])
async def test_the_same_on_postgresql_at_some_of_them(
    postgres: PrivatePostgres, tmp_path: Path, new_user: MakeUser, model: FakeModel, moment: Moment
) -> None:
    service = Service(tmp_path, DATABASE_URL=postgres.create_database(), **model.settings)
    try:
        assert await sweep(Doom(service, moment), new_user, step=3) >= FEWEST - 3
    finally:
        service.__exit__(None, None, None)
