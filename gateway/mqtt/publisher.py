"""Publisher of the outbox: keeps the retained messages of one broker in step with the registry.

For each row it reads what is committed at that moment (the open command, or nothing) and publishes that retained. It
drops the row when the broker has it, unless it was marked again meanwhile. No row is worked on twice at once, so the
last state of a topic is the last that is published. Rows with a later turn stay until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Final, NamedTuple

import structlog

from gateway.core.clock import SECOND_MS
from gateway.core.command_types import CommandType
from gateway.core.topics import Topics
from gateway.mqtt.session import PublishRefusedError, Session
from gateway.runtime.tracing import NOTHING, Kind, Span
from gateway.store import Store, Tx, View, command_sql, due_topic_sql, outbox_sql, reset_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.due_topic_sql import DueTopic
from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

OFFLINE: Final = b'{"status":"offline"}'
BATCH: Final = 100
_RESET: Final = str(CommandType.FACTORY_RESET)
LONGEST_WAIT_SECONDS: Final = 1.0
"""Upper bound of a wait, so that a step of the machine's clock is noticed."""


Clear = Callable[[Session, Sequence[str]], Awaitable[None]]
"""Clears what is retained on topics that must not hold anything."""


class _Due(NamedTuple):
    """A row of the outbox, and what the broker is to hold on its topic; None leaves the topic as it is."""

    seq: int
    kind: str
    topic: str
    payload: bytes | None
    trace: str | None = None
    """The place in a trace where the command continues, if it has one."""
    first_of: str | None = None
    """The command that is sent for the first time by this."""
    device_id: str = ""


