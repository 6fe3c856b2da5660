"""Log of what the device did, in order, and waits for what it has to do."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from device_sim.conformance.findings import DeviationError

T = TypeVar("T")

Kind: TypeAlias = Literal[
    "opened",  # TCP connection; data: None
    "handshake",  # TLS handshake begun; data: whether the certificate is the right one
    "connect",  # data: packets.Connect
    "connack",  # data: its code
    "subscribe",  # data: packets.Subscribe
    "suback",  # data: packets.Subscribe
    "publish",  # data: packets.Publish
    "puback",  # the broker's answer; data: packets.Publish
    "disconnect",  # data: None
    "closed",  # data: None
    "violation",  # data: what MQTT does not allow
    "http",  # data: http_server.Request
]


@dataclass(frozen=True)
class Event:
    """One thing that happened, `at` seconds of the monotonic clock, on MQTT connection `link` (0: over HTTP)."""

    at: float
    kind: Kind
    link: int
    data: Any = None


class MissingError(DeviationError):
    """The device did not do in time what it has to do. The text says what."""


class Log:
    """Every event of a run, oldest first."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def add(self, kind: Kind, link: int, data: Any = None) -> Event:
        """Add an event, and wake up what waits for it."""
        event = Event(time.monotonic(), kind, link, data)
        self.events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()
        return event

    @property
    def now(self) -> int:
        """Return the place of the next event, for `since`."""
        return len(self.events)

    def of(self, kind: Kind, *, since: int = 0, link: int | None = None) -> Iterator[Event]:
        """Yield the events of one kind, of one connection if it is given."""
        for event in self.events[since:]:
            if event.kind == kind and link in (None, event.link):
                yield event

    async def until(self, condition: Callable[[], T | None], what: str, *, within: float | None) -> T:
        """Return what the condition returns as soon as it is not None; wait `within` seconds, None for ever.

        Raises:
            MissingError: it did not happen in time. `what` completes "the device did not".
        """
        try:
            async with asyncio.timeout(within):
                while (found := condition()) is None:
                    await self._changed.wait()
        except TimeoutError:
            raise MissingError(f"within {within:g} s the device did not {what}") from None
        return found
