"""SQL that finds what names an end user, or happened to a device of theirs: for the export and the erasure.

Tables are read in chunks, by the numbers of their rows, so that no read takes long. A database finds texts that contain
the id; :func:`names` decides, since ``eu_1`` is also the beginning of ``eu_12``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import command_sql
from gateway.store.binding_sql import BindingRecord
from gateway.store.command_sql import CommandRecord
from gateway.store.event_sql import EventRecord
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import View

CHUNK: Final = 2_000
"""Rows that are looked at in one read: a few milliseconds."""

_EVENTS: Final = f"SELECT {columns(EventRecord, 'e')} FROM events e"  # noqa: S608 - our own columns


class Chunk(NamedTuple):
    """What a chunk of events holds, and the ``seq`` of its last event: None when there are no more."""

    events: list[EventRecord]
    last: int | None


class RefusedMessage(NamedTuple):
    """A refused message; ``at`` is in milliseconds since the epoch."""

    id: int
    at: int
    device_id: str | None
    source: str
    code: str
    message: str
    field: str | None
    payload: str


class Mention(NamedTuple):
    """A place that people or a device filled, and that names the end user: the field, and the id of what has it."""

    field: str
    id: str


def pattern(end_user_id: str) -> re.Pattern[str]:
    """Return the pattern of this id as a whole word."""
    return re.compile(rf"(?<![A-Za-z0-9_]){re.escape(end_user_id)}(?![A-Za-z0-9])")


def names(end_user_id: str, *texts: str | None) -> bool:
    """Return whether one of these texts names the end user."""
    word = pattern(end_user_id)
    return any(text is not None and word.search(text) for text in texts)


def events_while_bound(view: View, binding: BindingRecord, after: int) -> list[EventRecord]:
    """Return the next events of the device during this binding, after the ``seq`` ``after``, oldest first."""
    return view.records(
        EventRecord,
        f"""{_EVENTS} WHERE e.device_pk = ?1 AND e.seq > ?2 AND e.seq >= ?3 AND (?4 IS NULL OR e.seq <= ?4)
            ORDER BY e.seq LIMIT ?5""",
        *(binding.device_pk, after, binding.first_event, binding.last_event, CHUNK),
    )


def naming_events(view: View, project_id: str, end_user_id: str, after: int) -> Chunk:
    """Return those of the project's next events after ``after`` that name the end user."""
    chunk = "SELECT seq FROM events WHERE project_id = ? AND seq > ? ORDER BY seq LIMIT ?"
    last: int | None = view.value(f"SELECT max(seq) FROM ({chunk}) AS chunk", project_id, after, CHUNK)  # noqa: S608 - a constant
    if last is None:
        return Chunk([], None)
    rows = view.records(
        EventRecord,
        f"""{_EVENTS} WHERE e.project_id = ? AND e.seq > ? AND e.seq <= ? AND {view.dialect.contains("e.data")}
            ORDER BY e.seq""",
        *(project_id, after, last, end_user_id.lower()),
    )
    return Chunk([row for row in rows if names(end_user_id, row.data)], last)


def refused_messages(
    view: View, project_id: str, end_user_id: str, bindings: list[BindingRecord]
) -> list[RefusedMessage]:
    """Return refused messages that name the end user, or came from a device while it was theirs.

    There are at most ``refusals_kept`` of all. One whose device is unknown belongs to no project.
    """
    rows = view.all(
        f"""SELECT {columns(RefusedMessage, "r")}, d.pk AS device_pk FROM refusals r
            LEFT JOIN devices d ON d.id = r.device_id WHERE d.pk IS NULL OR d.project_id = ? ORDER BY r.id""",  # noqa: S608 - our own columns
        project_id,
    )
    return [
        RefusedMessage(*(row[name] for name in RefusedMessage._fields))
        for row in rows
        if names(end_user_id, row["message"], row["field"], row["payload"], row["source"])
        or any(_is_during(binding, row["device_pk"], row["at"]) for binding in bindings)
    ]


def _is_during(binding: BindingRecord, device_pk: int | None, at: int) -> bool:
    return (
        binding.device_pk == device_pk
        and binding.bound_at <= at
        and (binding.unbound_at is None or at <= binding.unbound_at)
    )


