"""Everything at once, by several users: no failure of ours, and in the end every count is what the history says."""

import asyncio
import random

import httpx2
from sqlalchemy import func, select

from tests.api.conftest import MakeUser
from tests.api.expecting import GREETING
from tests.client import Api, Json, messages
from tests.rows import add_influencer, fetch
from tests.service import FakeModel, Service
from tests.waiting import until
from yral_chat.db.tables import conversations as conversation_rows
from yral_chat.db.tables import messages as message_rows
from yral_chat.db.tables import participants, turns

USERS, OPERATIONS = 4, 30
V1 = "/api/v1/chat/conversations"
# What a client that does things at the wrong moment may be told.
EXPECTED = {200, 201, 404, 409, 422, 429}
# Events of the log that speak of a mistake of ours.
TROUBLES = (
    "request.failed", "websocket.failed", "turn.crashed", "turns.maintenance_failed", "after_commit.failed",
    "job.failed", "jobs.round_failed", "chore.failed", "inbox.gap",
)  # fmt: skip


class Visitor:
    """Somebody who does one random thing after another."""

    def __init__(self, api: Api, influencer_ids: list[str], seed: int) -> None:
        self.api = api
        self.influencer_ids = influencer_ids
        self.random = random.Random(seed)
        self.answers: list[httpx2.Response] = []

    async def roam(self) -> None:
        for number in range(OPERATIONS):
            operation = self.random.choice(
                [self.send, self.send, self.repeat, self.stream, self.cancel, self.regenerate, self.read, self.look]
                + [self.delete] * (number % 9 == 8)
            )
            conversation = await self.api.open(self.random.choice(self.influencer_ids))
            answer = await operation(conversation)
            if answer is not None:
                self.answers.append(answer)

    async def send(self, conversation: Json) -> httpx2.Response:
        return await self.api.send(conversation["id"], f"Number {self.random.random()}")

    async def repeat(self, conversation: Json) -> httpx2.Response:
        return await self.api.send(conversation["id"], "Again", client_message_id=f"k{self.random.randrange(3)}")

    async def stream(self, conversation: Json) -> None:
        """Reads some events and leaves."""
        body = {"message_type": "text", "content": f"Stream {self.random.random()}"}
        async with self.api.streaming("POST", f"{messages(conversation['id'])}/stream", body) as (response, events):
            assert response.status_code in EXPECTED
            left = self.random.randrange(4)
            async for _ in events:
                left -= 1
                if left < 0:
                    break

    async def newest(self, conversation: Json) -> str:
        rows = (await self.api.get(messages(conversation["id"]), params={"include": "unfinished", "limit": 1})).json()
        return str(rows["messages"][0]["id"]) if rows.get("messages") else "none"

    async def cancel(self, conversation: Json) -> httpx2.Response:
        return await self.api.post(f"{messages(conversation['id'])}/{await self.newest(conversation)}/cancel")

    async def regenerate(self, conversation: Json) -> httpx2.Response:
        return await self.api.post(f"{messages(conversation['id'])}/{await self.newest(conversation)}/regenerate")

    async def read(self, conversation: Json) -> httpx2.Response:
        return await self.api.post(f"{V1}/{conversation['id']}/read")

    async def look(self, conversation: Json) -> httpx2.Response:
        return await self.api.get(f"{V1}/{conversation['id']}")

    async def delete(self, conversation: Json) -> httpx2.Response:
        return await self.api.delete(f"{V1}/{conversation['id']}")


async def test_counts_are_what_the_history_says_whatever_happened(
    service: Service, user_of: MakeUser, model: FakeModel
) -> None:
    influencer_ids = [add_influencer(service, initial_greeting=GREETING) for _ in range(2)]
    model.tell(default={"pieces": ["One", " two", " three"], "chunk_delay": 0.01})
    users = [user_of(service) for _ in range(USERS)]
    # Two of everybody: the same person on two devices.
    visitors = [Visitor(user, influencer_ids, seed) for seed, user in enumerate(users * 2)]
    await asyncio.gather(*(visitor.roam() for visitor in visitors))
    statuses = {answer.status_code for visitor in visitors for answer in visitor.answers}
    assert statuses <= EXPECTED
    assert statuses >= {200, 409}, "the mixture is worth something"

    mine = select(conversation_rows.c.id).where(conversation_rows.c.influencer_id.in_(influencer_ids))

    async def settled() -> bool:
        return not fetch(service, select(turns.c.id).where(turns.c.conversation_id.in_(mine)))

    await until(settled, what="all turns to end")
    for user in users:
        page = (await user.get(V1)).json()
        assert page["total"] == len(page["conversations"])
        for conversation in page["conversations"]:
            await check(user, service, conversation)
    # Nor did any test before this one bring the service to a point that nobody has thought of.
    troubles = [line for line in service.process.lines if any(name in line for name in TROUBLES)]
    assert not troubles


async def check(api: Api, service: Service, conversation: Json) -> None:
    """The inbox row against the history, and the history against its rules."""
    history = await api.history(conversation["id"])
    complete = await api.history(conversation["id"], include="unfinished")
    assert conversation["message_count"] == len(history)
    unread = [row for row in history if row["role"] == "assistant" and row["status"] == "delivered"]
    assert conversation["unread_count"] == len(unread)
    final = [row for row in history if row["role"] == "user" or row["status"] in ("delivered", "read", "cancelled")]
    assert conversation["last_message"]["id"] == final[-1]["id"]
    assert conversation["last_message"]["status"] == final[-1]["status"]
    assert conversation["recent_messages"] == history[::-1][:10]
    assert not [row for row in complete if row["status"] in ("pending", "streaming")]
    sequences = [row["sequence"] for row in complete]
    assert sequences == sorted(set(sequences))
    times = [row["created_at"] for row in complete]
    assert times == sorted(set(times))
    questions = [row["id"] for row in complete if row["role"] == "user"]
    replies = [row["reply_to"] for row in complete if row["origin"] == "model"]
    assert replies == questions, "each question has one reply, next to it in order"
    (bot_unread,) = fetch(
        service,
        select(participants.c.unread_count).where(
            participants.c.conversation_id == conversation["id"],
            participants.c.principal_id == conversation["influencer_id"],
        ),
    )[0]
    said = select(func.count()).where(
        message_rows.c.conversation_id == conversation["id"], message_rows.c.role == "user"
    )
    assert bot_unread == fetch(service, said)[0][0], "nobody reads the bot's side here"
