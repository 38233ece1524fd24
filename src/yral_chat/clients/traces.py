"""Spans for an OpenTelemetry collector, over OTLP/HTTP (the extra `otel`).

Where they go and how many is said by the standard variables that the SDK reads from the environment:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/. A thread of the SDK sends them in batches; what a dead
collector does not take is dropped.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from yral_chat.core.config import Settings
from yral_chat.core.trace_context import TraceContext
from yral_chat.core.tracing import NO_SPAN, Span, SpanKind, Value
from yral_chat.core.version import VERSION

if TYPE_CHECKING:
    from opentelemetry import trace as api

SERVICE: Final = "yral-chat"
# What is left at the end is sent for so long, and then given up.
CLOSE_SECONDS: Final = 3.0
MISSING: Final = "OTEL_ENABLED is true, but its packages are missing: install yral-chat[otel], or unset it."


class OpenTelemetryTracer:
    """Raises ValueError when the packages are missing. `close` waits at most CLOSE_SECONDS."""

    def __init__(self, settings: Settings) -> None:
        try:
            from opentelemetry import context, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise ValueError(MISSING) from error

        self._api: Any = trace
        self._empty = context.Context()
        resource = Resource.create(_resource(settings))
        # The process ends when we say so, not when an exit handler has waited for a collector.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(SERVICE, VERSION)
        self._kinds: dict[SpanKind, Any] = {
            "internal": trace.SpanKind.INTERNAL,
            "server": trace.SpanKind.SERVER,
            "client": trace.SpanKind.CLIENT,
            "consumer": trace.SpanKind.CONSUMER,
        }

    def start(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext | None,
        links: Sequence[TraceContext],
        attributes: Mapping[str, Value],
    ) -> Span:
        """A span below `parent`; sampling follows the client's flag unless OTEL_TRACES_SAMPLER says otherwise."""
        api = self._api
        context = self._empty
        if parent is not None:
            context = api.set_span_in_context(api.NonRecordingSpan(self._foreign(parent)), context)
        span = self._tracer.start_span(
            name,
            context,
            self._kinds[kind],
            {key: value for key, value in attributes.items() if value is not None},
            [api.Link(self._foreign(link)) for link in links],
        )
        # With OTEL_SDK_DISABLED there is a span, but none that anybody could refer to.
        return _Span(span, api.StatusCode.ERROR) if span.get_span_context().is_valid else NO_SPAN

    def _foreign(self, place: TraceContext) -> Any:
        api = self._api
        state = api.TraceState.from_header([place.state]) if place.state else None
        return api.SpanContext(
            int(place.trace_id, 16), int(place.span_id, 16), True, api.TraceFlags(place.flags), state
        )

    def close(self) -> None:
        """Sends what is left. Blocks; whatever hangs stays behind in a thread that does not hold the process."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces.close", daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS)


class _Span:
    """See `Span`."""

    __slots__ = ("_error", "_span", "context")

    def __init__(self, span: "api.Span", error: Any) -> None:
        self._span = span
        self._error = error
        place = span.get_span_context()
        state = place.trace_state.to_header() if place.trace_state else ""
        self.context: TraceContext | None = TraceContext(
            f"{place.trace_id:032x}", f"{place.span_id:016x}", int(place.trace_flags), state
        )

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})

    def fail(self, kind: str) -> None:
        self._span.set_status(self._error)
        self._span.set_attribute("error.type", kind)

    def end(self) -> None:
        self._span.end()


def _resource(settings: Settings) -> dict[str, str]:
    """What the environment does not say; what it says wins."""
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    known = {
        "service.name": SERVICE,
        "service.version": VERSION,
        "deployment.environment.name": settings.environment,
    }
    if os.environ.get("OTEL_SERVICE_NAME"):
        del known["service.name"]
    return {name: value for name, value in known.items() if f"{name}=" not in given}
