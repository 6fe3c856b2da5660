"""Limit of concurrent event streams, in total and per key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import UnavailableError
from gateway.http.errors import TooManyStreamsError


@dataclass(frozen=True)
class StreamLimits:
    """Number of streams per key and in total.

    In seconds: how often each stream checks its key, and how long a client may read nothing. A check costs 40 µs, so
    200 streams take 16 ms of a second. A stream ends within a second of its key.
    """

    per_key: int = 10
    total: int = 200
    recheck_seconds: float = 0.5
    send_seconds: float = 30.0


class StreamLimiter:
    """The open streams.

    At the total limit, a key may take the place of the newest stream of the key with most streams. That key must still
    have more streams afterwards. So keys that want more than their share cannot keep the others out.
    """

    def __init__(self, limits: StreamLimits | None = None) -> None:
        self.limits = limits or StreamLimits()
        self.closing = asyncio.Event()
        self._open: dict[str, dict[asyncio.Event, None]] = {}

    @property
    def count(self) -> int:
        """Return how many there are."""
        return sum(map(len, self._open.values()))

    def close(self) -> None:
        """End them all, and refuse new ones: the gateway stops."""
        self.closing.set()

    @contextlib.contextmanager
    def opened(self, key_id: str) -> Iterator[asyncio.Event]:
        """Count one more for this key as long as the block runs; the event is set when it must end.

        Raises:
            TooManyStreamsError: the key has as many as it may have.
            UnavailableError: the total limit is reached and no stream can be ended, or the gateway stops.
        """
        self._require_room(key_id)
        makes_way = asyncio.Event()
        self._open.setdefault(key_id, {})[makes_way] = None
        try:
            yield makes_way
        finally:
            self._drop(key_id, makes_way)

    def _require_room(self, key_id: str) -> None:
        if len(self._open.get(key_id, ())) >= self.limits.per_key:
            raise TooManyStreamsError(self.limits.per_key)
        if self.closing.is_set() or (self.count >= self.limits.total and not self._make_way_for(key_id)):
            raise UnavailableError(
                "The gateway cannot serve another event stream now: it is stopping, or others have as many open as it "
                "serves. Open the stream again in a moment, or list the events with GET /v1/events."
            )

    def _make_way_for(self, key_id: str) -> bool:
        busiest = max(self._open, key=lambda each: len(self._open[each]), default=key_id)
        if len(self._open.get(busiest, ())) <= len(self._open.get(key_id, ())) + 1:
            return False
        newest = next(reversed(self._open[busiest]))
        self._drop(busiest, newest)
        newest.set()
        return True

    def _drop(self, key_id: str, stream: asyncio.Event) -> None:
        of_key = self._open.get(key_id, {})
        of_key.pop(stream, None)
        if not of_key:
            self._open.pop(key_id, None)
