"""The history checker: random people, a random vendor, and a killer; afterwards the books must balance."""

import asyncio
import os
import random
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
import pytest
from sqlalchemy import text

from tests.history import checks
from tests.history.inbox import Inbox
from tests.history.killer import Killer
from tests.history.people import CONVERSATIONS, Person
from tests.history.record import READABLE, Record
from tests.history.remembering import check_memories, check_recall
from tests.history.stored import Stored, is_at_rest
from tests.history.talks import acquaint
from tests.history.vendor import RandomVendor
from tests.rows import fetch
from tests.service import Service
from tests.waiting import until

PEOPLE = 8
DEVICES = 4
# Of `seconds`, on a machine on which less happens in them.
MOST_TURNS = 3
SOCKETS = 2
# Longer than any turn may take that was accepted in the last moment, and the jobs behind it: what a killed
# process had taken is free after a minute, and what has failed seven times waits another.
REST_SECONDS = 200.0
SHOWN = 25
LONGEST = 3000


class World:
    """Everybody who takes part in one run."""

    def __init__(self, service: Service, vendor: RandomVendor, seed: int) -> None:
        self.rng = random.Random(seed)
        self.record = Record()
        self.service = service
        self.vendor = vendor
        self.killer = Killer(service, self.record, self._another())
        self.people: list[Person] = []
        self.inboxes: list[Inbox] = []

    def _another(self) -> random.Random:
        return random.Random(self.rng.getrandbits(64))

    async def populate(self) -> None:
        async with aiohttp.ClientSession() as session, session.get(f"{self.killer.url}/api/v1/influencers") as answer:
            influencers = [entry["id"] for entry in orjson.loads(await answer.read())["influencers"]][:4]
        for number in range(PEOPLE):
            person = Person(f"person-{number}", self.killer, self.record, self._another(), influencers)
            self.people.append(person)
            self.inboxes += [Inbox(person, self.record, self._another()) for _ in range(SOCKETS)]
        acquaint(self.people)

    async def live(self, seconds: float) -> None:
        """Everybody does as they like, for so long."""
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as tasks:
            for person in self.people:
                for _ in range(DEVICES):
                    tasks.create_task(person.act(end))
            for inbox in self.inboxes:
                tasks.create_task(inbox.listen(end))
            tasks.create_task(self.killer.rage(end - min(5.0, seconds / 4)))

    async def rest(self) -> None:
        """Until nothing runs or waits any more."""
        self.vendor.is_well = True

        async def is_at_rest_now() -> bool:
            return await asyncio.to_thread(is_at_rest, self.service)

        await until(is_at_rest_now, what="nothing runs and nothing waits", seconds=REST_SECONDS)

    async def listen_to_the_end(self) -> None:
        """Every device comes back once more and gets what it missed."""
        query = text("SELECT id, last_event_seq FROM principals")
        newest = {row.id: row.last_event_seq for row in fetch(self.service, query)}
        for person, inbox in zip([person for person in self.people for _ in range(SOCKETS)], self.inboxes, strict=True):
            if inbox.last_seq is not None and inbox.last_seq < newest[person.id]:
                await inbox.connect(10, stops_at=newest[person.id])
                self.record.require(
                    inbox.last_seq == newest[person.id], "missed events", has=inbox.last_seq, is_=newest[person.id]
                )

    async def look_at_everything(self, stored: Stored) -> None:
        """What the routes say at the end is what is stored."""
        for person in self.people:
            mine = {
                key: row
                for key, row in stored.conversations.items()
                if row.user_id == person.id and row.influencer_id is not None
            }
            for version in ("v1", "v2"):
                page = (await person.request("GET", f"/api/{version}/chat/conversations", query={"limit": "100"})).body
                shown = {entry["id"]: entry for entry in page["conversations"]}
                self.record.require(page["total"] == len(mine) and set(shown) == set(mine), "a wrong list", page=page)
                for key, row in mine.items():
                    self.record.require(shown[key]["message_count"] == row.message_count, "a wrong count", row=row)
            await self._look_at_inbox(person, stored)

    async def _look_at_inbox(self, person: Person, stored: Stored) -> None:
        """The unified one, and every history in it."""
        page = (await person.request("GET", "/api/v3/chat/conversations", query={"limit": "100"})).body
        person.talks.check_inbox(page)
        sides = [row for row in stored.participants if row.principal_id == person.id and not row.is_hidden]
        sides.sort(key=lambda row: (-row.updated_at, row.conversation_id))
        has = [(entry["id"], entry["unread_count"]) for entry in page["conversations"]]
        is_ = [(row.conversation_id, row.unread_count) for row in sides]
        self.record.require(has == is_, "a wrong inbox", has=has, is_=is_)
        for side in sides:
            await self._look_at_history(person, side, stored)

    async def _look_at_history(self, person: Person, side: Any, stored: Stored) -> None:
        conversation = side.conversation_id
        history = [row for row in stored.history[conversation] if row.seq > side.cleared_seq]
        for include, rows in (("", [row for row in history if row.is_listed]), ("unfinished", history)):
            found = [message async for message in _pages(person, conversation, include)]
            has, is_ = [message["id"] for message in found], [row.id for row in rows]
            self.record.require(has == is_, "a history that is not the stored one", has=has, is_=is_)
            self.record.saw_all(found, self.record.tick())


