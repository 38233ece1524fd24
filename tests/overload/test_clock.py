"""The machine's clock is set by an hour while the service runs: no order is lost, no lease stolen, no job late."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from tests.client import Api, Document, text_of
from tests.rows import fetch
from tests.service import FakeModel, Service, token
from tests.waiting import until
from yral_chat.core.clock import SECOND, now
from yral_chat.db.tables import jobs, turns

HOUR = 3600
LAUNCHER = Path(__file__).with_name("moved_clock.py")


class Clock:
    """What the service takes for the present."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(0)

    def set(self, seconds: int) -> None:
        """So many seconds from the real time."""
        part = self.file.with_suffix(".part")
        part.write_text(str(seconds))
        part.replace(self.file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "offset")


@pytest.fixture
def service(tmp_path: Path, clock: Clock, model: FakeModel) -> Iterator[Service]:
    # The shortest leases, which are looked at all the time.
    service = Service(tmp_path, TURN_STALE_SECONDS="2", **model.settings)
    service.command = [sys.executable, str(LAUNCHER), str(clock.file), "serve"]
    with service:
        yield service


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Api]:
    client = Api(service.url, Document.of(service))
    client.http.headers["Authorization"] = f"Bearer {token(client.user_id, ttl_seconds=10 * HOUR)}"
    yield client
    await client.close()


async def renewed(service: Service, offset: int) -> None:
    """Waits until the lease of the running turn was renewed after the jump: until then it looked like an orphan's."""

    async def look() -> bool:
        ((until_,),) = fetch(service, select(turns.c.lease_until))
        left: float = until_ - now() - offset * SECOND
        return 0 < left <= 2 * SECOND

    await until(look, what="a lease of the new time")


@pytest.mark.long
@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_jump_in_the_middle_of_a_reply_changes_nothing(
    service: Service, api: Api, clock: Clock, model: FakeModel, jump: int
) -> None:
    conversation = await api.open()
    await api.said(conversation["id"], "Before")
    model.tell(script=[{"chunks": 60, "is_held": True}], default={"echo": True}, release=5)
    streaming = asyncio.create_task(api.stream(conversation["id"], "In between"))
    await until(lambda: _runs(service), what="the turn")
    clock.set(jump)
    await renewed(service, jump)
    model.tell(release=100)
    events = await streaming
    assert [event.event for event in events if event.event != "token"] == ["start", "done"]
    assert events[-1].data["assistant_message"]["attempt"] == 1
    assert text_of(events) == "word " * 60
    await api.said(conversation["id"], "After")
    clock.set(0)  # and back: the other way round
    await api.said(conversation["id"], "At last")
    history = await api.history(conversation["id"])
    assert [message["content"] for message in history if message["role"] == "user"] == [
        "Before", "In between", "After", "At last",
    ]  # fmt: skip
    times = [message["created_at"] for message in history]
    assert times == sorted(set(times))
    assert {message["attempt"] for message in history} == {1}
    assert model.state()["requests"] == 4

    async def all_done() -> bool:
        ((left,),) = fetch(service, select(func.count()).select_from(jobs))
        return bool(left == 0)

    await until(all_done, what="what follows the replies, whenever it was queued")


async def _runs(service: Service) -> bool:
    return len(fetch(service, select(turns.c.id))) == 1
