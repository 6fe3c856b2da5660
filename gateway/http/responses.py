"""Results of handlers: a response, or a stream of parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel


@dataclass(frozen=True)
class ApiResponse:
    """The answer of a handler: a model (or bytes that are JSON already), its status, and additional headers."""

    body: BaseModel | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()
    media_type: str | None = None
    """Where it is not the one of its operation."""

    @property
    def content(self) -> bytes:
        """Return the body as it is sent."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.model_dump_json(exclude=set(self.exclude)).encode()


@dataclass(frozen=True)
class Stream:
    """An answer sent part by part. ``gateway/http/streaming.py`` says what ends it."""

    parts: AsyncGenerator[bytes, None]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    is_finite: bool = False
    """Whether it is a file. One that ends early then breaks the connection, so that no client takes it for whole."""