async def _pages(person: Person, conversation: str, include: str) -> AsyncIterator[dict[str, Any]]:
    """The whole history, oldest first, by keyset."""
    query = {"order": "asc", "limit": "37", "include": include}
    while True:
        page = (await person.request("GET", f"{CONVERSATIONS}/{conversation}/messages", query=query)).body
        for message in page["messages"]:
            yield message
        if not page["has_more"]:
            return
        query["after"] = page["messages"][-1]["id"]


async def _run(service: Service, seconds: float, seed: int) -> Record:
    async with AsyncExitStack() as stack:
        vendor = await stack.enter_async_context(RandomVendor(random.Random(seed + 1)))
        service.settings |= {"GEMINI_BASE_URL": vendor.base_url_gemini}
        world = World(service, vendor, seed)
        await world.killer.start()
        await world.populate()
        for person in world.people:
            await stack.enter_async_context(person.alive())
        for _ in range(MOST_TURNS):
            await world.live(seconds)
            if world.record.operations["talk"] > 2 * seconds:  # of which some are refused or cut
                break
        await world.rest()
        await world.listen_to_the_end()
        stored = Stored(service)
        await world.look_at_everything(stored)
        record = world.record
        checks.check_rows(stored, record)
        checks.check_talks(stored, record)
        check_memories(stored, record)
        check_recall(record, vendor)
        checks.check_popularity(stored, record, passing=world.people[0].passing)
        checks.check_acknowledged(stored, record)
        checks.check_replies(stored, record, vendor)
        checks.check_prompts(stored, record, vendor)
        checks.check_usage(stored, record)
        checks.check_events(stored, record)
        status = await asyncio.to_thread(service.stop)
        record.require(status == 0, "stopped with another status", status=status)
        await world.killer.examine()
        record.operations["model call"] = len(vendor.calls)
        record.operations["stored talk"] = sum(
            stored.conversations[row.conversation_id].influencer_id is None for row in stored.messages.values()
        )
        record.operations["stored message"] = len(stored.messages)
        record.operations["delivered reply"] = sum(row.origin == "model" and row.status in READABLE
                                                   for row in stored.messages.values())  # fmt: skip
        return record


def _report(record: Record, seed: int) -> str:
    kinds = Counter(violation.partition(":")[0] for violation in record.violations)
    lines = [
        f"HISTORY_SEED={seed}",
        f"operations: {dict(record.operations)}",
        f"answers: {dict(record.answers)}",
        f"violations: {dict(kinds)}",
        *(f"- {violation[:LONGEST]}" for violation in record.violations[:SHOWN]),
    ]
    return "\n".join(lines)


async def _check(service: Service, seconds: float) -> None:
    seed = int(os.environ.get("HISTORY_SEED", secrets.randbelow(2**32)))
    record = await _run(service, seconds, seed)
    report = _report(record, seed)
    sys.stdout.write(f"{report}\n")
    assert not record.violations, report
    # A run in which nothing happened proves nothing.
    assert record.operations["delivered reply"] > seconds, report
    assert record.operations["kill -9"] >= 1, report
    assert record.operations["durable event"] > 0, report
    assert record.operations["stored talk"] > seconds, report
    assert record.operations["recalled memory"] > 0, report


@pytest.mark.timeout(400)
async def test_history_holds_when_the_process_is_killed(own_service: Service) -> None:
    await _check(own_service, float(os.environ.get("HISTORY_SECONDS", "20")))


@pytest.mark.long
@pytest.mark.timeout(1500)
async def test_history_holds_for_long(own_service: Service) -> None:
    await _check(own_service, float(os.environ.get("HISTORY_SECONDS", "180")))
