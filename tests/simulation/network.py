"""TCP as far as it matters here: two directions that keep their order, take their time, stall, and break."""

import asyncio
import itertools
import random
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Environment:
    """What a machine cannot choose: chance, the time (milliseconds since the epoch), the way to others, the story."""

    rng: random.Random
    clock: Callable[[], int]
    latency: Callable[[], float]
    log: Callable[..., None]


NETWORK: Final = Context()
"""What is on its way is of no process: it arrives also when its sender is paused."""
_MIN_GAP_SECONDS = 1e-6
"""Two packets of one direction never arrive at the same instant: timers that are due together have no order."""


class Pipe:
    """One direction. What is on its way when it closes never arrives."""

    def __init__(self, latency: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._latency = latency
        self._last = 0.0
        self._stalled_until = 0.0
        self.open = True

    def send(self, arrive: Callable[..., None], *facts: Any) -> None:
        """Have ``arrive(*facts)`` called at the other end."""
        if not self.open:
            return
        arrival = max(self._loop.time() + self._latency(), self._stalled_until)
        self._last = max(self._last + _MIN_GAP_SECONDS, arrival)
        self._loop.call_at(self._last, self._arrive, arrive, facts, context=NETWORK)

    def _arrive(self, arrive: Callable[..., None], facts: tuple[Any, ...]) -> None:
        if self.open:
            arrive(*facts)

    def stall(self, seconds: float) -> None:
        """What is sent from now on arrives after these seconds at the earliest."""
        self._stalled_until = max(self._stalled_until, self._loop.time() + seconds)


class TcpConnection:
    """A connection. It calls ``on_client_close`` and ``on_server_close`` once each, when that side ends."""

    _numbers = itertools.count()

    def __init__(self, latency: Callable[[], float]) -> None:
        self.number = next(self._numbers)
        self.up = Pipe(latency)
        self.down = Pipe(latency)
        self.on_client_close: Callable[[str], None] = _ignore
        self.on_server_close: Callable[[str], None] = _ignore

    @property
    def is_open(self) -> bool:
        """Whether packets still pass both ways."""
        return self.up.open and self.down.open

    def cut(self, reason: str, *, far_after: float = 0.0) -> None:
        """Break it: the client knows at once, the server after ``far_after`` seconds, as after a silent loss."""
        if not self.is_open:
            return
        self.up.open = self.down.open = False
        on_client_close, self.on_client_close = self.on_client_close, _ignore
        on_client_close(reason)
        if far_after:
            asyncio.get_running_loop().call_later(far_after, self._close_server_side, reason, context=NETWORK)
        else:
            self._close_server_side(reason)

    def _close_server_side(self, reason: str) -> None:
        on_server_close, self.on_server_close = self.on_server_close, _ignore
        on_server_close(reason)

    def stall(self, seconds: float) -> None:
        """Hold both directions back."""
        self.up.stall(seconds)
        self.down.stall(seconds)


def _ignore(reason: str) -> None:
    """Nothing listens any more."""
    del reason


def make_latency(rng: random.Random, low: float, high: float) -> Callable[[], float]:
    """Seconds that a packet is on its way: mostly near ``low``, sometimes up to ``high``."""
    return lambda: low + (high - low) * rng.random() ** 4
