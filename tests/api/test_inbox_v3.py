"""The unified inbox: contract section 13.1; and that counts are what the histories say, whatever two people did."""

import asyncio
import random
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from tests.api.conftest import MakeUser
from tests.api.expecting import GREETING, open_fresh, refused
from tests.api.people import HUMAN, V1, V2, V3, delete, ids, inbox, open_with, read, seen, write, wrote
from tests.client import Api, Json, messages
from tests.rows import add_influencer, fetch
from tests.service import Service
from yral_chat.db.tables import conversations as conversation_rows
from yral_chat.db.tables import participants, principals


async def test_personas_and_people_are_in_one_list(api: Api, other: Api, service: Service) -> None:
    with_persona = await open_fresh(api, service)
    chat = (await open_with(other, api))["id"]
    await wrote(other, chat, "Hello")
    page = await inbox(api)
    assert ids(page) == [chat, with_persona["id"]], "newest first"
    assert (page["total"], page["limit"], page["offset"], page["unread_total"]) == (2, 20, 0, 2)
    human, ai = page["conversations"]
    assert (human["conversation_type"], human["user"]["principal_id"]) == ("human_chat", other.user_id)
    assert (ai["conversation_type"], ai["user"], ai["influencer"]["id"]) == (
        "ai_chat", None, with_persona["influencer_id"],
    )  # fmt: skip
    assert ai["influencer"]["suggested_messages"] == []
    assert "recent_messages" not in human
    await api.said(with_persona["id"], "Hello")
    assert ids(await inbox(api)) == [with_persona["id"], chat]


async def test_each_list_has_its_types(api: Api, other: Api, service: Service) -> None:
    ai = (await open_fresh(api, service))["id"]
    human = (await open_with(api, other))["id"]
    expected: list[tuple[str, Json, list[str]]] = [
        (V1, {}, [ai]),
        (V2, {}, [ai]),
        (V2, {"principal": api.user_id}, [human, ai]),
        (V2, {"principal": api.user_id, "type": "ai"}, [ai]),
        (V2, {"type": "human"}, [human]),
        (V2, {"type": "all"}, [human, ai]),
        (HUMAN, {}, [human]),
        (V3, {}, [human, ai]),
        (V3, {"type": ""}, [human, ai]),
        (V3, {"type": "ai"}, [ai]),
        (V3, {"type": "human"}, [human]),
    ]
    for path, query, wanted in expected:
        page = await inbox(api, path, **query)
        assert (ids(page), page["total"]) == (wanted, len(wanted)), (path, query)


async def test_only_what_is_unread(api: Api, service: Service, user_of: MakeUser) -> None:
    quiet = await open_fresh(api, service)
    await read(api, quiet["id"])
    ai = (await open_fresh(api, service))["id"]
    friends = [user_of(service) for _ in range(3)]
    chats = [(await open_with(friend, api))["id"] for friend in friends]
    for friend, chat in zip(friends, chats, strict=True):
        await wrote(friend, chat, "One")
        await wrote(friend, chat, "Two")
    await read(api, chats[0])
    for query, wanted in (({}, [chats[2], chats[1], ai]), ({"type": "human"}, chats[:0:-1]), ({"type": "ai"}, [ai])):
        page = await inbox(api, unread_only="true", **query)
        assert (ids(page), page["total"], page["unread_total"]) == (wanted, len(wanted), 5)
    assert (await inbox(api, unread_only="false"))["total"] == 5
    assert ids(await inbox(api, unread_only=True, limit=1, offset=1)) == [chats[1]]
    await delete(api, chats[2])
    assert (await inbox(api, unread_only=True, type="human"))["total"] == 1
    assert (await inbox(api))["unread_total"] == 3


async def test_pages_have_no_gap_and_no_repetition(api: Api, service: Service, user_of: MakeUser) -> None:
    for _ in range(3):
        await open_fresh(api, service)
        await open_with(api, user_of(service))
    whole = ids(await inbox(api))
    assert len(set(whole)) == 6
    collected: list[str] = []
    for offset in range(0, 8, 2):
        collected += ids(await inbox(api, limit=2, offset=offset))
    assert collected == whole


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"offset": "-1"}, {"type": "robots"}, {"unread_only": "perhaps"}]
)
async def test_what_is_out_of_range_is_refused(api: Api, query: Json) -> None:
    error = refused(await api.get(V3, params=query), 422, "validation_error")
    assert error["details"]["errors"][0]["loc"] == ["query", *query]


