"""The event loop goes before work in bulk, such as storing heartbeats.

Python runs one thread at a time, and lets one go on for a while before another gets its turn; where all cores are busy
the kernel adds a few milliseconds of its own. A request needs a dozen turns. So whoever works in bulk in another thread
looks now and then whether the loop has something to do, and lets it do that first, for a bounded time: however busy
the loop is, heartbeats are stored at half their rate at least.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Final

LONGEST_SECONDS: Final = 0.002
"""How long bulk work waits at a time; between two such waits it works for about as long."""
_BREATH_SECONDS: Final = 0.000_05
"""A loop that has something to do cannot say so while another thread holds the interpreter."""
_LOOK_SECONDS: Final = 0.000_2


class Precedence:
    """Whether the loop is busy, told by the loop of :meth:`new_loop`; without one it never is."""

    def __init__(self) -> None:
        self._told = False
        self.busy = False
        """Plain, not an event: the loop says it at each turn, and seldom is there anybody who waits for it."""

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """An event loop of asyncio's own kind that goes first."""
        self._told = True
        return asyncio.SelectorEventLoop(_Selector(self))

    def give_way(self) -> None:
        """Block this thread for a moment, and then while the loop is busy, for ``LONGEST_SECONDS`` at most."""
        if self._told:
            until = time.monotonic() + LONGEST_SECONDS
            time.sleep(_BREATH_SECONDS)
            while self.busy and time.monotonic() < until:
                time.sleep(_LOOK_SECONDS)


class _Selector(selectors.DefaultSelector):
    """Tells when the loop waits."""

    def __init__(self, precedence: Precedence) -> None:
        super().__init__()
        self._precedence = precedence

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until something is ready."""
        self._precedence.busy = False
        try:
            return super().select(timeout)
        finally:
            self._precedence.busy = True
