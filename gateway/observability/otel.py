"""Traces for OpenTelemetry over OTLP/HTTP. The library is imported only where ``otlp_endpoint`` is set."""

from __future__ import annotations

from typing import Any, Final, Self

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__
from gateway.core.clock import SECOND_MS
from gateway.runtime import tracing
from gateway.runtime.tracing import Kind

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_KINDS: Final = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
    Kind.CONSUMER: trace.SpanKind.CONSUMER,
}
_SEND_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 5.0


class OtelTracer:
    """Sends spans to a collector once a second, in a thread of the library. What the collector refuses is dropped."""

    def __init__(self, endpoint: str, gateway_id: str) -> None:
        about = {
            "service.name": "device-gateway",
            "service.version": __version__,
            "service.instance.id": gateway_id,
        }
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_ANSWER_SECONDS)
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_SEND_SECONDS * SECOND_MS))
        self._tracer = self._provider.get_tracer("device-gateway", __version__)

    def begin(
        self, name: str, parent: str | None, kind: Kind = Kind.INTERNAL, *, began: int | None = None, **facts: Any
    ) -> OtelSpan:
        """Begin a span below ``parent``. Without a parent a trace begins."""
        carrier = {} if parent is None else {tracing.HEADER: parent}
        context = _PROPAGATOR.extract(carrier)
        span = self._tracer.start_span(
            name, context=context, kind=_KINDS[kind], attributes=_attributes(facts), start_time=began
        )
        return OtelSpan(span)

    def inside(self, name: str) -> tracing.Span:
        """Begin a span below the current one; outside of a trace, do nothing."""
        parent = tracing.here()
        return tracing.NOTHING if parent is None else self.begin(name, parent)

    def stop(self) -> None:
        """Send what is left."""
        self._provider.force_flush(int(_ANSWER_SECONDS * SECOND_MS))
        self._provider.shutdown()


class OtelSpan:
    """A span of the library."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, context=trace.set_span_in_context(span))
        self.traceparent = carrier.get(tracing.HEADER)
        self._here = tracing.Here(self.traceparent)

    def __enter__(self) -> Self:
        """Make this the current span of the task."""
        self._here.enter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the span, with the error if there was one."""
        self._here.leave()
        self.end(None if error is None else type(error).__name__)

    def called(self, name: str) -> None:
        """Set the name, where it is known only later."""
        self._span.update_name(name)

    def note(self, **facts: Any) -> None:
        """Add attributes."""
        self._span.set_attributes(_attributes(facts))

    def end(self, error: str | None = None, at: int | None = None) -> None:
        """End the span, now or at this time (nanoseconds since the epoch)."""
        if error is not None:
            self._span.set_attributes({"error.type": error})
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end(at)


def _attributes(facts: dict[str, Any]) -> dict[str, Any]:
    """Return names with dots; unknown values are left out."""
    return {name.replace("__", "."): value for name, value in facts.items() if value is not None}
