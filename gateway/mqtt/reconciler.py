"""Reconciler: retained messages on the broker = open commands in the registry (contract, section 4).

After each connect the gateway reads what the broker holds on the command topics, and marks in the outbox whatever
differs. Some brokers do not return all that they hold (:mod:`gateway.mqtt.retained_scan`). There every open command is
published again. Every topic that was closed since a week before the last comparison is cleared unseen, and after a
restore every topic of every device. Nothing is wanted of a device whose home is another broker.
"""

from __future__ import annotations

from typing import Final

import structlog

from gateway.core import topics
from gateway.core.clock import DAY_MS
from gateway.core.command_types import CommandType
from gateway.mqtt.publisher import payload
from gateway.mqtt.retained_scan import RetainedScan, ScanMarker
from gateway.mqtt.session import Session
from gateway.store import Store, Tx, broker_sql, command_sql, device_sql, epoch_sql, home_sql, outbox_sql

log = structlog.get_logger()

_ALL: Final = 1 << 40  # for LIMIT
LATELY_MS: Final = 7 * DAY_MS


class Reconciler:
    """Compares command topics. ``mark`` is the gateway's own retained status."""

    def __init__(self, store: Store, names: topics.Topics, mark: ScanMarker) -> None:
        self._store = store
        self._topics = names
        self.held: dict[str, bytes] = {}
        """What the broker held on command topics at the last comparison, by topic."""
        self._census = RetainedScan(mark, [names.command("+", "+")], self.held.__setitem__)
        self.heard = self._census.heard

    async def run(self, session: Session) -> None:
        """Compare, and mark what differs. The gateway's online message must be on the broker already.

        Raises:
            LinkError: the connection is gone; the next one compares again.
        """
        self.held.clear()
        told = await self._census.run(session)
        names, held, count = self._topics, dict(self.held), len(self.held)
        broker = self._store.context.broker
        strangers, marked = await self._store.write(
            lambda tx: compare(tx, names, held, trustworthy=told, broker=broker)
        )
        await session.publish_retained([(topic, b"") for topic in strangers])
        log.info("broker.reconciled", held=count, marked=marked, strangers=strangers[:10], wildcard_retained=told)


def compare(
    tx: Tx, names: topics.Topics, held: dict[str, bytes], *, trustworthy: bool, broker: int
) -> tuple[list[str], int]:
    """Mark every command topic that differs at this broker.

    Return topics of devices that are not ours, and how many were marked.
    """
    differing = _wanted(tx, names, held, trustworthy=trustworthy, broker=broker)
    left = {topic: names.parse(topic) for topic in held}  # it belongs to no open command
    of_commands = {topic: place for topic, place in left.items() if isinstance(place, topics.CommandTopic)}
    found = device_sql.any_by_ids(tx, {place.device_id for place in of_commands.values()})
    pks = {device.id: device.pk for device in found}
    ours = {topic: place for topic, place in of_commands.items() if place.device_id in pks}
    differing |= {(pks[place.device_id], place.type) for place in ours.values()}
    strangers = [topic for topic in held if topic not in ours]
    if not trustworthy:
        since = broker_sql.compared_at(tx, broker, tx.now) - LATELY_MS
        differing |= {(row.device_pk, row.type) for row in command_sql.closed_since(tx, since)}
        if not epoch_sql.is_announced(tx, broker):  # what a lost registry published is not known
            differing |= {(row.pk, kind) for row in device_sql.names_after(tx, 0, _ALL) for kind in CommandType}
        for device_pk in device_sql.deleted_since(tx, since):
            outbox_sql.mark_topic(tx, device_pk, outbox_sql.STATUS, broker=broker)
    differing -= outbox_sql.turns(tx, tx.now, broker)  # a bulk reset keeps its pace
    for device_pk, command_type in sorted(differing):
        outbox_sql.mark_command(tx, device_pk, command_type, broker=broker)
    broker_sql.note_compared(tx, broker)
    return strangers, len(differing)


def _wanted(
    tx: Tx, names: topics.Topics, held: dict[str, bytes], *, trustworthy: bool, broker: int
) -> set[tuple[int, str]]:
    """Return device and type of each open command that this broker lacks, and take those that it holds from ``held``.

    Where ``held`` may lack some, a command of a device that another broker serves may be here unseen.
    """
    elsewhere = home_sql.elsewhere_with_open_commands(tx, broker)
    differing = set()
    for row in command_sql.open_of_all(tx):
        if row.device_pk in elsewhere:
            differs = not trustworthy
        else:
            differs = held.pop(names.command(row.device_id, row.type), None) != payload(row)
        if differs:
            differing.add((row.device_pk, row.type))
    return differing
