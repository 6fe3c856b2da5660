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
    from collections.abc import Iterable

    from gateway.domain.messages import Message
    from gateway.mqtt.session import Session
    from gateway.store import Store
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
        self._epoch_id: str | None = None
        self._last: Position | None = None
        self._unknown: epoch.UnknownCommand | None = None

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

    @property
    def is_judged(self) -> bool:
        """Return whether :meth:`judge` has been called in the life of this process."""
        return self._judged

    async def examine(self, held: Iterable[bytes]) -> None:
        """Note what these retained commands show: payloads that differ from the open commands of the registry.

        Raises:
            StoreError: the registry cannot be read.
        """
        payloads, before = list(held), self._unknown
        if payloads:
            self._unknown = await self._store.read(lambda view: epoch.unknown_command(view, payloads, before))

    async def judge(self) -> None:
        """Begin a new epoch, at most once, if the broker has shown that the registry was put back.

        Raises:
            StoreError: it cannot be read or written.
        """
        if not self._judged:
            last, unknown, broker = self._last, self._unknown, self._store.context.broker
            found = await self._store.read(lambda view: epoch.lost_history(view, last, unknown, broker))
            if found is not None:
                await self._store.write(lambda tx: epoch.begin_after_loss(tx, *found))
                self._wakeups.notify_events()  # so that the file beside the registry is written too
            self._judged = True
        here = await self.position()
        self._epoch_id = here.epoch_id if here else None

    async def announce(self) -> None:
        """Note that the broker was compared in the epoch of the last :meth:`judge`.

        Raises:
            StoreError: it cannot be read or written.
        """
        if self._epoch_id is None:
            await self.judge()
        epoch_id, broker = self._epoch_id or "", self._store.context.broker
        if await self._store.read_small(lambda view: epoch_sql.announced(view, broker)) != epoch_id:
            await self._store.write(lambda tx: epoch_sql.announce(tx, broker, epoch_id))
            self._wakeups.notify_events()


def _position_in(payload: bytes) -> Position | None:
    with suppress(ValueError, TypeError, LookupError):
        said: dict[str, Any] = parse_json(payload)
        if isinstance(said["event_seq"], int):
            return Position(said["registry_id"], said["epoch_id"], 0, said["event_seq"], None)
    return None
