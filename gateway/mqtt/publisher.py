"""Brings the broker's retained messages in step with the registry, as the outbox says.

For each row it reads what is committed at that moment (the open command, or nothing), publishes that retained, and
drops the row when the broker has it, unless it was marked again meanwhile. A row is never worked on twice at once, so
the last state of a topic is the last that is published.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import structlog

from gateway.mqtt.link import PublishRefusedError, Session
from gateway.outbox import Bells
from gateway.store import Row, Store, View
from gateway.store import commands as command_sql
from gateway.store import outbox as sql
from gateway.topics import Topics

log = structlog.get_logger()

BATCH: Final = 200


class _Due(NamedTuple):
    """A row of the outbox, and what the broker is to hold on its topic."""

    seq: int
    topic: str
    payload: bytes


class Publisher:
    """Works the outbox of commands off, over whatever session there is."""

    def __init__(self, store: Store, topics: Topics, bells: Bells) -> None:
        self._store = store
        self._topics = topics
        self._bells = bells

    async def run(self, session: Session) -> None:
        """Publish until the connection is gone.

        Raises:
            LinkError: it is gone, or the broker refused something; what was not taken stays in the outbox.
        """
        while True:
            while await self.drain(session):
                pass
            await self._bells.work(sql.COMMAND)

    async def drain(self, session: Session) -> int:
        """Bring one batch in step; how many rows it had."""
        due = await self._store.read(self._due)
        if not due:
            return 0
        try:
            await session.publish_retained([(row.topic, row.payload) for row in due])
        except PublishRefusedError as error:
            await self._done([row for row in due if row.topic not in error.topics])
            raise
        await self._done(due)
        return len(due)

    async def _done(self, rows: list[_Due]) -> None:
        await self._store.write(lambda tx: sql.done(tx, [row.seq for row in rows]))
        self._bells.progressed()
        for row in rows:
            event = "command.published" if row.payload else "command.cleared"
            log.info(event, topic=row.topic, bytes=len(row.payload))

    def _due(self, view: View) -> list[_Due]:
        return [
            _Due(
                row["seq"],
                self._topics.command(row["device_id"], row["detail"]),
                retained(view, row["device_pk"], row["detail"]),
            )
            for row in sql.pending(view, sql.COMMAND, BATCH)
        ]


def retained(view: View, device_pk: int, command_type: str) -> bytes:
    """What the broker is to hold on a command topic: the open command, or nothing."""
    command = command_sql.open_of_type(view, device_pk, command_type)
    return b"" if command is None else payload(command)


def payload(command: Row) -> bytes:
    """An open command as the device gets it."""
    return command_sql.payload(command).model_dump_json().encode()
