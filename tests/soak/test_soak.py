"""A long ordinary day: whatever people do all the time may not make the process grow.

`SOAK_SECONDS` says how long it lasts. What is stored grows, and only that: memory, files, tasks, the write-ahead log
and the queues are gated on their slope.
"""

import asyncio
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.client import PLAIN, Api, Document, Json
from tests.files import uploaded
from tests.service import FakeModel, Service, token
from tests.waiting import until

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
PEOPLE = 6
SAMPLE_SECONDS = 1.0
# What a warm process has: caches are filled, pools are open, SQLite's pages are in memory.
WARM_UP = 0.4
PAUSE_SECONDS = 0.05  # of a person between two things
MEBIBYTE = 1024 * 1024


class Sample(msgspec.Struct, frozen=True):
    """What the process holds at one moment; memory and log in bytes."""

    memory: float
    files: float
    tasks: float
    log: float
    waiting: float  # jobs

    @classmethod
    def of(cls, page: str, log: Path) -> "Sample":
        return cls(
            memory=_sum(page, "process_resident_memory_bytes"),
            files=_sum(page, "process_open_fds"),
            tasks=_sum(page, "asyncio_tasks"),
            log=float(log.stat().st_size if log.exists() else 0),
            waiting=_sum(page, "job_queue_depth"),
        )


# Most by which each may grow per minute, above the noise. People do some 2,000 things a minute here: a kilobyte left
# behind by each, or a task by each hundredth, would be more. (Two minutes have some warming up left in them; five show
# a growth of 0.01 MiB.) The log is reused from its beginning at 1,000 pages and must stay where it is.
MOST_PER_MINUTE = Sample(memory=2 * MEBIBYTE, files=20, tasks=20, log=1 * MEBIBYTE, waiting=20)
MOST_LOG_BYTES = 16 * MEBIBYTE


def _sum(page: str, name: str) -> float:
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
    assert found, f"there is no series {name}"
    return sum(map(float, found))


class Person:
    """Does, one after the other, whatever people do."""

    def __init__(self, api: Api, service: Service, seed: int, done: Counter[str]) -> None:
        self.api = api
        self.service = service
        self.rng = random.Random(seed)
        self.done = done
        self.conversation: Json = {}

    async def live(self, end: float) -> None:
        self.conversation = await self.api.open()
        habits: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (30, self.send), (20, self.stream), (10, self.leave_a_stream), (20, self.look), (5, self.send_a_picture),
            (5, self.connect), (3, self.regenerate), (2, self.begin_anew), (3, self.err),
        ]  # fmt: skip
        weights, deeds = zip(*habits, strict=True)
        while asyncio.get_running_loop().time() < end:
            (deed,) = self.rng.choices(deeds, weights)
            await deed()
            self.done[deed.__name__] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    @property
    def id(self) -> str:
        return str(self.conversation["id"])

    @property
    def text(self) -> str:
        return f"number {self.rng.random()}"

    async def send(self) -> None:
        assert (await self.api.send(self.id, self.text)).status_code == 200

    async def stream(self) -> None:
        assert (await self.api.stream(self.id, self.text))[-1].event == "done"

    async def leave_a_stream(self) -> None:
        body = {"message_type": "text", "content": self.text}
        path = f"/api/v1/chat/conversations/{self.id}/messages/stream"
        async with self.api.streaming("POST", path, body) as (_, events):
            async for _event in events:
                return

    async def look(self) -> None:
        for path in ("/api/v2/chat/conversations", f"/api/v1/chat/conversations/{self.id}/messages"):
            assert (await self.api.get(path, params={"limit": 20})).status_code == 200
        await self.api.post(f"/api/v1/chat/conversations/{self.id}/read")

    async def send_a_picture(self) -> None:
        key = (await uploaded(self.api, "image"))["storage_key"]
        assert (await self.api.send(self.id, "", message_type="image", media_urls=[key])).status_code == 200

    async def connect(self) -> None:
        url = f"{self.service.url.replace('http', 'ws')}/api/v1/chat/ws/inbox/{self.api.user_id}"
        protocols = [Subprotocol("bearer"), Subprotocol(token(self.api.user_id))]
        async with connect(url, subprotocols=protocols) as socket:
            await self.send()
            await socket.recv()

    async def regenerate(self) -> None:
        newest = (await self.api.history(self.id, order="desc", limit=1))[0]
        await self.api.post(f"/api/v1/chat/conversations/{self.id}/messages/{newest['id']}/regenerate")

    async def begin_anew(self) -> None:
        await self.api.delete(f"/api/v1/chat/conversations/{self.id}")
        self.conversation = await self.api.open()

    async def err(self) -> None:
        assert (await self.api.get("/api/v1/chat/conversations/unknown")).status_code == 404
        assert (await self.api.send(self.id, "")).status_code == 422


@pytest.fixture
async def soaked(tmp_path: Path, model: FakeModel) -> AsyncIterator[Service]:
    # With a small cache, because a growing database would fill it for an hour.
    with Service(tmp_path, MEMORIES_ENABLED="true", DATABASE_CACHE_MB="1", **model.settings) as running:
        yield running


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 120)
async def test_a_long_day_leaves_nothing_behind(soaked: Service, model: FakeModel) -> None:
    model.tell(default={"chunks": 8, "chunk_delay": 0.01}, kinds={"structured": {"pieces": ['{"facts": []}']}})
    done: Counter[str] = Counter()
    document = Document.of(soaked)
    apis = [Api(soaked.url, document) for _ in range(PEOPLE)]
    log = Path(f"{soaked.folder}/data/yral_chat.db-wal")
    samples: list[tuple[float, Sample]] = []
    async with httpx2.AsyncClient(base_url=soaked.url, verify=PLAIN) as operator:

        async def sample() -> Sample:
            return Sample.of((await operator.get("/metrics")).text, log)

        async def watch() -> None:
            while True:
                samples.append((time.monotonic() / 60, await sample()))
                await asyncio.sleep(SAMPLE_SECONDS)

        before = await sample()
        watching = asyncio.create_task(watch())
        end = asyncio.get_running_loop().time() + SECONDS
        async with asyncio.TaskGroup() as people:
            for number, api in enumerate(apis):
                people.create_task(Person(api, soaked, number, done).live(end))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        for api in apis:
            await api.close()

        async def is_at_rest() -> bool:
            after = await sample()
            # Connections to the vendor are kept for their next use.
            return after.waiting == 0 and after.tasks <= before.tasks and after.files <= before.files + 2 * PEOPLE

        try:
            await until(is_at_rest, what="everything that was opened is closed", seconds=30)
        except AssertionError as error:
            error.add_note(f"before {before}, now {await sample()}")
            raise
    sys.stdout.write(f"{dict(done)}\n")
    check(samples[round(len(samples) * WARM_UP) :])


def check(timed: list[tuple[float, Sample]]) -> None:
    """Raises AssertionError when one of the series, each with its time in minutes, rises too fast."""
    minutes, samples = zip(*timed, strict=True)
    for name in Sample.__struct_fields__:
        series = [getattr(sample, name) for sample in samples]
        slope = statistics.linear_regression(minutes, series).slope
        sys.stdout.write(f"{name}: {slope:.1f} a minute, from {series[0]} to {series[-1]}\n")
        assert slope <= getattr(MOST_PER_MINUTE, name), f"{name} grows by {slope:.1f} a minute: {series}"
    assert max(sample.log for sample in samples) <= MOST_LOG_BYTES
