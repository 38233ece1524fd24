"""Crash reports as Sentry receives them: a real receiver on loopback, and a service with the extra `sentry`."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from tests.fakes.recorder import Recorder
from tests.observing.conftest import MakeUser
from tests.rows import execute
from tests.service import FakeModel, Service
from tests.waiting import there, until
from yral_chat.db.tables import influencers

MARK = "zqmark"

pytestmark = pytest.mark.long


def events_of(receiver: Recorder) -> list[dict[str, Any]]:
    """https://develop.sentry.dev/sdk/data-model/envelopes/: headers of the envelope, then of an item, then the item."""
    events = []
    for found in receiver.of("/api/1/envelope/"):
        _, *parts = found.body.strip().split(b"\n")
        for header, item in zip(parts[::2], parts[1::2], strict=True):
            if json.loads(header)["type"] == "event":
                events.append(json.loads(item))
    return events


async def test_a_crash_is_reported_without_anything_that_somebody_wrote(
    tmp_path: Path, user_of: MakeUser, model: FakeModel
) -> None:
    with Recorder() as receiver:
        dsn = receiver.url.replace("http://", "http://the-key@") + "/1"
        with Service(tmp_path, SENTRY_DSN=dsn, CACHE_TTL_SECONDS="0.001", **model.settings) as service:
            api = user_of(service, f"{MARK}-user", {"X-Correlation-ID": "crash-1"})
            conversation = await api.open()
            assert (await api.http.get(f"/api/v1/influencers/{MARK}")).status_code == 404
            model.tell(default={"status": 400})
            assert (await api.send(conversation["id"], MARK)).status_code == 503
            execute(service, update(influencers).values(suggested_messages=f'["{MARK}'))
            body = {"note": MARK}
            crashed = await api.http.request("GET", f"/api/v1/influencers?limit=7&q={MARK}", json=body)
            assert crashed.status_code == 500
            await until(there(lambda: bool(events_of(receiver))), what="a report")
            assert service.process.end(signal.SIGTERM) == 0
        [event] = events_of(receiver)  # neither the refusal nor the vendor's failure is one
        assert event["tags"] == {"correlation_id": "crash-1", "endpoint": "/api/v1/influencers"}
        assert event["transaction"] == "request.failed"
        assert event["environment"] == "test"
        assert event["exception"]["values"][-1]["stacktrace"]["frames"]
        assert not event.keys() & {"request", "user", "breadcrumbs", "extra", "contexts", "modules", "server_name"}
        assert all("vars" not in frame for value in event["exception"]["values"] for frame in _frames(value))
        assert all(MARK.encode() not in found.body for found in receiver.received)


def _frames(value: dict[str, Any]) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = value.get("stacktrace", {}).get("frames", [])
    return frames


async def test_a_dead_receiver_changes_nothing(tmp_path: Path, user_of: MakeUser, model: FakeModel) -> None:
    with Recorder(hangs=True) as receiver:
        dsn = receiver.url.replace("http://", "http://the-key@") + "/1"
        with Service(tmp_path, SENTRY_DSN=dsn, CACHE_TTL_SECONDS="0.001") as service:
            api = user_of(service)
            await api.open()
            execute(service, update(influencers).values(suggested_messages="["))
            for _ in range(5):
                assert (await api.http.get("/api/v1/influencers")).status_code == 500
            await api.close()
            assert service.stop() == 0


def test_what_is_no_dsn_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="SENTRY_DSN is no DSN") as raised:
        Service(tmp_path, SENTRY_DSN="nonsense").start()
    assert "nonsense" not in str(raised.value)
