"""Webhook worker: delivers events at least once (contract, section 5).

Each webhook has its own lane that sends one event after the other. So a slow receiver delays only itself, and
events arrive in order. A failed event is tried again later, and the next goes on meanwhile. Only the registry holds the
progress: what was under way when the process died is sent again.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

import structlog

from gateway.core.clock import SECOND_MS, to_rfc3339
from gateway.domain import webhooks
from gateway.errors import StoreError
from gateway.models.events import Event
from gateway.store import Store, delivery_sql
from gateway.store.wakeups import Wakeups
from gateway.webhooks.sender import WebhookSender

log = structlog.get_logger()

MOST_AT_ONCE: Final = 256
_LOOK_SECONDS: Final = 30.0
_TROUBLE_SECONDS: Final = 1.0


class WebhookWorker:
    """Delivers to all webhooks. At most ``most_at_once`` deliveries are under way at a time, one per webhook."""

    def __init__(
        self, store: Store, wakeups: Wakeups, sender: WebhookSender, *, most_at_once: int = MOST_AT_ONCE
    ) -> None:
        self._store = store
        self._wakeups = wakeups
        self._sender = sender
        self._slots = asyncio.Semaphore(most_at_once)
        self._lanes: set[str] = set()
        self._lane_ended = asyncio.Event()
        self._latest: int | None = None

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            while True:
                news = self._wakeups.news
                self._lane_ended.clear()
                await self._mind_the_clock()
                seconds = await self._look(lanes)
                await _first(news, self._lane_ended, seconds=seconds)

    async def _mind_the_clock(self) -> None:
        """Restart the pauses when the clock was set back since the last check, or perhaps before the start."""
        now = self._store.context.clock()
        if self._latest is None or now < self._latest:
            try:
                await self._store.write(webhooks.count_anew, urgent=False)
            except StoreError as error:
                log.error("webhook.not_stored", reason=error.message)  # noqa: TRY400 - no bug of ours
                return  # tried again at the next check
        self._latest = now

    async def _look(self, lanes: asyncio.TaskGroup) -> float:
        """Start lanes for the webhooks that have work. Return the seconds until the next check if nothing happens."""
        now = self._store.context.clock()
        try:
            busy, due = await self._store.read_small(
                lambda view: (delivery_sql.with_work(view, now), delivery_sql.next_due(view, now))
            )
        except StoreError as error:
            log.error("webhook.not_read", reason=error.message)  # noqa: TRY400 - no bug of ours
            return _TROUBLE_SECONDS
        for webhook_id in busy:
            if webhook_id not in self._lanes:
                self._lanes.add(webhook_id)
                lanes.create_task(self._lane(webhook_id), name=f"webhook {webhook_id}")
        return _LOOK_SECONDS if due is None else min(_LOOK_SECONDS, (due - now) / SECOND_MS)

    async def _lane(self, webhook_id: str) -> None:
        """Send what is due, until nothing is."""
        try:
            while await self._deliver_next(webhook_id):
                pass
        except StoreError as error:
            log.error("webhook.not_stored", webhook_id=webhook_id, reason=error.message)  # noqa: TRY400 - no bug of ours
            await asyncio.sleep(_TROUBLE_SECONDS)
        except Exception:  # the lane is started again, and the others must go on
            log.exception("webhook.lane_failed", webhook_id=webhook_id)
            await asyncio.sleep(_TROUBLE_SECONDS)
        finally:
            self._lanes.discard(webhook_id)
            self._lane_ended.set()

    async def _deliver_next(self, webhook_id: str) -> bool:
        """Send the next delivery that is due, or pick up events. Return whether there was anything to do."""
        async with self._slots:
            now = self._store.context.clock()
            delivery = await self._store.read(lambda view: delivery_sql.due(view, webhook_id, now))
            if delivery is None:
                return await self._store.write(lambda tx: webhooks.pick_up(tx, webhook_id), urgent=False)
            keys = webhooks.signing_keys(webhook_id, delivery, self._store.context)
            outcome = await self._sender.send(delivery.url, keys, _event(delivery))
        await self._store.write(lambda tx: webhooks.settle(tx, delivery, outcome), urgent=False)
        _log(delivery, outcome)
        return True


def _event(delivery: delivery_sql.DueDelivery) -> Event:
    return Event(
        id=delivery.event_id,
        type=delivery.event_type,
        created_at=to_rfc3339(delivery.event_created_at),
        data=json.loads(delivery.data),
    )


def _log(delivery: delivery_sql.DueDelivery, outcome: webhooks.DeliveryOutcome) -> None:
    facts = {
        "webhook_id": delivery.webhook_id,
        "delivery_id": delivery.id,
        "event_id": delivery.event_id,
        "attempt": delivery.attempts + 1,
        "status": outcome.response_status,
    }
    if outcome.delivered:
        log.info("webhook.delivered", **facts)
    else:
        log.warning("webhook.failed", **facts, reason=outcome.error)


async def _first(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of these is set, for at most ``seconds``."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
