"""What integrators see of each device: retained topics that follow the registry (contract, section 3).

Once a second the worker takes all devices that have changed since it last looked, and publishes each as it is now: so a
device that changes often is told once a second, and an old state never follows a newer one. After each connect it
counts what the broker holds and marks what differs, as the commands' comparison does. Nothing a device goes by waits
for any of this.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Container, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.errors import StoreError
from gateway.mqtt.retained_scan import RetainedScan, ScanMarker
from gateway.mqtt.session import PublishRefusedError, Session, SubscriptionRefusedError
from gateway.store import Row, Store, Tx, View, device_sql, key_sql, outbox_sql

log = structlog.get_logger()

TICK_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 30.0
BATCH: Final = 200
PIECE: Final = 50
"""Devices that are read in one go, without a turn for others: half a millisecond or so."""
LONGEST_COUNT_SECONDS: Final = 30.0
LATELY_MS: Final = 7 * 86_400_000
CONTENT_TYPE: Final = "application/json"


_Due = tuple[int, tuple[str, bytes]]
"""A row of the outbox by its number, and what is to be shown for it: topic and payload."""


class MirroredTopic(Protocol):
    """One retained topic of each device."""

    @property
    def detail(self) -> str:
        """What the outbox calls it."""

    def topic(self, device_id: str, project_id: str) -> str:
        """Where it lies; with ``+`` twice the filter of all."""

    def projects(self, view: View) -> Container[str] | None:
        """The projects whose devices are shown there; ``None`` for all of them, also while there is no device."""

    def device_of(self, topic: str, payload: bytes) -> str | None:
        """Whose this is, if it is one of ours."""

    def payload(self, device: Row) -> bytes:
        """What a living device is shown as."""

    def compared(self, payload: bytes) -> bytes:
        """The part of it that has to agree with the registry."""


class RetainedMirror:
    """One leaf, kept in step while ``shown``; what an earlier run left is taken back when it is not."""

    def __init__(
        self, store: Store, leaf: MirroredTopic, mark: ScanMarker, *, tick_seconds: float = TICK_SECONDS
    ) -> None:
        self.name = f"mirror {leaf.detail}"
        self._store = store
        self._leaf = leaf
        self._tick = tick_seconds
        self._is_mirrored = outbox_sql.is_mirrored(store.context.rules, leaf.detail)
        self._held: dict[str, tuple[str, bytes]] = {}
        self._place_kept = False
        self._strangers: list[str] = []
        self._census = RetainedScan(mark, [leaf.topic("+", "+")], self._note, LONGEST_COUNT_SECONDS)
        self.heard = self._census.heard

    async def run(self, session: Session) -> None:
        """Publish what has changed, once a second, until the connection is gone.

        Raises:
            LinkError: it is gone; what was not taken stays in the outbox.
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
        """All that was marked before now; what is marked meanwhile is for the next time."""
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
        """The next batch; it is dropped from the outbox in one transaction."""
        due: list[_Due] = []
        while len(due) < BATCH:
            after = due[-1][0] if due else 0
            due += (some := await self._store.read(partial(self._some_due, after=after, up_to=up_to)))
            if len(some) < PIECE:
                break
        return due

    def _some_due(self, view: View, after: int, up_to: int) -> list[_Due]:
        rows = outbox_sql.mirror_rows(view, self._leaf.detail, after, up_to, PIECE)
        shown = self._leaf.projects(view) if rows else None
        return [(row["seq"], self._message(device_sql.by_pk(view, row["device_pk"]), shown)) for row in rows]

    def _message(self, device: Row, shown: Container[str] | None) -> tuple[str, bytes]:
        is_there = device["deleted_at"] is None and _is_in(shown, device)
        return self._leaf.topic(device["id"], device["project_id"]), self._leaf.payload(device) if is_there else b""

    # --- comparison with the broker -----------------------------------------------------------------------------------

    async def compare(self, session: Session) -> None:
        """Clear what lies where nothing is shown any more; count what is held, and mark what differs.

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
        """Whether anybody may read this, or may have: where no account reads, nothing is asked for."""
        return self._leaf.projects(view) != frozenset()

    @property
    def _place(self) -> str:
        return self._leaf.topic(_ANY, _ANY_PROJECT)

    async def _keep_place(self) -> None:
        """Remember where these topics lie before the first is published, so that they are found and cleared."""
        if not self._place_kept:
            known = await self._store.read(lambda view: key_sql.meta(view, self._fact))
            if known != self._place:
                await self._store.write(lambda tx: key_sql.set_meta(tx, self._fact, self._place))
            self._place_kept = True

    async def _move(self, session: Session, place: str) -> None:
        """Where the topics lay under another name, or are shown no more, clear them; remember where they lie now."""
        self._place_kept = False
        known = await self._store.read(lambda view: key_sql.meta(view, self._fact)) or ""
        if known == place:
            return
        cleared = await self._clear(session, known) if known else 0
        await self._store.write(partial(self._remember, place=place))
        log.info("mirror.topic_changed", leaf=self._leaf.detail, now=place or "nowhere", cleared=cleared)

    @property
    def _fact(self) -> str:
        return f"mirror_{self._leaf.detail}"

    def _remember(self, tx: Tx, place: str) -> None:
        key_sql.set_meta(tx, self._fact, place)
        if not self._is_mirrored:
            outbox_sql.drop_mirror(tx, self._leaf.detail)

    async def _clear(self, session: Session, place: str) -> int:
        after, cleared = 0, 0
        while rows := await self._store.read(lambda view: device_sql.names_after(view, after, BATCH)):  # noqa: B023 - awaited here
            topics = (place.replace(_ANY, row["id"]).replace(_ANY_PROJECT, row["project_id"]) for row in rows)
            await session.publish_retained([(topic, b"") for topic in topics])
            after, cleared = rows[-1]["pk"], cleared + len(rows)
        return cleared

    async def _compare(self, session: Session) -> None:
        self._held, self._strangers = {}, []
        told = await self._census.run(session)
        held = len(self._held)
        marked = await self._mark_living(told=told) + await self._mark_gone(told=told)
        await session.publish_retained([(topic, b"") for topic in self._strangers])
        log.info("mirror.compared", leaf=self._leaf.detail, held=held, marked=marked, strangers=self._strangers[:10])

    def _note(self, topic: str, payload: bytes) -> None:
        device_id = self._leaf.device_of(topic, payload)
        if device_id is not None:
            self._held[topic] = device_id, _digest(self._leaf.compared(payload))

    async def _mark_living(self, *, told: bool) -> int:
        """Mark living devices that are shown otherwise than they are; what is not told is not known."""
        after, marked = 0, 0
        while rows := await self._store.read(lambda view: self._living(view, after)):  # noqa: B023 - awaited here
            differing = [
                device["pk"]
                for device, digest in rows
                if digest is not None and (self._took(device) != digest or not told)
            ]
            marked += await self._mark(differing)
            after = rows[-1][0]["pk"]
        return marked

    def _took(self, device: Row) -> bytes | None:
        """What the broker holds of this device, which is accounted for by that."""
        _, digest = self._held.pop(self._leaf.topic(device["id"], device["project_id"]), (None, None))
        return digest

    def _living(self, view: View, after: int) -> list[tuple[Row, bytes | None]]:
        """With what each is shown as; ``None`` for one whose project is not shown."""
        shown = self._leaf.projects(view)
        return [
            (row, _digest(self._leaf.compared(self._leaf.payload(row))) if _is_in(shown, row) else None)
            for row in device_sql.living(view, after, PIECE)
        ]

    async def _mark_gone(self, *, told: bool) -> int:
        """Mark deleted devices that are still shown; topics of devices that nobody knows are strangers."""
        left = [device_id for device_id, _ in self._held.values()]
        known = {
            self._leaf.topic(row["id"], row["project_id"]): row["pk"]
            for row in await self._store.read(partial(_records, device_ids=left))
        }
        self._strangers = [topic for topic in self._held if topic not in known]
        gone = {pk for topic, pk in known.items() if topic in self._held}
        if not told:
            since = self._store.context.clock() - LATELY_MS
            gone |= set(await self._store.read(lambda view: device_sql.deleted_since(view, since)))
        return await self._mark(sorted(gone))

    async def _mark(self, pks: Sequence[int]) -> int:
        if pks:
            await self._store.write(partial(_mark, pks=pks, detail=self._leaf.detail), urgent=False)
        return len(pks)


_ANY: Final = "{device_id}"
_ANY_PROJECT: Final = "{project_id}"


def _is_in(shown: Container[str] | None, device: Row) -> bool:
    return shown is None or device["project_id"] in shown


def _records(view: View, device_ids: Sequence[str]) -> list[Row]:
    found = (device_sql.any_by_id(view, each) for each in device_ids)
    return [row for row in found if row is not None]


def _mark(tx: Tx, pks: Sequence[int], detail: str) -> None:
    for pk in pks:
        outbox_sql.mark_mirror(tx, pk, detail)


def _digest(payload: bytes) -> bytes:
    """Sixteen bytes in place of a thousand: the states of a large fleet are compared at once."""
    return hashlib.blake2b(payload, digest_size=16).digest()
