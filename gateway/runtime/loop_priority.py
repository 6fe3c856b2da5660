"""What somebody waits for goes before work in bulk, such as taking in heartbeats.

Python runs one thread at a time, and lets one go on for a while before another gets its turn; where all cores are busy
the kernel adds a few milliseconds of its own. A request needs a dozen turns. So whoever works in bulk in another thread
looks now and then whether the loop has, or should have, something to do that somebody waits for, and lets it do that
first; and the loop itself does such things before it reads what comes in bulk. All for a bounded time: however busy the
loop is, work in bulk has half of the time.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from typing import Any, Final, TypeAlias

LONGEST_SECONDS: Final = 0.002
"""How long work in bulk waits at a time; where that was in vain, it goes on for as long before it waits again."""
Ready: TypeAlias = list[tuple[selectors.SelectorKey, int]]


class LoopPriority:
    """Whether somebody waits for the loop, as the loop of :meth:`new_loop` has it; without one nobody does."""

    def __init__(self) -> None:
        self._selector: _Selector | None = None
        self._works_until = 0.0

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """An event loop of asyncio's own kind that goes first."""
        self._selector = _Selector()
        return Loop(self._selector)

    @property
    def busy(self) -> bool:
        """Whether the loop works on something that somebody waits for, or should; for any thread.

        That is all that came from outside, but what goes last: nobody waits for what the clock alone begins.
        """
        return self._selector is not None and self._selector.busy

    def yield_to_loop(self) -> None:
        """Block this thread while the loop is busy, for ``LONGEST_SECONDS`` at most."""
        if self._selector is None or not self._selector.busy or time.monotonic() < self._works_until:
            return
        if not self._selector.wait_for_rest():
            self._works_until = time.monotonic() + LONGEST_SECONDS


class Loop(asyncio.SelectorEventLoop):
    """An event loop of which other threads can tell whether it is busy."""

    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._order = selector

    def deprioritise(self, descriptor: int) -> None:
        """What comes on this socket comes in bulk: it can wait while there is something else to do."""
        self._order.put_last(descriptor)

    def forget(self, descriptor: int) -> None:
        """A socket that was put last is about to be closed, and the next may get its number."""
        self._order.forget(descriptor)


class _Selector(selectors.DefaultSelector):
    """Tells what somebody waits for from what comes in bulk, and hands out the one before the other."""

    def __init__(self) -> None:
        super().__init__()
        self._last: set[int] = set()
        self._first = selectors.DefaultSelector()
        """All but those that go last: other threads look here whether anything has come that the loop has not seen."""
        self._at_work = False
        self._held_until = 0.0
        self._at_rest = threading.Event()
        self._awaited = False

    @property
    def busy(self) -> bool:
        """Whether the loop has something to do besides what goes last."""
        return self._at_work or bool(self._first.select(0))

    def wait_for_rest(self) -> bool:
        """Block this thread, one at a time, until the loop rests, or for ``LONGEST_SECONDS``; whether it does.

        Without a look in between: each would take the loop's processor away, and who knows who gets it next.
        """
        self._at_rest.clear()
        self._awaited = True
        rests = not self.busy or self._at_rest.wait(LONGEST_SECONDS)
        self._awaited = False
        return rests

    def put_last(self, fd: int) -> None:
        """What comes on this descriptor goes last from now on."""
        self._last.add(fd)
        if fd in self._first.get_map():
            self._first.unregister(fd)

    def forget(self, fd: int) -> None:
        """This descriptor is one like any other from now on."""
        self._last.discard(fd)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch one more."""
        key = super().register(fileobj, events, data)
        if key.fd not in self._last:
            self._first.register(key.fd, events)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch it for something else."""
        key = super().modify(fileobj, events, data)
        if key.fd in self._first.get_map():
            self._first.modify(key.fd, events)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch it no more."""
        key = super().unregister(fileobj)
        if key.fd in self._first.get_map():
            self._first.unregister(key.fd)
        return key

    def close(self) -> None:
        """Watch nothing any more."""
        self._first.close()
        super().close()

    def select(self, timeout: float | None = None) -> Ready:
        """Wait until something is ready; ``timeout`` is 0 while the loop has something to do anyway."""
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
        """Whether what goes last has to wait for another turn: not for long. It stays ready, and is told again."""
        if last and somebody_waits:
            now = time.monotonic()
            self._held_until = self._held_until or now + LONGEST_SECONDS
            if now < self._held_until:
                return True
        self._held_until = 0.0
        return False
