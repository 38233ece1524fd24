"""Health, readiness, figures and documentation: contract section 6."""

import asyncio
import re

import httpx2
import pytest
from sqlalchemy import select

from tests.api.conftest import MakeUser
from tests.api.expecting import asked, open_fresh, refused
from tests.api.sockets import address, closing, socket_at
from tests.client import PLAIN, Api, Document, Json
from tests.rows import add_influencer, fetch
from tests.service import FakeModel, Service, token
from tests.waiting import until
from yral_chat.db.tables import usage_events

SERVICES = {
    "database", "storage", "event_bus", "identity", "push", "profiles", "images", "speech", "transcription", "backup",
    "llm_gemini",
}  # fmt: skip
SERIES = {
    "http_requests_total", "http_request_duration_seconds", "http_requests_in_progress", "turns_total",
    "turns_in_progress", "turn_duration_seconds", "turn_first_token_seconds", "ai_tokens_total",
    "circuit_breaker_state", "ws_connections", "rate_limit_exceeded_total", "db_pool_in_use",
}  # fmt: skip


async def read(api: Api, path: str) -> Json:
    body: Json = (await api.get(path)).json()
    return body


# --- root


async def test_the_root_tells_where_things_are(api: Api) -> None:
    response = await api.get("/", headers={"Accept": "application/json"})
    body = response.json()
    assert body == {
        "service": body["service"],
        "version": body["version"],
        "status": "running",
        "docs": "/docs",
        "health": "/health",
        "metrics": "/metrics",
    }
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", body["version"])
    assert "Accept" in response.headers["vary"]


async def test_a_browser_gets_the_page_at_the_root(service: Service) -> None:
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        page = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert page.headers["content-type"].startswith("text/html")
        assert "Accept" in page.headers["vary"]
        assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/health/ready"])
async def test_head_works_on_service_routes(service: Service, path: str) -> None:
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        response = await client.head(path)
    assert (response.status_code, response.content) == (200, b"")


# --- health


async def test_health_shows_every_part(api: Api) -> None:
    body = await read(api, "/health")
    assert body["status"] == "healthy"
    assert body["services"].keys() == SERVICES
    for name, state in body["services"].items():
        assert state.keys() == {"status", "circuit", "latency_ms", "error", "pool_size", "pool_free"}
        assert state["status"] in ("up", "disabled"), name
        assert state["error"] is None
    database, model = body["services"]["database"], body["services"]["llm_gemini"]
    assert (database["status"], database["circuit"]) == ("up", None)
    assert database["latency_ms"] >= 0
    assert 0 <= database["pool_free"] <= database["pool_size"]
    assert (model["status"], model["circuit"]) == ("up", "closed")


async def test_health_asks_no_model(api: Api, model: FakeModel) -> None:
    for _ in range(3):
        await read(api, "/health")
    assert model.state()["requests"] == 0


async def test_an_open_circuit_degrades_health(own_service: Service, user_of: MakeUser, model: FakeModel) -> None:
    own_service.settings |= {"BREAKER_FAILURES": "2", "BREAKER_OPEN_SECONDS": "600"}
    api = user_of(own_service.start())
    conversation = await open_fresh(api, own_service)
    model.tell(models={"gemini-2.5-flash": {"status": 503}, "gemini-3.5-flash-lite": {"echo": True}})
    await api.said(conversation["id"], "Hello")
    body = await read(api, "/health")
    assert body["services"]["llm_gemini"]["circuit"] == "closed", "the best circuit of its models"
    assert body["status"] == "healthy"
    text = (await api.get("/metrics")).text
    assert re.search(r'circuit_breaker_state\{service="llm_gemini:gemini-2.5-flash"\} 2\.0', text)
    assert re.search(r'circuit_breaker_state\{service="llm_gemini:gemini-3.5-flash-lite"\} 0\.0', text)
    model.tell(models={"gemini-3.5-flash-lite": {"status": 503}})
    refused(await api.send(conversation["id"], "Again"), 503, "ai_unavailable")
    response = await api.get("/health")
    state = response.json()["services"]["llm_gemini"]
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert (state["status"], state["circuit"], bool(state["error"])) == ("down", "open", True)
    assert (await read(api, "/health/ready"))["status"] == "ready", "the service can still be used"


