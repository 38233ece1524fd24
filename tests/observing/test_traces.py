"""Spans as a collector receives them: a real OTLP receiver on loopback, and a service with the extra `otel`."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.client import messages
from tests.fakes.recorder import Recorder
from tests.observing.conftest import MakeUser
from tests.service import FakeModel, Service
from tests.waiting import there, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
MARK = "zqmark"

pytestmark = pytest.mark.long


class Spans:
    """What a collector has received."""

    def __init__(self, collector: Recorder) -> None:
        self._collector = collector

    def all(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(found.body) for found in self._collector.of("/v1/traces")]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        request = ExportTraceServiceRequest.FromString(self._collector.of("/v1/traces")[0].body)
        return attributes_of(request.resource_spans[0].resource)

    def named(self, name: str, trace_id: str = TRACE) -> list[Any]:
        return [span for span in self.all() if span.name == name and span.trace_id.hex() == trace_id]

    async def wait(self, name: str, trace_id: str = TRACE) -> Any:
        await until(there(lambda: bool(self.named(name, trace_id))), what=f"the span {name}")
        return self.named(name, trace_id)[0]


def attributes_of(part: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in part.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def traced(folder: Path, model: FakeModel, endpoint: str, **settings: str) -> Service:
    return Service(
        folder,
        **model.settings,
        OTEL_ENABLED="true",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_BSP_SCHEDULE_DELAY="100",
        MEMORIES_ENABLED="true",
        BREAKER_FAILURES="1000",
        **settings,
    )


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, model_process: FakeModel, collector: Recorder
) -> Iterator[Service]:
    with traced(tmp_path_factory.mktemp("traced"), model_process, collector.url) as running:
        yield running


async def test_a_send_is_one_trace_from_the_client_to_the_jobs(
    service: Service, collector: Recorder, user_of: MakeUser, model: FakeModel
) -> None:
    api = user_of(service, f"{MARK}-user")
    conversation = await api.open()
    body = {"message_type": "text", "content": f"{MARK} I live in Pune."}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "X-Correlation-ID": "send-1"}
    assert (await api.request("POST", messages(conversation["id"]), json=body, headers=headers)).status_code == 200
    spans = Spans(collector)

    request = await spans.wait("POST /api/v1/chat/conversations/{conversation_id}/messages")
    assert request.parent_span_id.hex() == PARENT
    assert request.trace_state == "vendor=1"
    assert request.kind == request.SPAN_KIND_SERVER
    seen = attributes_of(request)
    assert seen["http.request.method"] == "POST"
    assert seen["http.route"] == "/api/v1/chat/conversations/{conversation_id}/messages"
    assert (seen["http.response.status_code"], seen["yral.correlation_id"]) == (200, "send-1")
    assert len(seen["user.hash"]) == 16

    turn = await spans.wait("turn reply")
    assert turn.parent_span_id == request.span_id
    assert attributes_of(turn)["yral.turn.outcome"] == "completed"

    call, *_ = [span for span in spans.named("chat gemini-2.5-flash") if span.parent_span_id == turn.span_id]
    asked = attributes_of(call)
    assert call.kind == call.SPAN_KIND_CLIENT
    assert (asked["gen_ai.provider.name"], asked["gen_ai.request.model"]) == ("gcp.gemini", "gemini-2.5-flash")
    assert asked["gen_ai.usage.input_tokens"] > 0
    assert asked["gen_ai.usage.output_tokens"] > 0
    assert (asked["gen_ai.operation.name"], asked["yral.outcome"]) == ("chat", "completed")
    # The vendor is told of the very span that stands for the call.
    assert model.requests()[0]["headers"]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"

    accepted = await spans.wait("TurnService.send.accept")
    assert accepted.parent_span_id == request.span_id
    assert attributes_of(accepted) == {"db.system.name": "sqlite", "db.operation.name": "write"}
    ended = await spans.wait("TurnEngine._end_unit")
    assert ended.parent_span_id == turn.span_id

    job = await spans.wait("job memories.extract")  # which the end of the turn has added
    assert job.parent_span_id == turn.span_id
    assert job.kind == job.SPAN_KIND_CONSUMER
    assert any(span.parent_span_id == job.span_id for span in spans.named("chat gemini-2.5-flash"))
    assert spans.resource()["service.name"] == "yral-chat"


async def test_a_failing_model_is_an_error_without_its_words(
    service: Service, collector: Recorder, user_of: MakeUser, model: FakeModel
) -> None:
    trace_id = "1" * 32
    model.tell(default={"status": 400})
    api = user_of(service, None, {"traceparent": f"00-{trace_id}-{PARENT}-01"})
    conversation = await api.open()
    assert (await api.send(conversation["id"], f"{MARK} hello")).status_code == 503
    spans = Spans(collector)
    turn, call = await spans.wait("turn reply", trace_id), await spans.wait("chat gemini-2.5-flash", trace_id)
    for span, kind in ((turn, "TRANSIENT"), (call, "rejected")):
        assert span.status.code == span.status.STATUS_CODE_ERROR
        assert attributes_of(span)["error.type"] == kind
    request = await spans.wait("POST /api/v1/chat/conversations/{conversation_id}/messages", trace_id)
    assert (attributes_of(request)["error.type"], attributes_of(request)["yral.error"]) == ("503", "ai_unavailable")
    # By now everything that the two tests have said has been sent: nothing of it is in what the collector got.
    assert all(MARK.encode() not in found.body for found in collector.received)


async def test_without_a_client_in_a_trace_a_request_begins_one(
    service: Service, collector: Recorder, user_of: MakeUser, model: FakeModel
) -> None:
    await user_of(service).influencers()
    spans = Spans(collector)

    def roots() -> list[Any]:
        name = "GET /api/v1/influencers"
        return [span for span in spans.all() if span.name == name and not span.parent_span_id]

    await until(there(lambda: bool(roots())), what="a span without a parent")
    assert not [span for span in spans.all() if "/health" in span.name or "has_due" in span.name]


@pytest.mark.parametrize("kind", ["nobody", "hangs"])
async def test_a_dead_collector_neither_slows_nor_breaks_anything(
    tmp_path: Path, user_of: MakeUser, model: FakeModel, kind: str
) -> None:
    with Recorder(hangs=True) as hanging:
        endpoint = hanging.url if kind == "hangs" else "http://127.0.0.1:1"
        with traced(
            tmp_path,
            model,
            endpoint,
            OTEL_BSP_MAX_QUEUE_SIZE="50",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="20",
            LOG_LEVEL="ERROR",
        ) as service:
            api = user_of(service)
            conversation = await api.open()
            for number in range(20):
                await api.said(conversation["id"], f"hello {number}")
            await api.close()
            started = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - started < 15  # an exporter alone would go on trying for a minute


HIDING = """
import atexit, sys

