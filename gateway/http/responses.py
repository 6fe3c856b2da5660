"""What handlers return: a response, or a stream of parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel


@dataclass(frozen=True)
class ApiResponse:
    """What a handler answers: a model (or bytes that are JSON already), its status, and headers beside the usual."""

    body: BaseModel | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.model_dump_json(exclude=set(self.exclude)).encode()


@dataclass(frozen=True)
class Stream:
    """An answer without an end of its own: its parts as they come. ``gateway/http/streaming.py`` tells what ends it."""

    parts: AsyncGenerator[bytes, None]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
