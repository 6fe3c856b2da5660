"""Traces without a library: what the parts of the gateway tell of their work, and where a trace goes on.

A place in a trace is a ``traceparent`` (W3C Trace Context). :class:`NoTracer` costs next to nothing; who wants traces
sets ``otlp_endpoint``, and :mod:`gateway.observability.otel` takes its place.
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
    """Where in a trace this task is; ``None``: in none."""
    return _here.get()


def well_formed(traceparent: str | None) -> str | None:
    """It, if it is a place in a trace; others may have written it."""
    return traceparent if traceparent is not None and _FORM.fullmatch(traceparent) else None


def same_trace(one: str | None, other: str | None) -> bool:
    """Whether both lie in one trace."""
    first, second = (_FORM.fullmatch(each or "") for each in (one, other))
    return first is not None and second is not None and first["trace"] == second["trace"]


class Kind(enum.Enum):
    """What a span is to others (OpenTelemetry, span kinds)."""

    INTERNAL = enum.auto()
    SERVER = enum.auto()
    PRODUCER = enum.auto()
    CONSUMER = enum.auto()


@dataclass(frozen=True)
class Traced:
    """Something that a transaction did for a trace; told once it is committed. Times in nanoseconds of the epoch."""

    name: str
    parent: str
    began: int
    kind: Kind = Kind.INTERNAL
    facts: dict[str, Any] = field(default_factory=dict)


class Span(Protocol):
    """A piece of work that has begun. Inside ``with`` it is where this task is."""

    traceparent: str | None

    def __enter__(self) -> Self:
        """It is where this task is."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """It has ended, by ``error`` perhaps."""

    def called(self, name: str) -> None:
        """Its name, where that is known later."""

    def note(self, **facts: Any) -> None:
        """More about it."""

    def end(self, error: str | None = None, at: int | None = None) -> None:
        """It has ended, now or at this time (nanoseconds of the epoch)."""


class Tracer(Protocol):
    """Begins spans."""

    def begin(
        self, name: str, parent: str | None, kind: Kind = Kind.INTERNAL, *, began: int | None = None, **facts: Any
    ) -> Span:
        """A span below ``parent``; without one a trace begins."""

    def inside(self, name: str) -> Span:
        """A span below where this task is; nothing when that is in no trace."""

    def stop(self) -> None:
        """Hand over what is left; blocks for seconds at most."""


class Here:
    """The part of a span that says where a task is."""

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent
        self._before: list[Any] = []

    def enter(self) -> None:
        """From here on."""
        self._before.append(_here.set(self.traceparent))

    def leave(self) -> None:
        """Back to where it was."""
        _here.reset(self._before.pop())


class _Nothing:
    """No span."""

    traceparent: str | None = None

    def __enter__(self) -> Self:
        """Nothing changes."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Nothing ends."""

    def called(self, name: str) -> None:
        """Nobody asks."""

    def note(self, **facts: Any) -> None:
        """Nobody reads it."""

    def end(self, error: str | None = None, at: int | None = None) -> None:
        """Nothing ends."""


NOTHING: Final = _Nothing()


class NoTracer:
    """Traces nothing."""

    def begin(
        self, name: str, parent: str | None, kind: Kind = Kind.INTERNAL, *, began: int | None = None, **facts: Any
    ) -> Span:
        """No span."""
        del name, parent, kind, began, facts
        return NOTHING

    def inside(self, name: str) -> Span:
        """No span."""
        del name
        return NOTHING

    def stop(self) -> None:
        """Nothing is left."""


NO_TRACER: Final = NoTracer()
