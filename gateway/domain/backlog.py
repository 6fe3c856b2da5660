"""Backlog requests: other processes, such as ``gateway commands cancel``, ask the gateway to read the broker's backlog.

The command line has no connection to the broker. It increments a number in the registry. The gateway passes its barrier
(:mod:`gateway.mqtt.barrier`) and writes that number down as done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import StoreError
from gateway.store import key_sql

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.store import Store, Tx, View
    from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 60.0
"""The longest time that a command line may wait."""
ASKED: Final = "backlog_asked"
_TAKEN_IN: Final = "backlog_taken_in"


def asked(view: View) -> int:
    """Return how many requests there were."""
    return int(key_sql.meta(view, ASKED) or 0)


def _taken_in(view: View) -> int:
    return int(key_sql.meta(view, _TAKEN_IN) or 0)


def _ask(tx: Tx) -> int:
    number = asked(tx) + 1
    key_sql.set_meta(tx, ASKED, str(number))
    return number


async def ask(store: Store, seconds: float) -> bool:
    """Make the gateway on this registry read its backlog; return False when that took longer."""
    number = await store.write(_ask)
    try:
        async with asyncio.timeout(seconds):
            while await store.read(_taken_in) < number:  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return False
    return True


class BacklogRequests:
    """Serves the requests of other processes. ``taken_in`` waits until the backlog is read, for so many seconds."""

    def __init__(self, store: Store, wakeups: Wakeups, taken_in: Callable[[float], Awaitable[bool]]) -> None:
        self._store = store
        self._wakeups = wakeups
        self._take_in = taken_in

    async def run(self) -> None:
        """Serve until cancelled. Each pass serves all requests up to then."""
        while True:
            await self._wakeups.backlog.wait()
            self._wakeups.backlog.clear()
            try:
                number = await self._store.read(asked)
                if await self._take_in(LONGEST_SECONDS):
                    await self._store.write(lambda tx, number=number: key_sql.set_meta(tx, _TAKEN_IN, str(number)))  # type: ignore[misc]
            except StoreError as error:
                log.warning("backlog.not_served", reason=error.message)
