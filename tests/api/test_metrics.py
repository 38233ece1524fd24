"""What `/metrics` says after traffic, and what strangers cannot make of it: contract section 6."""

import asyncio
import re

import httpx2
import pytest

from tests.api import people
from tests.api.conftest import MakeUser
from tests.api.expecting import open_fresh
from tests.api.sockets import describe, inbox_of
from tests.client import PLAIN, Api
from tests.service import FakeModel, Service
from tests.waiting import until

STRANGE = 1000


async def value(api: Api, sample: str) -> float:
    """Of one sample, with its labels as they stand in the text; 0 where it is not there."""
    text = (await api.get("/metrics")).text
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


async def test_units_of_work_and_jobs_are_timed(api: Api, service: Service) -> None:
    samples = [
        'db_unit_seconds_count{kind="read"}',
        'db_unit_seconds_count{kind="write"}',
        'job_duration_seconds_count{name="turns.record"}',
        'job_duration_seconds_count{name="counters.fold"}',
        "event_loop_lag_seconds_count",
    ]
    before = {sample: await value(api, sample) for sample in samples}
    failed = await value(api, 'db_units_failed_total{kind="write"}')
    conversation = await open_fresh(api, service)
    await api.said(conversation["id"], "Hello")

    async def all_grown() -> bool:
        return all([await value(api, sample) > before[sample] for sample in samples])

    await until(all_grown, what="all of them to grow")
    assert await value(api, 'db_units_failed_total{kind="write"}') == failed
    assert await value(api, "db_up") == 1
    assert await value(api, "db_pool_size") > 0
    assert await value(api, "disk_free_bytes") > 0


async def test_a_refused_unit_is_no_failure_of_the_database(api: Api, service: Service) -> None:
    before = await value(api, 'db_units_failed_total{kind="read"}')
    for _ in range(3):
        assert (await api.get("/api/v1/chat/conversations/no-such-conversation")).status_code == 404
    assert await value(api, 'db_units_failed_total{kind="read"}') == before


async def test_an_event_counts_once_for_each_socket(api: Api, other: Api, service: Service) -> None:
    chat = await people.open_with(api, other)
    frames = await describe(service.url)
    async with inbox_of(other, frames) as first, inbox_of(other, frames) as second:
        await asyncio.gather(first.settle(), second.settle())
        before = await value(api, "ws_events_sent_total")
        await people.wrote(api, chat["id"], "Hello")
        for inbox in (first, second):
            await inbox.take_until("new_message")
        assert await value(api, "ws_events_sent_total") - before >= 2


@pytest.mark.long
async def test_memories_are_counted_by_what_was_found(
    own_service: Service, user_of: MakeUser, model: FakeModel
) -> None:
    own_service.settings |= {"MEMORIES_ENABLED": "true"}
    own_service.start()
    api = user_of(own_service)
    assert await value(api, 'memory_extractions_total{outcome="found"}') == 0
    facts = '{"facts": [{"key": "name", "value": "Ravi", "confidence": 0.9, "quote": "My name is Ravi"}]}'
    model.tell(kinds={"structured": {"pieces": [facts]}})
    conversation = await open_fresh(api, own_service)
    await api.said(conversation["id"], "My name is Ravi")

    async def counted() -> bool:
        found, nothing = [
            await value(api, f'memory_extractions_total{{outcome="{it}"}}') for it in ("found", "nothing")
        ]
        return found + nothing == 1

    await until(counted, what="the turn to be looked through")


async def test_strangers_add_no_series(api: Api, service: Service) -> None:
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as stranger:

        async def ask(number: int) -> None:
            await stranger.request(f"BREW{number}", f"/wp-admin/{number}.php")
            if number % 10 == 0:
                await stranger.request(f"BREW{number}", "/api/v1/influencers")

        await ask(0)  # unmatched and OTHER have their series from here on
        before = names_in((await api.get("/metrics")).text)
        for start in range(0, STRANGE, 50):
            await asyncio.gather(*(ask(number) for number in range(start, start + 50)))
        after = names_in((await api.get("/metrics")).text)
    # A chore of the service may have begun meanwhile; strangers have no part in it.
    assert len(after - before) < STRANGE / 50
    assert not any("wp-admin" in name or "BREW" in name for name in after)


def names_in(text: str) -> set[str]:
    """The samples with their labels."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