def mentions_in_devices(view: View, project_id: str, end_user_id: str, after: str) -> tuple[list[Mention], str | None]:
    """Return where the next devices of the project, after a serial number, name the end user.

    Also return the last serial number, or None at the end.
    """
    rows = view.all(
        """SELECT d.id, d.serial_number, d.name, d.metadata, d.settings, d.firmware_version, d.tags,
            h.device_name
            FROM devices d LEFT JOIN health h ON h.device_pk = d.pk
            WHERE d.project_id = ? AND d.serial_number > ? ORDER BY d.serial_number LIMIT ?""",
        *(project_id, after, CHUNK),
    )
    found = [
        Mention(f"device.{field}", row["id"])
        for row in rows
        for field in ("serial_number", "name", "metadata", "settings", "firmware_version", "tags", "device_name")
        if row[field] is not None and end_user_id in row[field] and names(end_user_id, row[field])
    ]
    return found, rows[-1]["serial_number"] if len(rows) == CHUNK else None


def other_mentions(view: View, project_id: str, end_user_id: str) -> list[Mention]:
    """Return where the project, its keys, webhooks, accounts and resets name the end user."""
    asked = {
        "project.name": ("SELECT id, name AS text FROM projects WHERE id = ?", "name"),
        "api_key.name": ("SELECT id, name AS text FROM api_keys WHERE project_id = ?", "name"),
        "webhook.url": ("SELECT id, url AS text FROM webhooks WHERE project_id = ?", "url"),
        "webhook.description": ("SELECT id, description AS text FROM webhooks WHERE project_id = ?", "description"),
        "reset.reason": ("SELECT command_id AS id, reason AS text FROM resets WHERE project_id = ?", "reason"),
        "job.name": ("SELECT id, name AS text FROM jobs WHERE project_id = ?", "name"),
        "job.reason": ("SELECT id, reason AS text FROM jobs WHERE project_id = ?", "reason"),
        "job.params": ("SELECT id, params AS text FROM jobs WHERE project_id = ?", "params"),
        "account.name": ("SELECT name AS id, name AS text FROM broker_accounts WHERE project_id = ?", "name"),
    }
    return [
        Mention(field, row["id"])
        for field, (query, column) in asked.items()
        for row in view.all(f"{query} AND {view.dialect.contains(column)}", project_id, end_user_id.lower())
        if names(end_user_id, row["text"])
    ]


class NamingCommand(NamedTuple):
    """A command whose texts name the end user; ``final_at`` is null while it is open."""

    id: str
    params: str
    result: str | None
    error: str | None
    idempotency_key: str | None
    final_at: int | None

    @property
    def texts(self) -> tuple[str | None, ...]:
        """Return the columns that may name someone, in the order of the fields."""
        return self.params, self.result, self.error, self.idempotency_key


def naming_commands(
    view: View, project_id: str, end_user_id: str, after: str
) -> tuple[list[NamingCommand], str | None]:
    """Return which of the next commands after the id ``after`` name the end user, and the last id: None at the end."""
    last: str | None = view.value(
        "SELECT max(id) FROM (SELECT id FROM commands WHERE id > ? ORDER BY id LIMIT ?) AS chunk", after, CHUNK
    )
    if last is None:
        return [], None
    contains = " OR ".join(view.dialect.contains(f"c.{text}") for text in ("params", "result", "error"))
    rows = view.all(
        f"""SELECT c.id, c.params, c.result, c.error, c.idempotency_key, c.final_at FROM commands c
            JOIN devices d ON d.pk = c.device_pk WHERE c.id > ? AND c.id <= ? AND d.project_id = ?
            AND ({contains} OR {view.dialect.contains("c.idempotency_key")})""",  # noqa: S608 - our own columns
        *(after, last, project_id, *(end_user_id.lower() for _ in range(4))),
    )
    found = (NamingCommand(*row) for row in rows)
    return [each for each in found if names(end_user_id, *each.texts)], last


def commands_while_bound(view: View, binding: BindingRecord, after: str) -> list[CommandRecord]:
    """Return the next commands of this binding after the id ``after``, oldest first."""
    return view.records(
        CommandRecord,
        f"""{command_sql.COMMANDS} WHERE c.device_pk = ?1 AND c.id > ?2 AND (c.binding_generation = ?3
            OR (?4 = 1 AND c.created_at >= ?5 AND (?6 IS NULL OR c.created_at <= ?6))) ORDER BY c.id LIMIT ?7""",
        *(binding.device_pk, after, binding.generation, int(binding.after_heartbeat is None)),
        *(binding.bound_at, binding.unbound_at, CHUNK),
    )
