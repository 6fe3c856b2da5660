"""Traces without a library: the interface that the gateway's parts report their work to.

A place in a trace is a ``traceparent`` (W3C Trace Context). :class:`NoTracer` costs next to nothing. With the setting
``otlp_endpoint``, :mod:`gateway.observability.otel` takes its place.
"""

from __future__ import annotations

import enum
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

HEADER: Final = "traceparent"
_FORM: Final = re.compile(r"00-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_here: ContextVar[str | None] = ContextVar("traceparent", default=None)


def here() -> str | None:
    """Return the place in a trace where this task is, or None outside of a trace."""
    return _here.get()


def well_formed(traceparent: str | None) -> str | None:
    """Return the ``traceparent`` if it is well formed, else None. It may come from others."""
    return traceparent if traceparent is not None and _FORM.fullmatch(traceparent) else None


def same_trace(one: str | None, other: str | None) -> bool:
    """Return whether both places are in one trace."""
    first, second = (_FORM.fullmatch(each or "") for each in (one, other))
    return first is not None and second is not None and first["trace"] == second["trace"]


class Kind(enum.Enum):
    """The role of a span towards others (OpenTelemetry, span kinds)."""

    INTERNAL = enum.auto()
    SERVER = enum.auto()
    PRODUCER = enum.auto()
    CONSUMER = enum.auto()


@dataclass(frozen=True)
class Traced:
    """Work of a transaction, reported once it is committed. Times in nanoseconds since the epoch."""

    name: str
    parent: str
    began: int
    kind: Kind = Kind.INTERNAL
    facts: dict[str, Any] = field(default_factory=dict)


class Span(Protocol):
    """A piece of work that has begun. Inside ``with`` it is the current span of this task."""

    traceparent: str | None

    def __enter__(self) -> Self:
        """Make this the current span of the task."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the span, with the error if there was one."""

    def called(self, name: str) -> None:
        """Set the name, where it is known only later."""

    def note(self, **facts: Any) -> None:
        """Add attributes."""

    def end(self, error: str | None = None, at: int | None = None) -> None:
        """End the span, now or at this time (nanoseconds since the epoch)."""


class Tracer(Protocol):
    """Begins spans."""

    def begin(
        self, name: str, parent: str | None, kind: Kind = Kind.INTERNAL, *, began: int | None = None, **facts: Any
    ) -> Span:
        """Begin a span below ``parent``. Without a parent a trace begins."""

    def inside(self, name: str) -> Span:
        """Begin a span below the current one; outside of a trace, do nothing."""

    def stop(self) -> None:
        """Send what is left. Blocks for at most some seconds."""


class Here:
    """The part of a span that marks where a task is."""

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent
        self._before: list[Any] = []

    def enter(self) -> None:
        """Make this the current place."""
        self._before.append(_here.set(self.traceparent))

    def leave(self) -> None:
        """Return to the place before."""
        _here.reset(self._before.pop())


class _Nothing:
    """A span that records nothing."""

    traceparent: str | None = None

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Do nothing."""

    def called(self, name: str) -> None:
        """Do nothing."""

    def note(self, **facts: Any) -> None:
        """Do nothing."""

    def end(self, error: str | None = None, at: int | None = None) -> None:
        """Do nothing."""


NOTHING: Final = _Nothing()


class NoTracer:
    """A tracer that records nothing."""

    def begin(
        self, name: str, parent: str | None, kind: Kind = Kind.INTERNAL, *, began: int | None = None, **facts: Any
    ) -> Span:
        """Return a span that records nothing."""
        del name, parent, kind, began, facts
        return NOTHING

    def inside(self, name: str) -> Span:
        """Return a span that records nothing."""
        del name
        return NOTHING

    def stop(self) -> None:
        """Do nothing."""


NO_TRACER: Final = NoTracer()