class Publisher:
    """Works off the outbox rows of retained topics, over the current session."""

    def __init__(self, store: Store, topics: Topics, wakeups: Wakeups, clear: Clear | None = None) -> None:
        self._store = store
        self._topics = topics
        self._wakeups = wakeups
        self._clear = clear
        self._broker = store.context.broker

    async def run(self, session: Session) -> None:
        """Publish until the connection is gone.

        Raises:
            LinkError: it is gone, or the broker refused something; what was not accepted stays in the outbox.
        """
        if await self._store.read_small(partial(outbox_sql.paced, broker=self._broker)):
            await self._store.write(self._resume_pace)
        link = self._store.context.link
        link.is_up = True
        try:
            while True:
                while await self.drain(session) == BATCH:
                    pass
                await self._deal_with(session, await self._more())
        finally:
            link.is_up = False

    async def _more(self) -> list[_Due]:
        """Wait for a commit that marked something, or for the next turn.

        Return what that commit has made due, if it was one of this process; there may be more.
        """
        turn = await self._store.read_small(partial(outbox_sql.next_due, broker=self._broker))
        context = self._store.context
        seconds = None if turn is None else (turn - context.clock()) / SECOND_MS
        if seconds is not None and seconds > outbox_sql.step_ms(context.rules) / SECOND_MS:  # the clock was set back
            await self._store.write(self._resume_pace)
            return []
        asked = self._store.read_after_commit(self._due, (outbox_sql.COMMAND, outbox_sql.TOPIC))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)):
                    await self._wakeups.wait_for(outbox_sql.COMMAND)
            return asked.result() if asked.done() else []
        finally:
            asked.cancel()

    def _resume_pace(self, tx: Tx) -> None:
        outbox_sql.resume_pace(tx, self._broker)

    async def drain(self, session: Session) -> int:
        """Publish one batch; return how many rows it had."""
        due = await self._store.read_small(partial(self._due, now=self._store.context.clock()))
        await self._deal_with(session, due)
        return len(due)

    async def _deal_with(self, session: Session, due: list[_Due]) -> None:
        if not due:
            return
        if any(row.first_of for row in due):
            due = await self._store.write(self._mark_sent)
        try:
            await self._publish(session, [row for row in due if row.payload is not None])
        except PublishRefusedError as error:
            await self._done([row for row in due if row.topic not in error.topics])
            raise
        await self._clear_news(session, due)
        await self._done(due)

    async def _clear_news(self, session: Session, rows: list[_Due]) -> None:
        """Clear what devices whose binding has ended may have left retained unseen."""
        if self._clear is None or session.sees_retained:
            return
        ended = [row.device_id for row in rows if row.kind == outbox_sql.TOPIC and row.payload is not None]
        await self._clear(session, [topic for device_id in ended for topic in self._topics.news(device_id)])

    async def _publish(self, session: Session, rows: list[_Due]) -> None:
        messages = [(row.topic, row.payload or b"") for row in rows]
        if messages:
            session.expect_reply()
        if not any(row.trace for row in rows):
            await session.publish_retained(messages)
            return
        with ExitStack() as stack:
            spans = [stack.enter_context(self._span(row)) for row in rows]
            await session.publish_retained(messages, traces=[span.traceparent for span in spans])

    def _span(self, row: _Due) -> Span:
        if row.trace is None:
            return NOTHING
        return self._store.tracer.begin(
            f"publish commands/{row.topic.rpartition('/')[2]}",
            row.trace,
            Kind.PRODUCER,
            messaging__system="mqtt",
            messaging__destination__name=row.topic,
        )

    async def _done(self, rows: list[_Due]) -> None:
        resets = [row.device_id for row in rows if row.payload == b"" and row.topic.endswith(f"/{_RESET}")]

        def done(tx: Tx) -> None:
            outbox_sql.done(tx, [row.seq for row in rows])
            reset_sql.set_retained_cleared(tx, resets)

        await self._store.write(done)
        self._wakeups.notify_progress()
        for row in rows:
            if row.payload is not None:
                event = f"{row.kind}.published" if row.payload else f"{row.kind}.cleared"
                log.info(event, topic=row.topic, bytes=len(row.payload))

    def _mark_sent(self, tx: Tx) -> list[_Due]:
        """Mark the commands that are sent now, before they are: a cancel depends on that. Return the rows, read again.

        Commands that were queued while the link was up are marked already.
        """
        due = self._due(tx, tx.now)
        command_sql.set_sent(tx, [row.first_of for row in due if row.first_of])
        return due

    def _due(self, view: View, now: int) -> list[_Due]:
        due = due_topic_sql.due(view, now, BATCH, self._broker)
        return [self._command(each) if each.row.kind == outbox_sql.COMMAND else self._topic(each) for each in due]

    def _command(self, due: DueTopic) -> _Due:
        row, command = due.row, wanted(due)
        topic = self._topics.command(row.device_id, row.detail)
        if command is None:
            return _Due(row.seq, row.kind, topic, b"", device_id=row.device_id)
        first_of = command.id if command.sent_at is None else None
        return _Due(row.seq, row.kind, topic, payload(command), command.traceparent, first_of)

    def _topic(self, due: DueTopic) -> _Due:
        row = due.row
        return _Due(row.seq, row.kind, self._topics.status(row.device_id), status(due), device_id=row.device_id)


def wanted(due: DueTopic) -> CommandRecord | None:
    """Return the open command that the broker of the row is to hold on a command topic, or None."""
    return due.command if due.row.is_served else None


def status(due: DueTopic) -> bytes | None:
    """Return what the broker is to hold on a device's status topic, or None while the device publishes there.

    A device whose token opens nothing cannot publish its offline message. Not every broker publishes the will of a
    client that it cuts (Mosquitto does not on SIGHUP). A broker that does not serve the device holds nothing.
    """
    if due.row.deleted_at is not None or not due.row.is_served:
        return b""
    if not due.opens_something:
        return OFFLINE
    # A device that was just bound has published nothing there yet. What lies there is of its last binding.
    return None if due.is_at_broker else b""


def payload(command: CommandRecord) -> bytes:
    """Return an open command in the form that the device gets."""
    return command_sql.payload(command).model_dump_json().encode()
