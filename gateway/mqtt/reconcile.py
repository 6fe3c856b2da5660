"""The comparison of both ends: retained messages on the broker = open commands in SQLite (contract, section 4).

After each connect the gateway asks the broker what it holds on the command topics, and marks in the outbox whatever
differs. Some brokers (RabbitMQ) hand no retained messages to a wildcard. So the gateway asks, by a wildcard too, for a
topic on which it knows there is one, its own status: where that does not come back, or the answer does not come to an
end in time, what is missing in it means nothing, and then every open command is published again and every topic that
was closed lately is cleared unseen.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from gateway import topics
from gateway.inbound import Message
from gateway.mqtt.link import Session
from gateway.mqtt.publisher import payload
from gateway.store import Store, Tx, devices, outbox
from gateway.store import commands as command_sql

log = structlog.get_logger()

QUIET_SECONDS: Final = 0.25
LONGEST_SECONDS: Final = 4.0
LATELY_MS: Final = 7 * 86_400_000


class Reconciler:
    """Hears what the broker holds while :meth:`run` asks for it. ``birth`` is the gateway's own retained status."""

    def __init__(self, store: Store, names: topics.Topics, birth: tuple[str, bytes]) -> None:
        self._store = store
        self._topics = names
        self._own_status, self._birth = birth
        self._census: _Census | None = None

    def heard(self, message: Message) -> bool:
        """Whether the broker sent this for the comparison; if that is on, take note of it."""
        commands, statuses = (_matches(topic_filter, message.topic) for topic_filter in self._topics.audit)
        if self._census is not None and message.topic == self._own_status:
            self._census.own_status(retained_copy=message.retain)
        elif self._census is not None and commands and message.retain:
            self._census.command(message.topic, message.payload)
        return commands or statuses

    async def run(self, session: Session) -> None:
        """Compare, and mark what differs. The gateway's birth must be on the broker already.

        Raises:
            LinkError: the connection is gone; the next one compares again.
        """
        census = self._census = _Census()
        try:
            await session.subscribe(self._topics.audit)
            # Once more, now as a mark in the stream: what the broker had to tell came before it.
            await session.publish(self._own_status, self._birth, retain=True)
            await census.complete()
            await session.unsubscribe(self._topics.audit)
        finally:
            self._census = None
        names, held, told = self._topics, census.held, census.trustworthy
        count = len(held)
        strangers, marked = await self._store.write(lambda tx: compare(tx, names, held, trustworthy=told))
        await session.publish_retained([(topic, b"") for topic in strangers])
        log.info("broker.reconciled", held=count, marked=marked, strangers=strangers[:10], wildcard_retained=told)


def _matches(topic_filter: str, topic: str) -> bool:
    wanted, levels = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(one in ("+", level) for one, level in zip(wanted, levels, strict=True))


class _Census:
    """What the broker said it holds, and whether that was all."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.trustworthy = False
        self._status_retained = False
        self._marks = 0
        self._marked = asyncio.Event()
        self._heard = asyncio.Event()

    def own_status(self, *, retained_copy: bool) -> None:
        self._marks += 1
        self._status_retained = self._status_retained or retained_copy
        if not retained_copy or self._marks > 1:
            self._marked.set()

    def command(self, topic: str, payload: bytes) -> None:
        self.held[topic] = payload
        self._heard.set()

    async def complete(self) -> None:
        """Wait for the mark, and then until nothing more comes: not every broker keeps the order."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_SECONDS):
                await self._marked.wait()
                await self._quiet()
                self.trustworthy = self._status_retained

    async def _quiet(self) -> None:
        with suppress(TimeoutError):
            while True:
                self._heard.clear()
                await asyncio.wait_for(self._heard.wait(), QUIET_SECONDS)


def compare(tx: Tx, names: topics.Topics, held: dict[str, bytes], *, trustworthy: bool) -> tuple[list[str], int]:
    """Mark every command topic that differs; topics of devices that are not ours, and how many were marked."""
    differing: set[tuple[int, str]] = set()
    for row in command_sql.open_of_all(tx):
        topic = names.command(row["device_id"], row["type"])
        if held.pop(topic, None) != payload(row):
            differing.add((row["device_pk"], row["type"]))
    strangers = []
    for topic in held:  # what is left lies there for no open command
        place = names.parse(topic)
        device = devices.any_by_id(tx, place.device_id) if isinstance(place, topics.Command) else None
        if device is None or not isinstance(place, topics.Command):
            strangers.append(topic)
        else:
            differing.add((device["pk"], place.type))
    if not trustworthy:
        differing |= {(row["device_pk"], row["type"]) for row in command_sql.closed_since(tx, tx.now - LATELY_MS)}
        for device_pk in devices.deleted_since(tx, tx.now - LATELY_MS):
            outbox.mark_topic(tx, device_pk, outbox.STATUS)
    differing -= outbox.turns(tx, tx.now)  # a bulk reset keeps its pace
    for device_pk, command_type in sorted(differing):
        outbox.mark_command(tx, device_pk, command_type)
    return strangers, len(differing)
