"""Waiting for what must happen, without ever sleeping for a time to pass."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

Result = TypeVar("Result")

GUARD_SECONDS = 60.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.004, 0.025
"""Seconds between two looks."""
_SHARE = 0.1
"""A pause is at most so much of the time waited until then: what takes long is looked at less often."""


@overload
async def eventually(
    predicate: Callable[[], Awaitable[Result]], what: str, *, guard_seconds: float = ...
) -> Result: ...


@overload
async def eventually(predicate: Callable[[], Result], what: str, *, guard_seconds: float = ...) -> Result: ...


async def eventually(predicate: Callable[[], object], what: str, *, guard_seconds: float = GUARD_SECONDS) -> object:
    """Poll `predicate` (plain or async) until it is truthy and return what it returned.

    `what` completes the sentence "it did not come to pass that …". The guard says that something hangs; it is not a
    statement about speed. Raises AssertionError with the last value seen when the guard strikes.
    """
    last: object = None
    now = asyncio.get_running_loop().time
    began = now()
    try:
        async with asyncio.timeout(guard_seconds):
            while not (last := await _asked(predicate)):  # noqa: ASYNC110 - what it waits for is in other processes
                await asyncio.sleep(min(max(_SHARE * (now() - began), _SHORTEST_PAUSE), _LONGEST_PAUSE))
    except TimeoutError:
        raise AssertionError(
            f"within {guard_seconds:g} s it did not come to pass that {what} (last seen: {last!r})"
        ) from None
    return last


async def _asked(predicate: Callable[[], object]) -> object:
    answer = predicate()
    return await answer if inspect.isawaitable(answer) else answer
