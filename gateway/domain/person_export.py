"""Export of everything that is kept about an end user, as lines of JSON (contract, section 7).

Each chunk is one short read that also makes its lines, so a person with millions of heartbeats costs no memory and no
long transaction. The last line has the counts: without it the export is not complete.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from gateway.core.clock import to_rfc3339
from gateway.errors import NotFoundError
from gateway.store import View, binding_history_sql, binding_sql, device_sql, person_sql, thinned_sql
from gateway.store.binding_sql import BindingRecord
from gateway.store.command_sql import CommandRecord
from gateway.store.device_sql import moment
from gateway.store.event_sql import EventRecord
from gateway.store.heartbeat_sql import StoredHeartbeat
from gateway.store.person_sql import Mention, RefusedMessage
from gateway.store.thinned_sql import ThinnedHour

HEARTBEATS: Final = 1_000
"""Heartbeats in one chunk: a quarter of a megabyte."""
KINDS: Final = ("binding", "device", "event", "command", "heartbeat", "heartbeat_hour", "refused_message", "mention")
"""Kinds of lines, in the order in which they come, between ``end_user`` and ``end``."""

R = TypeVar("R")
Json = dict[str, Any]


class Read(Protocol):
    """Runs a function in a reader's thread, with a view of the registry."""

    def __call__(self, read: Callable[[View], R], /) -> Awaitable[R]:
        """Return what the function returns."""


@dataclass
class PersonExport:
    """One export. ``now`` is in milliseconds since the epoch."""

    read: Read
    project_id: str
    end_user_id: str
    now: int
    counts: Counter[str] = field(default_factory=Counter)
    _bindings: list[BindingRecord] = field(default_factory=list)

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines, several at a time.

        Raises:
            NotFoundError: an erasure of the person was accepted meanwhile; the export has no end then.
        """
        self._bindings = await self.read(partial(self._of_person))
        yield self._head()
        for source in (
            self._of_devices(),
            self._events(),
            self._naming_events(),
            self._commands(),
            self._heartbeats(),
            self._hours(),
            self._mentions(),
        ):
            async for part in source:
                if part:
                    yield part
        if len(await self.read(self._of_person)) < len(self._bindings):
            raise NotFoundError("The end user is being erased.")
        yield _line("end", {"counts": {kind: self.counts[kind] for kind in KINDS}})

    def _of_person(self, view: View) -> list[BindingRecord]:
        return binding_sql.of_person(view, self.project_id, self.end_user_id)

    def _head(self) -> bytes:
        facts = {"end_user_id": self.end_user_id, "project_id": self.project_id, "exported_at": to_rfc3339(self.now)}
        return _line("end_user", facts) + self._lines("binding", map(_binding, self._bindings))

    def _lines(self, kind: str, facts: Any) -> bytes:
        lines = [_line(kind, each) for each in facts]
        self.counts[kind] += len(lines)
        return b"".join(lines)

    async def _of_devices(self) -> AsyncGenerator[bytes, None]:
        yield await self.read(self._devices)

    def _devices(self, view: View) -> bytes:
        bound = {each.device_pk: each.unbound_at is None for each in self._bindings}
        return self._lines("device", (_device(view, pk, is_bound=is_bound) for pk, is_bound in bound.items()))

    async def _events(self) -> AsyncGenerator[bytes, None]:
        for binding in self._bindings:
            after = 0
            while rows := await self.read(partial(person_sql.events_while_bound, binding=binding, after=after)):
                after = rows[-1].seq
                yield self._lines("event", map(_event, rows))

    async def _naming_events(self) -> AsyncGenerator[bytes, None]:
        after: int | None = 0
        while after is not None:
            found, after = await self.read(
                partial(person_sql.naming_events, project_id=self.project_id, end_user_id=self.end_user_id, after=after)
            )
            yield self._lines("event", (_event(row) for row in found if not self._is_during(row)))

    def _is_during(self, event: EventRecord) -> bool:
        return any(
            event.device_pk == each.device_pk
            and each.first_event <= event.seq
            and (each.last_event is None or event.seq <= each.last_event)
            for each in self._bindings
        )

    async def _commands(self) -> AsyncGenerator[bytes, None]:
        for binding in self._bindings:
            after = ""
            while rows := await self.read(partial(person_sql.commands_while_bound, binding=binding, after=after)):
                after = rows[-1].id
                yield self._lines("command", map(_command, rows))

    async def _heartbeats(self) -> AsyncGenerator[bytes, None]:
        for binding in self._bindings:
            after: int | None = None
            while True:
                part, after = await self.read(partial(self._some_heartbeats, binding=binding, after=after))
                if after is None:
                    break
                yield part

    def _some_heartbeats(self, view: View, *, binding: BindingRecord, after: int | None) -> tuple[bytes, int | None]:
        rows = binding_history_sql.page(view, binding, after=after, limit=HEARTBEATS)
        lines = self._lines("heartbeat", (_heartbeat(binding.device_id, row) for row in rows))
        return lines, rows[-1].id if rows else None

    async def _hours(self) -> AsyncGenerator[bytes, None]:
        for binding in self._bindings:
            below = thinned_sql.NEVER
            while rows := await self.read(
                partial(thinned_sql.of_binding, binding=binding, below=below, limit=HEARTBEATS)
            ):
                below = rows[-1].hour
                yield self._lines("heartbeat_hour", (_hour(binding.device_id, row) for row in rows))

    async def _mentions(self) -> AsyncGenerator[bytes, None]:
        refused = await self.read(
            partial(
                person_sql.refused_messages,
                project_id=self.project_id,
                end_user_id=self.end_user_id,
                bindings=self._bindings,
            )
        )
        yield self._lines("refused_message", map(_refused, refused))
        async for some in mentions(self.read, self.project_id, self.end_user_id):
            yield self._lines("mention", (each._asdict() for each in some))


async def mentions(read: Read, project_id: str, end_user_id: str) -> AsyncGenerator[Sequence[Mention], None]:
    """Yield the places that people or devices filled, and that name the person: some at a time."""
    yield await read(partial(person_sql.other_mentions, project_id=project_id, end_user_id=end_user_id))
    serial_number: str | None = ""
    while serial_number is not None:
        in_devices = partial(
            person_sql.mentions_in_devices, project_id=project_id, end_user_id=end_user_id, after=serial_number
        )
        found, serial_number = await read(in_devices)
        yield found
    command_id: str | None = ""
    while command_id is not None:
        in_commands = partial(
            person_sql.naming_commands, project_id=project_id, end_user_id=end_user_id, after=command_id
        )
        commands, command_id = await read(in_commands)
        yield [Mention("command", each.id) for each in commands]


def _line(kind: str, facts: Json) -> bytes:
    return json.dumps({"kind": kind, **facts}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _binding(binding: BindingRecord) -> Json:
    return {
        "device_id": binding.device_id,
        "binding_generation": binding.generation,
        "bound_at": to_rfc3339(binding.bound_at),
        "unbound_at": moment(binding.unbound_at),
    }


def _device(view: View, pk: int, *, is_bound: bool) -> Json:
    """Return a device: all of it while it is the person's, afterwards only what identifies it."""
    device = device_sql.by_pk(view, pk)
    if is_bound:
        return device_sql.to_model(device).model_dump(mode="json")
    return {"id": device.id, "serial_number": device.serial_number, "model": device.model}


