"""How many answers without an end may be open at once, in total and per key."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import UnavailableError
from gateway.http.errors import TooManyStreamsError


@dataclass(frozen=True)
class Limits:
    """How many streams there may be per key and in total.

    In seconds: how often each looks whether its key is still good, and how long a client may take nothing. A look costs
    40 µs, so 200 streams take 16 ms of a second. A stream ends within a second of its key.
    """

    per_key: int = 10
    total: int = 200
    recheck_seconds: float = 0.5
    send_seconds: float = 30.0


class Streams:
    """The streams that are open."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.closing = asyncio.Event()
        self._open: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._open.total()

    def close(self) -> None:
        """End them all, and let nobody open another: the gateway stops."""
        self.closing.set()

    @contextlib.contextmanager
    def opened(self, key_id: str) -> Iterator[None]:
        """Count one more for this key as long as the block runs.

        Raises:
            TooManyStreamsError: the key has as many as it may have.
            UnavailableError: there are as many as there may be in all, or the gateway stops.
        """
        self._require_room(key_id)
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            self._open += Counter()  # forgets those that have none

    def _require_room(self, key_id: str) -> None:
        if self._open[key_id] >= self.limits.per_key:
            raise TooManyStreamsError(self.limits.per_key)
        if self.closing.is_set() or self.count >= self.limits.total:
            raise UnavailableError(
                "The gateway cannot serve another event stream now: it is stopping, or others have as many open as it "
                "serves. Open the stream again in a moment, or list the events with GET /v1/events."
            )