async def test_what_others_say_to_a_bot_is_not_its_namesakes(api: Api, service: Service, user_of: MakeUser) -> None:
    bot = add_influencer(service, owner_id=api.user_id, initial_greeting=GREETING)
    conversation = await user_of(service).open(bot)
    namesake = user_of(service, bot)
    own = (await open_with(namesake, api))["id"]
    with_persona = (await open_fresh(namesake, service))["id"]
    page = await inbox(namesake)
    assert (set(ids(page)), page["total"], page["unread_total"]) == ({own, with_persona}, 2, 1)
    assert ids(await inbox(api, V2, principal=bot)) == [conversation["id"]], "nor is the namesake's the owner's"


# --- whatever happened

EXPECTED = {200, 201, 404, 409}
OPERATIONS = 20


class Friend:
    """One device of somebody who does one random thing after another with somebody else."""

    def __init__(self, api: Api, other: Api, seed: int) -> None:
        self.api = api
        self.other = other
        self.random = random.Random(seed)
        self.acts: set[str] = set()

    async def live(self) -> set[int]:
        """Returns the statuses that came back."""
        statuses = set()
        for number in range(OPERATIONS):
            chat = (await open_with(self.api, self.other))["id"]
            act = self.random.choice([self.say, self.say, self.repeat, self.read, self.look, self.leave])
            if act == self.leave and number % 3:
                act = self.say
            self.acts.add(act.__name__)
            statuses.add((await act(chat)).status_code)
            if act == self.leave:  # whether the other device gets there in this moment is left to chance
                statuses.add((await self.look(chat)).status_code)
        return statuses

    async def say(self, chat: str) -> httpx2.Response:
        return await write(self.api, chat, f"Number {self.random.random()}")

    async def repeat(self, chat: str) -> httpx2.Response:
        return await self.api.send(chat, "Again", client_message_id=f"k{self.random.randrange(3)}")

    async def read(self, chat: str) -> httpx2.Response:
        return await self.api.post(f"{V1}/{chat}/read")

    async def look(self, chat: str) -> httpx2.Response:
        return await self.api.get(messages(chat), params={"limit": 5})

    async def leave(self, chat: str) -> httpx2.Response:
        return await self.api.delete(f"{V1}/{chat}")


async def test_counts_are_what_the_histories_say_whatever_two_people_did(service: Service, user_of: MakeUser) -> None:
    users = [user_of(service) for _ in range(3)]
    pairs = [(users[a], users[b]) for a in range(3) for b in range(3) if a != b]
    # Each pair with two devices on each side.
    friends = [Friend(api, other, seed) for seed, (api, other) in enumerate(pairs * 2)]
    statuses = set().union(*await asyncio.gather(*(friend.live() for friend in friends)))
    assert statuses <= EXPECTED
    assert 200 in statuses
    acts = set().union(*(friend.acts for friend in friends))
    assert acts == {"say", "repeat", "read", "look", "leave"}, "the mixture is worth something"
    last = friends[0]
    chat = (await open_with(last.api, last.other))["id"]
    await last.leave(chat)
    assert (await last.look(chat)).status_code == 404  # before, somebody may have shown it again each time
    for user in users:
        await check(user, service)


async def check(api: Api, service: Service) -> None:
    """The inbox against the histories, and both against the rows."""
    page = await inbox(api, limit=100)
    unread = 0
    for row in page["conversations"]:
        history = await api.history(row["id"])
        assert row["message_count"] == len(history)
        theirs = [message for message in history if message["sender_id"] != api.user_id]
        assert row["unread_count"] == sum(message["status"] == "delivered" for message in theirs)
        unread += row["unread_count"]
        assert row["last_message"] == (summary(history[-1]) if history else None)
        assert (await seen(api, row["id"]))["recent_messages"] == history[::-1][:10]
        sequences = [message["sequence"] for message in history]
        assert sequences == sorted(set(sequences))
        times = [message["created_at"] for message in history]
        assert times == sorted(set(times))
    assert (page["total"], page["unread_total"]) == (len(page["conversations"]), unread)
    shown = select(conversation_rows.c.id).join(participants).where(
        participants.c.principal_id == api.user_id, participants.c.is_hidden.is_(False)
    )  # fmt: skip
    assert {row[0] for row in fetch(service, shown)} == set(ids(page))
    counted = select(principals.c.human_conversations).where(principals.c.id == api.user_id)
    assert fetch(service, counted) == [(page["total"],)]


def summary(message: Json) -> Json:
    """As the inbox shows it."""
    fields: tuple[Any, ...] = (
        "id", "content", "role", "message_type", "created_at", "status", "is_read", "sender_id",
    )  # fmt: skip
    return {name: message[name] for name in fields}
