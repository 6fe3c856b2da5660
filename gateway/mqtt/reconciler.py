"""Reconciler: retained messages on the broker = open commands in the registry (contract, section 4).

After each connect the gateway reads what the broker holds on the command topics, and marks in the outbox whatever
differs. A broker returns a part of what it holds: Mosquitto as much as it queues for a client, RabbitMQ nothing to a
wildcard (:mod:`gateway.mqtt.retained_scan`). An open command that did not arrive is asked for by its name before it is
published again.

What no open command explains is cleared. A broker that holds more than it returned is asked for such messages. They may
be on topics that were closed since a week before the last comparison, and after a restore on those of every device. A
broker that returns nothing to a wildcard gets these topics cleared unseen. Nothing is wanted of a device whose home is
another broker.

The comparison takes the same memory at any number of open commands. It keeps the digests of at most MOST_HELD messages,
and the payloads of at most ASKED_AT_ONCE. It reads and writes the registry in short pieces. A command that changes
meanwhile is marked by that change, so the pieces need not be of one instant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from gateway.core.topics import Topics
from gateway.mqtt import command_pages
from gateway.mqtt.command_pages import PAGE, OpenTopic, Place, UnseenTopics, chunks
from gateway.mqtt.lineage import Lineage
from gateway.mqtt.retained_scan import ASKED_AT_ONCE, RetainedScan, ScanMarker, digest_of
from gateway.mqtt.session import LinkError, Session
from gateway.store import Store, View, broker_sql, device_sql

log = structlog.get_logger()

MOST_HELD: Final = 60_000
"""Digests that are kept of one answer: about 15 MB. Mosquitto returns about 45,000 commands with a queue of 64 MiB."""
_TOLD: Final = 10
"""Orphans that the log names."""


class Reconciler:
    """Compares command topics. ``mark`` is the gateway's own retained status.

    What differs may show that the registry was put back. ``lineage`` judges that before anything of it is replaced.
    """

    def __init__(self, store: Store, names: Topics, mark: ScanMarker, lineage: Lineage) -> None:
        self._store = store
        self._broker = store.context.broker
        self._topics = names
        self._lineage = lineage
        self._held: dict[str, bytes] = {}
        self._asked: dict[str, bytes] | None = None
        self._asked_for: frozenset[str] = frozenset()
        self._answers_names = True
        self._holds_more = False
        self._began_at = 0
        self._names_asked = 0
        self._census = RetainedScan(mark, [names.command("+", "+")], self._note)
        self.heard = self._census.heard

    async def run(self, session: Session) -> None:
        """Compare, and mark what differs. The gateway's online message must be on the broker already.

        Raises:
            LinkError: the connection is gone; the next one compares again.
        """
        self._held, self._asked, self._holds_more, self._names_asked = {}, None, False, 0
        self._began_at = self._store.context.clock()
        scan = await self._census.run(session)
        held = len(self._held)
        self._holds_more |= not scan.ended
        self._answers_names = held > 0 or (scan.ended and not scan.told)  # otherwise it holds none, or does not answer
        marked = await self._compare_open(session)
        await self._judge(session)
        left, orphans = await self._mark_left(session)
        marked += left
        if self._holds_more or not scan.told:
            marked += await self._compare_unseen(session, told=scan.told)
        if not scan.is_complete:
            await self._mark_statuses()
        await self._store.write(lambda tx: broker_sql.note_compared(tx, self._broker))
        log.info(
            "broker.reconciled",
            held=held,
            asked=self._names_asked,
            marked=marked,
            strangers=orphans,
            wildcard_retained=scan.told,
        )

    def _note(self, topic: str, payload: bytes) -> None:
        if self._asked is not None:
            if not self._asked_for.isdisjoint((topic, f"{topic.rpartition('/')[0]}/+")):
                self._asked[topic] = payload
        elif topic in self._held or len(self._held) < MOST_HELD:
            self._held[topic] = digest_of(payload)
        else:
            self._holds_more = True

    async def _ask(self, session: Session, topics: Sequence[str]) -> tuple[Mapping[str, bytes], bool]:
        """Ask for these topics. Return what arrived, and whether what did not arrive does not exist.

        A broker that does not answer is asked no more: each time would take some seconds.
        """
        if not self._answers_names:
            return {}, False
        asked: dict[str, bytes] = {}
        self._asked, self._asked_for = asked, frozenset(topics)
        self._names_asked += len(topics)
        try:
            self._answers_names = await self._census.ask(session, topics)
        finally:
            self._asked = None
        return asked, self._answers_names

    # --- open commands ------------------------------------------------------------------------------------------------

    async def _compare_open(self, session: Session) -> int:
        """Mark open commands that the broker lacks; take from ``_held`` what is as it should be."""
        after, marked = (0, ""), 0
        missing: dict[str, OpenTopic] = {}
        while rows := await self._store.read(lambda view: self._open_topics(view, after)):  # noqa: B023 - awaited here
            missing |= {row.topic: row for row in rows if self._is_missing(row)}
            if len(missing) > ASKED_AT_ONCE - PAGE:
                marked += await self._mark(await self._lacking(session, missing))
                missing = {}
            after = rows[-1].place
        return marked + await self._mark(await self._lacking(session, missing))

    def _is_missing(self, row: OpenTopic) -> bool:
        """Return whether the command did not arrive, and is not about to be published. What differs stays held."""
        held = self._held.get(row.topic)
        if held is not None and held == row.digest:
            del self._held[row.topic]
        return held is None and row.digest is not None and not row.is_marked

    async def _lacking(self, session: Session, missing: Mapping[str, OpenTopic]) -> list[Place]:
        """Ask for these topics by their names. Return those that hold nothing. What differs is put into ``_held``."""
        found, _ = await self._ask(session, list(missing)) if missing else ({}, True)
        lacking, beyond = [], []
        for topic, row in missing.items():
            held = digest_of(found[topic]) if topic in found else None
            if held is not None and row.sent_at is not None and row.sent_at < self._began_at:
                self._holds_more = True  # it was there, and the broker left it out
            if held is not None and held != row.digest and len(self._held) < MOST_HELD:
                self._held[topic] = held
            elif held != row.digest:
                lacking.append(row.place)
                beyond += [found[topic]] if topic in found else []
        if not self._lineage.is_judged:
            await self._lineage.examine(beyond)
        return lacking

    # --- messages that no open command explains -----------------------------------------------------------------------

    async def _judge(self, session: Session) -> None:
        """Have the lineage judge what is left in ``_held``: the payloads are read again, a few at a time.

        Raises:
            LinkError: the broker does not return them again. They are not replaced before they were judged.
        """
        if not self._lineage.is_judged:
            self._answers_names = True  # once more: this is the last time that it can be asked
            for topics in chunks(list(self._held), ASKED_AT_ONCE):
                found, is_known = await self._ask(session, topics)
                if not is_known:
                    raise LinkError("The broker does not return retained commands again that it has just returned.")
                await self._lineage.examine(found.values())
        await self._lineage.judge()

    async def _mark_left(self, session: Session) -> tuple[int, list[str]]:
        """Mark what is left in ``_held``, and clear topics of unknown devices. Return how many, and some of those."""
        marked = 0
        orphans: list[str] = []
        for topics in chunks(list(self._held), ASKED_AT_ONCE):
            found = await self._store.read(partial(command_pages.places, names=self._topics, held=topics))
            marked += await self._mark({place for place in found.values() if place is not None})
            unknown = [topic for topic, place in found.items() if place is None]
            await session.publish_retained([(topic, b"") for topic in unknown])
            orphans += unknown[: _TOLD - len(orphans)]
        self._held = {}
        return marked, orphans

    async def _compare_unseen(self, session: Session, *, told: bool) -> int:
        """Look for messages on topics that the broker did not show; return how many were marked."""
        now = self._store.context.clock()
        marked = 0
        waiting: list[UnseenTopics] = []
        for read in await self._store.read(lambda view: command_pages.unseen(view, self._broker, now)):
            after = None
            while True:
                page, after = await self._store.read(lambda view: read(view, after))  # noqa: B023 - awaited here
                waiting += page
                if after is None or len(waiting) > ASKED_AT_ONCE - PAGE:
                    marked += await self._mark(await self._unexplained(session, waiting, told=told))
                    waiting = []
                if after is None:
                    break
        return marked

    async def _unexplained(self, session: Session, rows: Sequence[UnseenTopics], *, told: bool) -> list[Place]:
        """Return which of these topics must be cleared: those that hold something, or all if the broker cannot say."""
        devices = {row.device_id: row.device_pk for row in rows}
        if told and devices:
            found, is_known = await self._ask(session, [self._topics.command(each, "+") for each in devices])
            if is_known:
                return await self._store.read(
                    lambda view: command_pages.differing(view, self._topics, self._broker, devices, found)
                )
        return [(row.device_pk, command_type) for row in rows for command_type in row.types]

    async def _mark_statuses(self) -> None:
        now = self._store.context.clock()
        deleted = await self._store.read(
            lambda view: device_sql.deleted_since(view, command_pages.lately(view, self._broker, now))
        )
        for some in chunks(deleted, ASKED_AT_ONCE):
            await self._store.write(partial(command_pages.mark_statuses, device_pks=some, broker=self._broker))

    # --- short reads and writes ---------------------------------------------------------------------------------------

    def _open_topics(self, view: View, after: Place) -> list[OpenTopic]:
        return command_pages.open_topics(view, self._topics, self._broker, after)

    async def _mark(self, found: Collection[Place]) -> int:
        marked = 0
        for some in chunks(list(found), ASKED_AT_ONCE):
            marked += await self._store.write(partial(command_pages.mark, found=some, broker=self._broker))
        return marked