def _event(event: EventRecord) -> Json:
    facts = {"id": event.id, "type": event.type, "created_at": to_rfc3339(event.created_at)}
    return facts | {"data": json.loads(event.data)}


def _command(command: CommandRecord) -> Json:
    return {
        "id": command.id,
        "device_id": command.device_id,
        "type": command.type,
        "status": command.status,
        "params": json.loads(command.params),
        "created_at": to_rfc3339(command.created_at),
        "delivered_at": moment(command.delivered_at),
        "executed_at": moment(command.executed_at),
        "result": None if command.result is None else json.loads(command.result),
        "error": None if command.error is None else json.loads(command.error),
    }


def _heartbeat(device_id: str, beat: StoredHeartbeat) -> Json:
    return {
        "device_id": device_id,
        "received_at": to_rfc3339(beat.received_at),
        "sent_at": moment(beat.sent_at),
        "battery_percent": beat.battery_percent,
        "storage_used_mb": beat.storage_used_mb,
        "storage_total_mb": beat.storage_total_mb,
        "signal_strength_dbm": beat.signal_strength_dbm,
        "firmware_version": beat.firmware_version,
        "device_state": beat.device_state,
        "pending_recordings": beat.pending_recordings,
        "flags": beat.flags,
        "connection_type": None if beat.radio is None else [beat.radio],
    }


def _hour(device_id: str, hour: ThinnedHour) -> Json:
    return {"device_id": device_id, **thinned_sql.to_record(hour).model_dump(mode="json")}


def _refused(message: RefusedMessage) -> Json:
    facts = message._asdict() | {"at": to_rfc3339(message.at)}
    return {name: value for name, value in facts.items() if name != "id"}
