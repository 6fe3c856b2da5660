"""Log of the facts of one device, with a way to wait for them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from device_sim.facts import Fact, OnFact

KEPT = 10_000


class FactLog:
    """Keeps the newest 10,000 facts, counts all by name, and wakes the tasks that wait for one."""

    def __init__(self, serial: str, clock: Callable[[], int], on_fact: OnFact | None) -> None:
        self.facts: list[Fact] = []
        self.counts: Counter[str] = Counter()
        self._serial = serial
        self._clock = clock
        self._on_fact = on_fact
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def add(self, name: str, /, **details: Any) -> None:
        """Record a fact."""
        fact = Fact(self._clock(), self._serial, name, details)
        self.facts.append(fact)
        del self.facts[:-KEPT]
        self.counts[name] += 1
        if self._on_fact is not None:
            self._on_fact(fact)
        self._wake()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition is true. It is checked at once, and then after each fact."""
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (condition, future)
        self._waiters.append(waiter)
        try:
            await future
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def fail(self, error: Exception) -> None:
        """End every wait with this error, since no more facts will follow."""
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(error)

    def _wake(self) -> None:
        for waiter in list(self._waiters):
            condition, future = waiter
            if condition():
                self._waiters.remove(waiter)
                if not future.done():
                    future.set_result(None)
