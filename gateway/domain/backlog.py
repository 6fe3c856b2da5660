"""Requests of other processes, such as ``gateway commands cancel``, to take in first what the broker keeps.

The command line has no connection to the broker. It leaves a number in the registry; the gateway passes its barrier
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
"""As long as a command line may be told to wait."""
ASKED: Final = "backlog_asked"
_TAKEN_IN: Final = "backlog_taken_in"


def asked(view: View) -> int:
    """How many requests there were."""
    return int(key_sql.meta(view, ASKED) or 0)


def _taken_in(view: View) -> int:
    return int(key_sql.meta(view, _TAKEN_IN) or 0)


def _ask(tx: Tx) -> int:
    number = asked(tx) + 1
    key_sql.set_meta(tx, ASKED, str(number))
    return number


async def ask(store: Store, seconds: float) -> bool:
    """Have the gateway that runs on this registry take in its backlog; ``False`` when that took longer."""
    number = await store.write(_ask)
    try:
        async with asyncio.timeout(seconds):
            while await store.read(_taken_in) < number:  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return False
    return True


class BacklogRequests:
    """Serves the requests of other processes, in the gateway; ``taken_in`` waits for the backlog, so many seconds."""

    def __init__(self, store: Store, wakeups: Wakeups, taken_in: Callable[[float], Awaitable[bool]]) -> None:
        self._store = store
        self._wakeups = wakeups
        self._take_in = taken_in

    async def run(self) -> None:
        """Serve them until cancelled: each wake-up serves all requests up to then."""
        while True:
            await self._wakeups.backlog.wait()
            self._wakeups.backlog.clear()
            try:
                number = await self._store.read(asked)
                if await self._take_in(LONGEST_SECONDS):
                    await self._store.write(lambda tx, number=number: key_sql.set_meta(tx, _TAKEN_IN, str(number)))  # type: ignore[misc]
            except StoreError as error:
                log.warning("backlog.not_served", reason=error.message)
