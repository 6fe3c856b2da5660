"""Backlog requests: other processes, such as ``gateway commands cancel``, ask the gateway to read the broker's backlog.

The command line has no connection to the broker. It increments a number in the registry. The owner of each broker
passes its barrier (:mod:`gateway.mqtt.barrier`) and writes that number down as done there. A device may have answered
at any broker, so each whose owner is connected is waited for.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import StoreError
from gateway.store import broker_sql, key_sql

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


def _taken_in(view: View, instant: int) -> int:
    """Return up to which request all brokers have been read that have an owner."""
    awaited = [each.pk for each in broker_sql.awaited(view, instant)]
    return min((int(broker_sql.fact(view, pk, _TAKEN_IN) or 0) for pk in awaited), default=0)


def _note_taken_in(tx: Tx, number: int) -> None:
    broker_sql.set_fact(tx, tx.context.broker, _TAKEN_IN, str(number))


def is_shared(view: View, broker: int, instant: int) -> bool:
    """Return whether another broker than this one has an owner, or a device may have answered there."""
    return any(each.pk != broker for each in broker_sql.awaited(view, instant))


def _ask(tx: Tx) -> int:
    number = asked(tx) + 1
    key_sql.set_meta(tx, ASKED, str(number))
    return number


async def ask(store: Store, seconds: float) -> bool:
    """Make the gateways on this registry read their backlogs; return False when that took longer."""
    number = await store.write(_ask)
    try:
        async with asyncio.timeout(seconds):
            while await store.read(partial(_taken_in, instant=store.context.clock())) < number:  # noqa: ASYNC110 - another process does it
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
                    await self._store.write(partial(_note_taken_in, number=number))
            except StoreError as error:
                log.warning("backlog.not_served", reason=error.message)
