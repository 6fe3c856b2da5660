"""Priority of the event loop over bulk work, such as storing heartbeats.

Python runs one thread at a time, and lets a thread run on for a while before another gets its turn. Where all cores are
busy, the kernel adds a few milliseconds. A request needs a dozen turns. A thread that works in bulk therefore checks
now and then whether the loop has a request to serve, and yields to it. The loop itself serves requests before it reads
what arrives in bulk. Both waits are bounded: however busy the loop is, bulk work gets half of the time.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from typing import Any, Final, TypeAlias

LONGEST_SECONDS: Final = 0.002
"""How long bulk work waits at a time. If the loop is still busy, bulk work runs for as long before it waits again."""
Ready: TypeAlias = list[tuple[selectors.SelectorKey, int]]


class LoopPriority:
    """Whether a client waits for the loop. The loop of :meth:`new_loop` knows; without such a loop the answer is no."""

    def __init__(self) -> None:
        self._selector: _Selector | None = None
        self._works_until = 0.0

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return an asyncio event loop that has priority."""
        self._selector = _Selector()
        return Loop(self._selector)

    @property
    def busy(self) -> bool:
        """Return whether the loop serves a client, or should. Any thread may call this.

        Everything that arrived from outside counts, except on deprioritised sockets. Timers do not count: no client
        waits for them.
        """
        return self._selector is not None and self._selector.busy

    def yield_to_loop(self) -> None:
        """Block this thread while the loop is busy, for at most ``LONGEST_SECONDS``."""
        if self._selector is None or not self._selector.busy or time.monotonic() < self._works_until:
            return
        if not self._selector.wait_for_rest():
            self._works_until = time.monotonic() + LONGEST_SECONDS


class Loop(asyncio.SelectorEventLoop):
    """An event loop that tells other threads whether it is busy."""

    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._order = selector

    def deprioritise(self, descriptor: int) -> None:
        """Treat what arrives on this socket as bulk: it can wait while there is other work."""
        self._order.put_last(descriptor)

    def forget(self, descriptor: int) -> None:
        """Forget a deprioritised socket that is about to be closed. The next socket may get its number."""
        self._order.forget(descriptor)


class _Selector(selectors.DefaultSelector):
    """Selector that returns the sockets of waiting clients before those of bulk traffic."""

    def __init__(self) -> None:
        super().__init__()
        self._last: set[int] = set()
        self._first = selectors.DefaultSelector()
        """All sockets that are not deprioritised. Other threads look here for data that the loop has not seen yet."""
        self._at_work = False
        self._held_until = 0.0
        self._at_rest = threading.Event()
        self._awaited = False

    @property
    def busy(self) -> bool:
        """Return whether the loop has work on a socket that is not deprioritised."""
        return self._at_work or bool(self._first.select(0))

    def wait_for_rest(self) -> bool:
        """Block this thread until the loop is idle, or for ``LONGEST_SECONDS``; return whether it is.

        One thread at a time waits here. It does not poll: each poll would take the loop's processor away.
        """
        self._at_rest.clear()
        self._awaited = True
        rests = not self.busy or self._at_rest.wait(LONGEST_SECONDS)
        self._awaited = False
        return rests

    def put_last(self, fd: int) -> None:
        """Return this descriptor last from now on."""
        self._last.add(fd)
        if fd in self._first.get_map():
            self._first.unregister(fd)

    def forget(self, fd: int) -> None:
        """Treat this descriptor like any other from now on."""
        self._last.discard(fd)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch one more descriptor."""
        key = super().register(fileobj, events, data)
        if key.fd not in self._last:
            self._first.register(key.fd, events)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change what is watched on a descriptor."""
        key = super().modify(fileobj, events, data)
        if key.fd in self._first.get_map():
            self._first.modify(key.fd, events)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a descriptor."""
        key = super().unregister(fileobj)
        if key.fd in self._first.get_map():
            self._first.unregister(key.fd)
        return key

    def close(self) -> None:
        """Stop watching every descriptor."""
        self._first.close()
        super().close()

    def select(self, timeout: float | None = None) -> Ready:
        """Wait until something is ready; ``timeout`` is 0 while the loop has other work."""
        if timeout != 0:
            self._at_work = False
            if self._awaited and not self.busy:
                self._at_rest.set()
        ready = super().select(timeout)
        if not self._last:
            self._at_work = self._at_work or bool(ready)
            return ready
        first = [each for each in ready if each[0].fd not in self._last]
        last = [each for each in ready if each[0].fd in self._last]
        self._at_work = self._at_work or bool(first)
        return first if self._holds(last, somebody_waits=bool(first) or timeout == 0) else first + last

    def _holds(self, last: Ready, *, somebody_waits: bool) -> bool:
        """Return whether bulk traffic waits for another turn, within a bound. It stays ready and is returned again."""
        if last and somebody_waits:
            now = time.monotonic()
            self._held_until = self._held_until or now + LONGEST_SECONDS
            if now < self._held_until:
                return True
        self._held_until = 0.0
        return False
