"""An event loop whose time is virtual: when nothing is ready it jumps to the next timer, so an hour takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any


class StalledError(Exception):
    """Nothing is ready and no timer is set: a task that waits now would wait for ever."""


class PausableProcess:
    """A process that SIGSTOP pauses: what becomes due meanwhile is done after SIGCONT, in its order."""

    def __init__(self) -> None:
        self.is_paused = False
        self._parked: list[tuple[_Guard, tuple[Any, ...]]] = []
        self._pause_at: tuple[str, int, Callable[[], None]] | None = None
        self._continued = asyncio.Event()

    def context(self) -> Context:
        """The context of a task of this process."""
        context = copy_context()
        context.run(_RUNS_IN.set, self)
        return context

    def park(self, guard: _Guard, arguments: tuple[Any, ...]) -> None:
        """Keep a call that became due."""
        self._parked.append((guard, arguments))

    def pause_at(self, point: str, passes: int, then: Callable[[], None]) -> None:
        """Be paused at the ``passes``-th pass of this point from now, and call ``then``."""
        self._pause_at = point, passes, then

    async def pause_point(self, point: str) -> None:
        """A place where the process may be paused in the middle of a function."""
        if self._pause_at is not None and self._pause_at[0] == point:
            _, left, then = self._pause_at
            self._pause_at = (point, left - 1, then) if left > 1 else None
            if left <= 1:
                self.freeze()
                then()
        if self.is_paused:
            await self._continued.wait()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.is_paused = True
        self._continued.clear()

    def resume(self) -> None:
        """SIGCONT."""
        self._pause_at = None
        if not self.is_paused:
            return
        self.is_paused = False
        parked, self._parked = self._parked, []
        loop = asyncio.get_running_loop()
        for guard, arguments in parked:
            guard.again(loop, arguments)
        self._continued.set()


_RUNS_IN: ContextVar[PausableProcess | None] = ContextVar("runs_in", default=None)


class _Guard:
    """A call of a process: made when it is due, or later if the process is paused then."""

    __slots__ = ("_call", "_context", "_process", "handle")

    def __init__(self, process: PausableProcess, call: Callable[..., Any], context: Context | None) -> None:
        self._process, self._call, self._context = process, call, context or copy_context()
        self.handle: asyncio.Handle | None = None

    def __call__(self, *arguments: Any) -> None:
        if self.handle is not None and self.handle.cancelled():  # while it was parked
            self.handle = None
        elif self._process.is_paused:
            self._process.park(self, arguments)
        else:
            self.handle = None
            self._call(*arguments)

    def again(self, loop: asyncio.AbstractEventLoop, arguments: tuple[Any, ...]) -> None:
        """Have it made soon."""
        asyncio.SelectorEventLoop.call_soon(loop, self, *arguments, context=self._context)  # type: ignore[arg-type]


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

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call it soon: in the process of its context when that runs."""
        process = _RUNS_IN.get() if context is None else context.get(_RUNS_IN)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        guard = _Guard(process, callback, context)
        guard.handle = super().call_soon(guard, *args, context=context)
        return guard.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it then, or when its process runs again."""
        process = _RUNS_IN.get() if context is None else context.get(_RUNS_IN)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        guard = _Guard(process, callback, context)
        handle = guard.handle = super().call_at(when, guard, *args, context=context)
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override] # noqa: ARG002 - there are no threads here
        """Do it now."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits, as a thread would
            done.set_exception(error)
        return done