HIDDEN = ("opentelemetry.sdk", "opentelemetry.exporter", "sentry_sdk")


class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(name, name=name)


if {is_hiding}:
    sys.meta_path.insert(0, Hiding())
atexit.register(lambda: print("LOADED", [name for name in HIDDEN if name in sys.modules], flush=True))
"""


def at_the_start(folder: Path, patch: pytest.MonkeyPatch, *, is_hiding: bool) -> None:
    """Has the interpreter of the service hide the packages of the extras, and say at its end which were loaded."""
    (folder / "sitecustomize.py").write_text(HIDING.replace("{is_hiding}", str(is_hiding)))
    patch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("setting", "value", "extra"),
    [("OTEL_ENABLED", "true", "otel"), ("SENTRY_DSN", "http://key@127.0.0.1:1/1", "sentry")],
)
def test_a_missing_package_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, extra: str
) -> None:
    at_the_start(tmp_path, monkeypatch, is_hiding=True)
    with pytest.raises(AssertionError, match="did not start") as raised:
        Service(tmp_path, **{setting: value}).start()
    assert f"{setting} is" in str(raised.value)
    assert f"install yral-chat[{extra}]" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_what_is_off_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of OpenTelemetry the API, which does nothing by itself, comes with FastAPI.
    at_the_start(tmp_path, monkeypatch, is_hiding=False)
    with Service(tmp_path) as service:
        service.stop()
        assert "LOADED []" in service.process.output