async def test_live_and_ready(api: Api) -> None:
    assert await read(api, "/health/live") == {"status": "alive"}
    assert await read(api, "/health/ready") == {
        "status": "ready",
        "checks": {"database": True, "migrations": True, "draining": False},
    }


async def test_a_draining_service_answers_everything_but_new_turns(
    own_service: Service, user_of: MakeUser, model: FakeModel
) -> None:
    own_service.settings["SHUTDOWN_GRACE_SECONDS"] = "6"
    own_service.start()
    api = user_of(own_service)
    done, ended, cut = [await open_fresh(api, own_service) for _ in range(3)]
    await api.said(done["id"], "Before", client_message_id="k")
    model.tell(script=[{"pieces": ["Just", " in", " time"], "chunk_delay": 0.4}, {"pieces": ["Too"], "stall_after": 1}])
    ends = asyncio.create_task(api.send(ended["id"], "Quick"))
    await until(lambda: asked(model, 2), what="the first to be asked")
    waits = asyncio.create_task(api.send(cut["id"], "Slow"))
    await until(lambda: asked(model, 3), what="the second to be asked")
    reads = asyncio.create_task(api.stream(cut["id"], "Slow"))
    stopping = asyncio.create_task(asyncio.to_thread(own_service.stop))

    async def draining() -> bool:
        return (await api.get("/health/ready")).status_code == 503

    await until(draining, what="the drain to begin")
    not_ready = await read(api, "/health/ready")
    assert not_ready == {
        "status": "not_ready",
        "checks": {"database": True, "migrations": True, "draining": True},
    }
    assert await read(api, "/health/live") == {"status": "alive"}
    assert len(await api.history(done["id"])) == 3
    error = refused(await api.send(done["id"], "New"), 503, "service_unavailable")
    assert "service" in error["details"]
    again = await api.send(done["id"], "Before", client_message_id="k")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    async with socket_at(address(api.url, api.user_id, token=token(api.user_id))) as late:
        code, _ = await closing(late)
        assert code == 1012
    # What ends in time ends well; what does not is handed back.
    assert (await ends).json()["assistant_message"]["content"] == "Just in time"
    error = refused(await waits, 504, "turn_timeout")
    assert error["details"]["assistant_message"]["status"] in ("pending", "streaming")
    last = (await reads)[-1]
    assert (last.event, last.data["code"], last.data["turn_running"]) == ("error", "TRANSIENT", True)
    assert await stopping == 0
    own_service.start()

    async def taken_over() -> Json | None:
        row: Json = (await api.history(cut["id"], include="unfinished"))[-1]
        return row if row["status"] == "delivered" else None

    reply = await until(taken_over, what="the turn to be taken over")
    assert (reply["content"], reply["attempt"]) == ("You said: Slow", 2)
    assert len(await api.history(done["id"], include="unfinished")) == 3, "what was refused is not stored"
    # Both attempts have cost something, and each is recorded once.
    query = select(usage_events.c.provider, usage_events.c.outcome).where(usage_events.c.turn_id == reply["id"])

    async def recorded() -> bool:
        found = sorted(tuple(row) for row in fetch(own_service, query))
        return found == [("gemini", "cancelled"), ("gemini", "completed")]

    await until(recorded, what="the usage of both attempts")


# --- figures


