"""People write to the running server while what they had lost comes back into the same conversations."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx2
import pytest

from tests.api.people import open_with, read, wrote
from tests.client import PLAIN, Api, Document, Json
from tests.service import Service
from tests.services.restores.conftest import MakeCopy
from tests.services.restores.world import World, seqs
from tests.waiting import there, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

KEY = "the-key-of-the-operator"
# More than two pages of each conversation.
OLD = 220
LONG = 450


class Crowd:
    """Ann talks with a persona and with Ben, who answers, until it is `over` or the server is gone."""

    def __init__(self, url: str, document: Document) -> None:
        self.ann, self.ben = Api(url, document, "ann"), Api(url, document, "ben")
        self.over = False
        self.acknowledged: dict[str, list[str]] = {"talk": [], "ann": [], "ben": []}
        self.chat = self.pair = ""

    async def open(self) -> None:
        self.chat = (await self.ann.open("bot"))["id"]
        self.pair = (await open_with(self.ann, self.ben))["id"]
        assert (await open_with(self.ben, self.ann))["id"] == self.pair  # until then he does not see it

    def start(self) -> None:
        self._people = [asyncio.create_task(self._go_on(name)) for name in self.acknowledged]

    async def end(self) -> None:
        """Once it is over, or the server is gone."""
        await asyncio.gather(*self._people)

    async def _go_on(self, name: str) -> None:
        told = self.acknowledged[name]
        number = len(told)
        try:
            while not self.over:
                number += 1
                await self._say(name, f"{name} {number}")
                told.append(f"{name} {number}")
        except httpx2.TransportError:
            return  # whether this one was stored nobody knows

    async def _say(self, name: str, text: str) -> None:
        if name == "talk":
            await self.ann.said(self.chat, text)
            return
        api = self.ann if name == "ann" else self.ben
        await wrote(api, self.pair, text)
        if text.endswith("5"):
            await read(api, self.pair)

    async def have_gone_on(self) -> None:
        """Everybody has said something more than now."""
        then = {name: len(told) for name, told in self.acknowledged.items()}

        def have_they() -> bool:
            for person in self._people:
                if person.done():
                    person.result()
            return all(len(told) > then[name] + 2 for name, told in self.acknowledged.items())

        await until(there(have_they), what="everybody goes on", seconds=60)

    async def close(self) -> None:
        await self.ann.close()
        await self.ben.close()


async def restoring(service: Service, **wanted: str) -> AsyncIterator[Json]:
    """The lines of the answer, as they come."""
    async with (
        httpx2.AsyncClient(base_url=service.url, headers={"X-Admin-Key": KEY}, verify=PLAIN, timeout=60) as client,
        client.stream("POST", "/api/v1/admin/restores", json={"file": "copy-1.db", **wanted}) as response,
    ):
        assert response.status_code == 200
        async for line in response.aiter_lines():
            yield json.loads(line)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_nothing_is_lost_or_doubled(
    world: World, take_copy: MakeCopy, own_service: Service, document: Document, *, is_killed: bool
) -> None:
    old_chat = await world.say("ann", *(f"old {number}" for number in range(OLD)))
    old_pair = await world.write("ann", "ben", *(f"old {number}" for number in range(LONG)))
    take_copy()
    await world.delete("ann", old_chat)
    for person in ("ann", "ben"):
        await world.delete(person, old_pair)
    await world.settle()
    await world.database.close()
    own_service.settings |= {
        "DATABASE_URL": world.database_url, "DATA_DIR": str(world.folder), "ADMIN_API_KEY": KEY,
    }  # fmt: skip
    own_service.start()
    crowd = Crowd(own_service.url, document)
    await crowd.open()
    crowd.start()
    await crowd.have_gone_on()
    for conversation in (old_chat, old_pair):
        if is_killed:
            await cut_off(own_service, conversation)
            await crowd.end()
            own_service.start()
            crowd.start()
        lines = [line async for line in restoring(own_service, conversation_id=conversation)]
        assert "result" in lines[-1], lines[-1]
        await crowd.have_gone_on()
    crowd.over = True
    await crowd.end()
    await crowd.close()
    assert own_service.stop() == 0
    await world.database.open()
    await world.check()
    questions = [f"old {number}" for number in range(OLD)]
    chat = [text for _, text in seqs(world, crowd.chat) if text != "Hello!"]
    assert chat[: 2 * OLD] == [text for question in questions for text in (question, f"Yes: {question}")]
    check_new(chat[2 * OLD :], crowd.acknowledged["talk"])
    pair = [text for _, text in seqs(world, crowd.pair)]
    assert pair[:LONG] == [f"old {number}" for number in range(LONG)]
    for name in ("ann", "ben"):
        check_new([text for text in pair[LONG:] if text.startswith(name)], crowd.acknowledged[name])


async def cut_off(service: Service, conversation: str) -> None:
    """The server is killed in the middle, as far as it has not ended already."""
    with suppress(httpx2.TransportError):
        async for line in restoring(service, conversation_id=conversation):
            if line.get("done"):
                service.kill()


def check_new(found: list[str], acknowledged: list[str]) -> None:
    """Everything that was acknowledged is there in its order, and nothing twice."""
    told = set(acknowledged)
    assert [text for text in found if text in told] == acknowledged
    assert max(Counter(text for text in found if text in told).values()) == 1
