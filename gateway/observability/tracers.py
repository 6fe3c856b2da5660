"""Choice of the tracer: OpenTelemetry where an endpoint is set."""

from __future__ import annotations

from gateway.errors import UnavailableError
from gateway.runtime.tracing import NO_TRACER, Tracer
from gateway.settings.loading import Settings


def tracer_of(settings: Settings, gateway_id: str) -> Tracer:
    """Return the tracer of these settings: one that exports, or one that does nothing.

    Raises:
        UnavailableError: the packages that exporting needs are not installed.
    """
    if settings.otlp_endpoint is None:
        return NO_TRACER
    try:
        from gateway.observability.otel import OtelTracer  # noqa: PLC0415 - an optional dependency, and not a light one
    except ImportError as error:
        raise UnavailableError(
            f"otlp_endpoint needs packages that are not installed ({error.name}): pip install 'device-gateway[otel]'."
        ) from error
    return OtelTracer(settings.otlp_endpoint, gateway_id)