async def test_status_counts_what_there_is(own_service: Service, user_of: MakeUser) -> None:
    service = own_service.start()
    api = user_of(service)
    before = await read(api, "/status")
    assert before.keys() == {
        "service", "version", "environment", "uptime_seconds", "database", "statistics", "timestamp",
    }  # fmt: skip
    assert (before["environment"], before["database"]["connected"]) == ("test", True)
    assert before["database"].keys() == {"connected", "pool_size", "active_connections"}
    first, second = await open_fresh(api, service), await open_fresh(api, service)
    add_influencer(service, status="coming_soon")
    await api.said(first["id"], "Hello")

    async def counted() -> bool:
        now = (await read(api, "/status"))["statistics"]
        grown = {name: now[name] - before["statistics"][name] for name in now}
        return grown == {"total_conversations": 2, "total_messages": 4, "active_influencers": 2}

    await until(counted, what="two conversations with four messages")
    await api.delete(f"/api/v1/chat/conversations/{second['id']}")

    async def counted_down() -> bool:
        now = (await read(api, "/status"))["statistics"]
        return bool(now["total_conversations"] - before["statistics"]["total_conversations"] == 1)

    await until(counted_down, what="one conversation less")


async def test_metrics_are_prometheus_text(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    await api.said(conversation["id"], "Hello")
    await api.get("/there/is/no/such/path")

    async def has_turn() -> bool:
        return 'outcome="completed"' in (await api.get("/metrics")).text

    await until(has_turn, what="the turn to be counted")
    response = await api.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = response.text
    # A counter's TYPE line has its full name in text 0.0.4.
    assert set(re.findall(r"^# TYPE (\w+)", text, re.M)) >= SERIES
    assert 'endpoint="/api/v1/chat/conversations/{conversation_id}/messages"' in text
    assert 'endpoint="unmatched"' in text
    assert conversation["id"] not in text
    assert re.search(r'turns_total\{model="gemini-2.5-flash",outcome="completed",provider="gemini"\} [1-9]', text)
    assert re.search(r'ai_tokens_total\{kind="output",model="gemini-2.5-flash",provider="gemini"\} [1-9]', text)


# --- documentation


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_documentation_can_be_switched_off(
    service: Service, impatient: Service, document: Document, path: str
) -> None:
    async with httpx2.AsyncClient(base_url=service.url, verify=PLAIN) as client:
        assert (await client.get(path)).status_code == 200
    async with httpx2.AsyncClient(base_url=impatient.url, verify=PLAIN) as client:
        refused(await client.get(path), 404, "not_found")
        assert (await client.get("/")).status_code == 200


async def test_usage_rows_tell_what_a_turn_cost(api: Api, service: Service) -> None:
    conversation = await open_fresh(api, service)
    _, reply = await api.said(conversation["id"], "Hello")
    query = select(usage_events).where(usage_events.c.conversation_id == conversation["id"])

    async def recorded() -> bool:
        return len(fetch(service, query)) == 1

    await until(recorded, what="the usage")
    (row,) = fetch(service, query)
    assert (row.turn_id, row.user_id, row.outcome) == (reply["id"], api.user_id, "completed")
    assert (row.provider, row.model) == ("gemini", "gemini-2.5-flash")
    assert (row.prompt_tokens, row.cached_tokens, row.output_tokens) == (11, 3, reply["token_count"])


async def test_usage_is_kept_of_a_turn_whose_conversation_is_deleted(
    api: Api, service: Service, model: FakeModel
) -> None:
    """The vendor bills what it has said, whoever still wants to read it."""
    conversation = await open_fresh(api, service)
    model.tell(default={"pieces": ["Once", " upon"], "stall_after": 1})
    sending = asyncio.create_task(api.send(conversation["id"], "Hello"))
    await until(lambda: asked(model, 1), what="the model to be asked")
    assert (await api.delete(f"/api/v1/chat/conversations/{conversation['id']}")).status_code == 200
    refused(await sending, 404, "not_found")
    query = select(usage_events.c.outcome).where(usage_events.c.conversation_id == conversation["id"])

    async def recorded() -> bool:
        return [row.outcome for row in fetch(service, query)] == ["cancelled"]

    await until(recorded, what="the usage")
