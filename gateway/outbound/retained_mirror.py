"""Mirror of device state on retained topics, for integrators (contract, section 3).

Once a second the worker takes all devices that have changed since the last time, and publishes each as it is now. A
device that changes often is published once a second, and an old state never follows a newer one. After each connect it
compares with what the broker holds, as the reconciler does for commands. No device depends on any of this.

The comparison takes the same memory at any size of the fleet. It keeps a digest of at most MOST_HELD states that the
broker returns to a wildcard, and the topics of the others. It asks for these by their names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.core.clock import DAY_MS
from gateway.errors import StoreError
from gateway.mqtt.retained_scan import ASKED_AT_ONCE, RetainedScan, ScanMarker, digest_of
from gateway.mqtt.session import PublishRefusedError, Session, SubscriptionRefusedError
from gateway.outbound.noted_topics import NotedTopics
from gateway.store import Store, Tx, View, broker_sql, device_sql, home_sql, outbox_sql
from gateway.store.device_sql import DeviceRecord

log = structlog.get_logger()

TICK_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 30.0
BATCH: Final = 200
PIECE: Final = 50
"""Devices that are read at a time, without a turn for other tasks: about half a millisecond."""
LONGEST_COUNT_SECONDS: Final = 30.0
LATELY_MS: Final = 7 * DAY_MS
MOST_HELD: Final = 60_000
"""States that are kept of one answer: about 20 MB. Mosquitto returns about as many with a queue of 64 MiB."""
CONTENT_TYPE: Final = "application/json"


_Due = tuple[int, tuple[str, bytes]]
"""The number of an outbox row, and its message: topic and payload."""


class MirroredTopic(Protocol):
    """One retained topic of each device."""

    @property
    def detail(self) -> str:
        """Return its name in the outbox."""

    def topic(self, device_id: str, project_id: str) -> str:
        """Return the topic; with ``+`` twice, the filter for all of them."""

    def projects(self, view: View) -> Container[str] | None:
        """Return the projects whose devices are mirrored there, or None for all, also without any device."""

    def device_of(self, topic: str, payload: bytes) -> str | None:
        """Return the device of this message if it is one of ours, or None."""

    def payload(self, device: DeviceRecord) -> bytes:
        """Return the payload for a device that is not deleted."""

    def compared(self, payload: bytes) -> bytes:
        """Return the part of the payload that must agree with the registry."""


class RetainedMirror:
    """One mirrored topic, kept in step while the settings have it. Otherwise what an earlier run left is cleared."""

    def __init__(
        self, store: Store, leaf: MirroredTopic, mark: ScanMarker, *, tick_seconds: float = TICK_SECONDS
    ) -> None:
        self.name = f"mirror {leaf.detail}"
        self._store = store
        self._leaf = leaf
        self._broker = store.context.broker
        self._tick = tick_seconds
        self._is_mirrored = outbox_sql.is_mirrored(store.context.rules, leaf.detail)
        self._held: dict[str, tuple[str, bytes]] = {}
        self._asked: dict[str, bytes] | None = None
        self._place_kept = False
        self._noted = NotedTopics()
        self._strangers: list[str] = []
        self._census = RetainedScan(mark, [leaf.topic("+", "+")], self._note, LONGEST_COUNT_SECONDS)
        self.heard = self._census.heard

    async def run(self, session: Session) -> None:
        """Publish what has changed, once a second, until the connection is gone.

        Raises:
            LinkError: it is gone; what was not accepted stays in the outbox.
        """
        while self._is_mirrored:
            pause = self._tick
            try:
                await self._publish_changes(session)
            except PublishRefusedError as error:
                log.error("mirror.refused", topic=error.topics[0], refused=len(error.topics), reason=error.reason)  # noqa: TRY400 - no bug of ours
                pause = REFUSED_SECONDS
            except StoreError as error:
                log.error("mirror.not_read", reason=error.message)  # noqa: TRY400 - no bug of ours
            await asyncio.sleep(pause)

    async def _publish_changes(self, session: Session) -> None:
        """Publish all that was marked before now. What is marked meanwhile is for the next time."""
        up_to = await self._store.read(outbox_sql.newest)
        while rows := await self._due(up_to):
            await self._keep_place()
            try:
                await session.publish_retained([message for _, message in rows], content_type=CONTENT_TYPE)
            except PublishRefusedError as error:
                await self._done([seq for seq, (topic, _) in rows if topic not in error.topics])
                raise
            await self._done([seq for seq, _ in rows])

    async def _done(self, seqs: list[int]) -> None:
        await self._store.write(lambda tx: outbox_sql.done(tx, seqs), urgent=False)

    async def _due(self, up_to: int) -> list[_Due]:
        """Return the next batch; it is dropped from the outbox in one transaction."""
        due: list[_Due] = []
        while len(due) < BATCH:
            after = due[-1][0] if due else 0
            due += (some := await self._store.read(partial(self._some_due, after=after, up_to=up_to)))
            if len(some) < PIECE:
                break
        return due

    def _some_due(self, view: View, after: int, up_to: int) -> list[_Due]:
        rows = outbox_sql.mirror_rows(view, self._leaf.detail, after, up_to, PIECE, broker=self._broker)
        if not rows:
            return []
        shown = self._leaf.projects(view)
        elsewhere = home_sql.elsewhere(view, [row.device_pk for row in rows], self._broker)
        devices = device_sql.by_pks(view, [row.device_pk for row in rows])
        return [
            (row.seq, self._message(devices[row.device_pk], shown, is_here=row.device_pk not in elsewhere))
            for row in rows
        ]

    def _message(self, device: DeviceRecord, shown: Container[str] | None, *, is_here: bool) -> tuple[str, bytes]:
        is_there = is_here and device.deleted_at is None and _is_in(shown, device)
        return self._leaf.topic(device.id, device.project_id), self._leaf.payload(device) if is_there else b""

    # --- comparison with the broker -----------------------------------------------------------------------------------

    async def compare(self, session: Session) -> None:
        """Clear what must not be there any more, compare what is held, and mark what differs.

        Raises:
            LinkError: the connection is gone.
        """
        try:
            is_mirrored = self._is_mirrored and await self._store.read(self._is_read)
            await self._move(session, self._place if is_mirrored else "")
            if is_mirrored:
                await self._compare(session)
        except (PublishRefusedError, SubscriptionRefusedError) as error:
            log.error("mirror.not_compared", leaf=self._leaf.detail, reason=str(error))  # noqa: TRY400 - no bug of ours

    def _is_read(self, view: View) -> bool:
        """Return whether an account reads this, or once did. Without such an account nothing is compared."""
        return self._leaf.projects(view) != frozenset()

    @property
    def _place(self) -> str:
        return self._leaf.topic(_ANY, _ANY_PROJECT)

    async def _keep_place(self) -> None:
        """Record the topics before the first message, so that they can be found and cleared later."""
        if not self._place_kept:
            known = await self._store.read(lambda view: broker_sql.fact(view, self._broker, self._fact))
            if known != self._place:
                await self._store.write(lambda tx: broker_sql.set_fact(tx, self._broker, self._fact, self._place))
            self._place_kept = True

    async def _move(self, session: Session, place: str) -> None:
        """Clear the topics under an earlier name, or when they are switched off; record the present ones."""
        self._place_kept = False
        known = await self._store.read(lambda view: broker_sql.fact(view, self._broker, self._fact)) or ""
        if known == place:
            return
        cleared = await self._clear(session, known) if known else 0
        await self._store.write(partial(self._remember, place=place))
        log.info("mirror.topic_changed", leaf=self._leaf.detail, now=place or "nowhere", cleared=cleared)

    @property
    def _fact(self) -> str:
        return f"mirror_{self._leaf.detail}"

    def _remember(self, tx: Tx, place: str) -> None:
        broker_sql.set_fact(tx, self._broker, self._fact, place)
        if not self._is_mirrored:
            outbox_sql.drop_mirror(tx, self._leaf.detail, broker=self._broker)

    async def _clear(self, session: Session, place: str) -> int:
        after, cleared = 0, 0
        while rows := await self._store.read(lambda view: device_sql.names_after(view, after, BATCH)):  # noqa: B023 - awaited here
            topics = (place.replace(_ANY, row.id).replace(_ANY_PROJECT, row.project_id) for row in rows)
            await session.publish_retained([(topic, b"") for topic in topics])
            after, cleared = rows[-1].pk, cleared + len(rows)
        return cleared

    async def _compare(self, session: Session) -> None:
        self._held, self._noted, self._asked, self._strangers = {}, NotedTopics(), None, []
        told = (await self._census.run(session)).is_complete
        held = len(self._held)
        holds_some = held > 0 or not told
        marked = await self._mark_living(session, holds_some=holds_some) + await self._mark_gone(told=told)
        await session.publish_retained([(topic, b"") for topic in self._strangers])
        log.info("mirror.compared", leaf=self._leaf.detail, held=held, marked=marked, strangers=self._strangers[:10])
        self._held, self._noted, self._strangers = {}, NotedTopics(), []

    def _note(self, topic: str, payload: bytes) -> None:
        if self._asked is not None:
            self._asked[topic] = digest_of(self._leaf.compared(payload))
        elif (device_id := self._leaf.device_of(topic, payload)) is not None:
            if len(self._held) < MOST_HELD:
                self._held[topic] = device_id, digest_of(self._leaf.compared(payload))
            else:
                self._noted.add(topic, device_id)

    async def _mark_living(self, session: Session, *, holds_some: bool) -> int:
        """Mark devices whose mirrored state differs.

        What the broker did not return is asked for once more, if it ``holds_some``. A broker that holds no state of any
        device is asked for none: a million of them took half an hour.
        """
        after, marked = 0, 0
        missing: dict[str, tuple[int, bytes]] = {}
        while rows := await self._store.read(lambda view: self._living(view, after)):  # noqa: B023 - awaited here
            differing = []
            for device, digest in rows:
                topic = self._leaf.topic(device.id, device.project_id)
                if digest is None:
                    continue
                _, held = self._held.pop(topic, (None, None))
                if held is None:
                    missing[topic] = device.pk, digest
                elif held != digest:
                    differing.append(device.pk)
            if not holds_some:
                differing += [pk for pk, _ in missing.values()]
                missing = {}
            elif len(missing) > ASKED_AT_ONCE - PIECE:
                differing += await self._ask(session, missing)
                missing = {}
            marked += await self._mark(differing)
            after = rows[-1][0].pk
        return marked + await self._mark(await self._ask(session, missing))

    async def _ask(self, session: Session, missing: Mapping[str, tuple[int, bytes]]) -> list[int]:
        """Ask for these topics by their names. Return the devices for which the broker holds something else.

        These are row number of the device and digest of its state, by topic.
        """
        self._asked = {}
        try:
            if missing:
                await self._census.ask(session, list(missing))
            return [pk for topic, (pk, digest) in missing.items() if self._asked.get(topic) != digest]
        finally:
            self._asked = None

    def _living(self, view: View, after: int) -> list[tuple[DeviceRecord, bytes | None]]:
        """Return devices with the digest of their mirrored state, or None where it is not mirrored at this broker."""
        shown, rows = self._leaf.projects(view), device_sql.living(view, after, PIECE)
        elsewhere = home_sql.elsewhere(view, [row.pk for row in rows], self._broker)
        here = [_is_in(shown, row) and row.pk not in elsewhere for row in rows]
        return [
            (row, digest_of(self._leaf.compared(self._leaf.payload(row))) if is_here else None)
            for row, is_here in zip(rows, here, strict=True)
        ]

    async def _mark_gone(self, *, told: bool) -> int:
        """Mark devices that are still mirrored, and are deleted or have another home.

        Topics of unknown devices are counted as orphans.
        """
        for topic, (device_id, _) in self._held.items():
            self._noted.add(topic, device_id)
        gone: set[int] = set()
        for some in self._noted.batches(BATCH):
            found, strangers = await self._store.read(partial(self._gone, noted=some))
            gone |= found
            self._strangers += strangers
        if not told:
            since = self._store.context.clock() - LATELY_MS
            gone |= set(await self._store.read(lambda view: device_sql.deleted_since(view, since)))
            gone |= set(await self._store.read(lambda view: home_sql.moved_since(view, since)))
        return await self._mark(sorted(gone))

    def _gone(self, view: View, noted: Mapping[str, str]) -> tuple[set[int], list[str]]:
        """Return the devices that must not be mirrored on these topics, and the topics that are of no device."""
        shown, rows = self._leaf.projects(view), device_sql.any_by_ids(view, list(noted.values()))
        elsewhere = home_sql.elsewhere(view, [row.pk for row in rows], self._broker)
        known = {self._leaf.topic(row.id, row.project_id): row for row in rows}
        kept = {row.pk for row in rows if row.deleted_at is None and _is_in(shown, row)} - elsewhere
        gone = {row.pk for topic, row in known.items() if topic in noted and row.pk not in kept}
        return gone, [topic for topic in noted if topic not in known]

    async def _mark(self, pks: Sequence[int]) -> int:
        if pks:
            await self._store.write(
                partial(_mark, pks=pks, detail=self._leaf.detail, broker=self._broker), urgent=False
            )
        return len(pks)


_ANY: Final = "{device_id}"
_ANY_PROJECT: Final = "{project_id}"


def _is_in(shown: Container[str] | None, device: DeviceRecord) -> bool:
    return shown is None or device.project_id in shown


def _mark(tx: Tx, pks: Sequence[int], detail: str, broker: int) -> None:
    outbox_sql.mark_all_mirrors(tx, pks, detail, broker=broker)
