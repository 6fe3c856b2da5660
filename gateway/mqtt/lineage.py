"""Lineage: whether the registry is the one that served this broker last, as far as the broker can tell.

A machine that was restored as a whole (a snapshot) has its old registry and the old file beside it. The broker lies
elsewhere, and keeps the gateway's last status, which says how far the registry was. It is read once in the life of a
process, before the online message replaces it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.core.received_json import parse_json
from gateway.domain import epoch
from gateway.store import epoch_sql
from gateway.store.epoch_sql import Position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.domain.messages import Message
    from gateway.mqtt.session import Session
    from gateway.store import Store, Tx
    from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

QUIET_SECONDS: Final = 0.25
"""A retained message comes with the answer to the subscription, or soon after it."""


class Lineage:
    """Reads the gateway's own retained status, and begins a new epoch where the broker knows more than the registry.

    It does so once. Two gateways that serve copies of one registry would otherwise do so for ever.
    """

    def __init__(self, store: Store, wakeups: Wakeups, status_topic: str) -> None:
        self._store = store
        self._wakeups = wakeups
        self._topic = status_topic
        self._came = asyncio.Event()
        self._asking = False
        self._judged = False
        self._last: Position | None = None

    async def position(self) -> Position | None:
        """Return how far the registry is now.

        Raises:
            StoreError: it cannot be read.
        """
        return await self._store.read_small(epoch_sql.position)

    def heard(self, message: Message) -> bool:
        """Return whether :meth:`read` subscribed to this message."""
        if not (self._asking and message.retain and message.topic == self._topic):
            return False
        self._last = _position_in(message.payload)
        self._came.set()
        return True

    async def read(self, session: Session) -> None:
        """Read what the broker kept of the last gateway of this id, if anything.

        Raises:
            LinkError: the connection is gone.
        """
        if self._judged:
            return
        self._came.clear()
        self._asking = True
        try:
            await session.subscribe([self._topic])
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._came.wait()
            await session.unsubscribe([self._topic])
        finally:
            self._asking = False

    async def judge(self, held: Mapping[str, bytes]) -> None:
        """Begin a new epoch if the broker shows that the registry was put back; ``held`` are the retained commands.

        Raises:
            StoreError: it cannot be read or written.
        """
        if self._judged:
            return
        payloads, last, broker = list(held.values()), self._last, self._store.context.broker
        found = await self._store.read(lambda view: epoch.lost_history(view, last, payloads, broker))
        if found is not None or not await self._store.read_small(lambda view: epoch_sql.is_announced(view, broker)):
            await self._store.write(lambda tx: _settled(tx, found))
            self._wakeups.notify_events()  # so that the file beside the registry is written too
        self._judged = True


def _settled(tx: Tx, found: tuple[str, int] | None) -> None:
    if found is not None:
        epoch.begin_after_loss(tx, *found)
    epoch_sql.announce(tx, tx.context.broker)


def _position_in(payload: bytes) -> Position | None:
    with suppress(ValueError, TypeError, LookupError):
        said: dict[str, Any] = parse_json(payload)
        if isinstance(said["event_seq"], int):
            return Position(said["registry_id"], said["epoch_id"], 0, said["event_seq"], None)
    return None
