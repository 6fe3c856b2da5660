"""Withdrawal of discovery messages when Home Assistant comes online.

An empty discovery message is not retained. So a Home Assistant that was away when a device was deleted, or when
discovery was switched off, keeps the device. It publishes ``online`` on its status topic when it has subscribed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import StoreError
from gateway.mqtt.session import PublishRefusedError, SubscriptionRefusedError
from gateway.store import broker_sql, device_sql

if TYPE_CHECKING:
    from gateway.domain.messages import Message
    from gateway.mqtt.session import Session
    from gateway.outbound.home_assistant import DiscoveryTopic
    from gateway.store import Store

log = structlog.get_logger()

BATCH: Final = 200
_ONLINE: Final = b"online"


class Withdrawals:
    """Publishes empty discovery messages for devices that are gone, each time Home Assistant comes online."""

    name = "withdrawals for Home Assistant"

    def __init__(self, store: Store, leaf: DiscoveryTopic) -> None:
        self._store = store
        self._leaf = leaf
        self._broker = store.context.broker
        self._is_mirrored = leaf.detail in store.context.rules.mirrored
        self._came = asyncio.Event()

    def heard(self, message: Message) -> bool:
        """Return whether this is Home Assistant's status."""
        if message.topic not in self._leaf.status_topics:
            return False
        if message.payload.strip() == _ONLINE:
            self._came.set()
        return True

    async def compare(self, session: Session) -> None:
        """Do nothing: nothing of this is retained."""

    async def run(self, session: Session) -> None:
        """Wait for Home Assistant until the connection is gone. Do nothing where no device was ever announced.

        Raises:
            LinkError: the connection is gone.
        """
        try:
            if (
                not self._is_mirrored
                and await self._store.read(lambda view: broker_sql.fact(view, self._broker, self._leaf.fact)) is None
            ):
                return
            await session.subscribe(self._leaf.status_topics)
            while True:
                await self._came.wait()
                self._came.clear()
                await self._withdraw(session)
        except (StoreError, PublishRefusedError, SubscriptionRefusedError) as error:
            log.error("home_assistant.not_published", reason=str(error))  # noqa: TRY400 - no bug of ours

    async def _withdraw(self, session: Session) -> None:
        after, count = 0, 0
        while rows := await self._store.read(
            lambda view: device_sql.names_after(view, after, BATCH, deleted=self._is_mirrored)  # noqa: B023 - awaited here
        ):
            await session.publish_retained([(self._leaf.topic(row.id), b"") for row in rows])
            after, count = rows[-1].pk, count + len(rows)
        log.info("home_assistant.withdrawn", devices=count)
