"""An event loop whose time is virtual: when nothing is ready it jumps to the next timer, so an hour takes no time."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class StalledError(Exception):
    """Nothing is ready and no timer is set: a task that waits now would wait for ever."""


class _InstantSelector(selectors.SelectSelector):
    """Looks at no descriptor; waiting is moving the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise StalledError("nothing is ready, and no timer is set")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` starts at 0 and counts virtual seconds. Work for threads is done at once, in place."""

    def __init__(self) -> None:
        self._selector = _InstantSelector()
        super().__init__(self._selector)

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._selector.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override] # noqa: ARG002 - there are no threads here
        """Do it now."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits, as a thread would
            done.set_exception(error)
        return done
