"""SQL of the audit trail: events are written in the transaction that they report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import ids
from gateway.core.clock import to_rfc3339
from gateway.core.redaction import redact
from gateway.models.events import Event
from gateway.store import actor_names, measurements, short_ids
from gateway.store.records import columns
from gateway.store.row_statement import INTEGER, TEXT, Insertion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.records import DeviceKey
    from gateway.store.transaction import Tx, View

FEED_CURSOR: Final = "events_told"
"""The fact with the ``seq`` up to which events were published over MQTT; missing where none are published."""

REGISTRY: Final = ""
"""The project of events that concern the whole registry: API keys of a project cannot read them."""
CLI: Final = actor_names.CLI
Actor = str
"""Who did it: the id of a key or a device, ``user:{sub}``, ``gateway``, or ``cli``."""


class EventRecord(NamedTuple):
    """An event of the audit trail.

    ``seq`` is its place in the order of the commits. ``device_pk`` is ``None`` where it happened to no device.
    ``created_at`` is in milliseconds since the epoch, ``data`` is JSON text.
    """

    seq: int
    id: str
    project_id: str
    device_pk: int | None
    type: str
    created_at: int
    data: str


class NewEvent(NamedTuple):
    """An event that is not stored yet: it gets its number then."""

    id: str
    project_id: str
    device_pk: int | None
    type: str
    created_at: int
    data: str
    actor: Actor | None
    """None for the device itself: so its events are not in the index of actors."""


class EventWithDevice(NamedTuple):
    """An event to publish, with the id of its device: ``None`` where it happened to no device."""

    seq: int
    id: str
    project_id: str
    type: str
    created_at: int
    data: str
    device_id: str | None


class EventWithProject(NamedTuple):
    """An administrative event with the name of its project: ``None`` where it concerns the whole registry."""

    id: str
    type: str
    created_at: int
    data: str
    project: str | None


_NUMBERED: Final = Insertion(
    "events",
    {
        "seq": INTEGER,
        "id": TEXT,
        "project_id": TEXT,
        "device_pk": INTEGER,
        "type": TEXT,
        "created_at": INTEGER,
        "data": TEXT,
        "actor": TEXT,
    },
)
EVENTS: Final = f"SELECT {columns(EventRecord, 'e')} FROM events e"  # noqa: S608 - our own columns
_WITH_DEVICE: Final = f"""SELECT {columns(EventWithDevice, "e", device_id="d.id")}
    FROM events e LEFT JOIN devices d ON d.pk = e.device_pk"""  # noqa: S608 - the same
_WITH_PROJECT: Final = f"""SELECT {columns(EventWithProject, "e", project="p.name")}
    FROM events e LEFT JOIN projects p ON p.id = e.project_id"""  # noqa: S608 - the same


def lock_numbers(tx: Tx) -> None:
    """Lock the row of the numbers for this transaction (PostgreSQL).

    A batch that runs beside others does so before it writes anything that devices share: events and kept counts.
    """
    tx.run("SELECT seq FROM event_counter FOR NO KEY UPDATE")


def record(tx: Tx, device: DeviceKey, kind: str, actor: Actor, **facts: Any) -> None:
    """Record that ``kind`` happened to this device; ``facts`` go into the event's ``data``, secrets redacted."""
    insert(tx, [of_device(tx, device, kind, actor, **facts)])


def of_device(tx: Tx, device: DeviceKey, kind: str, actor: Actor, **facts: Any) -> NewEvent:
    """Return the event that ``kind`` happened to this device, for :func:`insert` in the same transaction."""
    data = {"device_id": device.id, **_actor(tx, actor), **_origin(tx), **_blotted(facts)}
    return _new(tx, device.project_id, device.pk, kind, None if actor == device.id else actor, data)


def record_administrative(tx: Tx, project_id: str, kind: str, actor: Actor, /, **facts: Any) -> None:
    """Record an event of a key, a webhook and so on; ``project_id`` may be ``REGISTRY``."""
    insert(tx, [_new(tx, project_id, None, kind, actor, {**_actor(tx, actor), **_origin(tx), **_blotted(facts)})])


def insert(tx: Tx, events: Sequence[NewEvent]) -> None:
    """Insert events in this order. The numbers of many are drawn at once."""
    if not events:
        return
    tx.wrote_events = True
    if len(events) == 1:
        marks = ", ".join("?" * len(NewEvent._fields))
        tx.run(f"INSERT INTO events ({', '.join(NewEvent._fields)}) VALUES ({marks})", *events[0])  # noqa: S608 - our own columns
        return
    first = tx.value(tx.dialect.next_events, len(events))
    tx.run_rows(_NUMBERED, [(seq, *event) for seq, event in enumerate(events, first)])


def _new(
    tx: Tx, project_id: str, device_pk: int | None, kind: str, actor: Actor | None, data: dict[str, Any]
) -> NewEvent:
    tx.measure(measurements.EVENT, kind)
    text = json.dumps(data, ensure_ascii=False)
    return NewEvent(tx.new_id(ids.EVENT), project_id, device_pk, kind, tx.now, text, actor)


def _origin(tx: Tx) -> dict[str, Any]:
    return {} if tx.client_address is None else {"client_address": tx.client_address}


def _actor(tx: Tx, actor: Actor) -> dict[str, Any]:
    """Return who acted, with the name at this time: names change, and keys and people are deleted."""
    name = actor_names.of(tx, actor)
    return {"actor": actor} if name is None else {"actor": actor, "actor_name": name}


def _blotted(fact: Any) -> Any:
    # Facts are partly text from a device, and no secret may reach an event (contract, section 1).
    if isinstance(fact, str):
        return redact(fact)
    if isinstance(fact, dict):
        return {redact(name): _blotted(value) for name, value in fact.items()}
    return [_blotted(each) for each in fact] if isinstance(fact, list) else fact


def newest(view: View) -> int:
    """Return the ``seq`` of the newest event of all; 0 without events."""
    seq: int = view.value("SELECT coalesce(max(seq), 0) FROM events")
    return seq


def after(view: View, seq: int, limit: int) -> list[EventWithDevice]:
    """Return events of all projects after this one, oldest first."""
    return view.records(EventWithDevice, f"{_WITH_DEVICE} WHERE e.seq > ? ORDER BY e.seq LIMIT ?", seq, limit)


def to_model(event: EventRecord | EventWithProject) -> Event:
    """Return an event as the API shows it."""
    return Event(id=event.id, type=event.type, created_at=to_rfc3339(event.created_at), data=json.loads(event.data))


def administrative(
    view: View, project_id: str | None, kind: str | None, limit: int, actor: Actor | None = None
) -> list[EventWithProject]:
    """Return the newest events that happened to no device, newest first.

    They are those of all projects and of the registry, unless ``project_id`` names one.
    """
    return view.records(
        EventWithProject,
        f"""{_WITH_PROJECT}
            WHERE e.device_pk IS NULL AND (?1 IS NULL OR e.project_id = ?1) AND (?2 IS NULL OR e.type = ?2)
            AND (?4 IS NULL OR e.actor = ?4) ORDER BY e.seq DESC LIMIT ?3""",
        *(project_id, kind, limit, actor),
    )


def told_of_key(view: View, kind: str, project_id: str, key_id: str, expires_at: str) -> bool:
    """Return whether there is an event of this kind about this key with this expiry."""
    found = view.one(
        f"""SELECT 1 FROM events WHERE project_id = ? AND type = ? AND {view.dialect.json_member("data", "key_id")} = ?
            AND {view.dialect.json_member("data", "expires_at")} = ? LIMIT 1""",  # noqa: S608 - constants
        *(project_id, kind, key_id, expires_at),
    )
    return found is not None


def recent(view: View, device_pk: int, kind: str, since: int, until: int) -> int:
    """Return how many of the device's newest hundred events are of this kind, within ``since`` and ``until``.

    Events that a wrong clock dated ahead do not count. Otherwise they would count until the clock has caught up.
    """
    count: int = view.value(
        """SELECT count(*) FROM (SELECT type, created_at FROM events WHERE device_pk = ? ORDER BY seq DESC LIMIT 100)
            AS newest WHERE type = ? AND created_at > ? AND created_at <= ?""",
        *(device_pk, kind, since, until),
    )
    return count


def prune(tx: Tx, before: int, limit: int) -> int:
    """Delete up to ``limit`` events that are older than ``before``; return how many.

    The index of events by project and time finds them, also those of the registry. Events that are still to be sent
    stay. A webhook has not picked them up, their delivery is pending, or a broker that is followed lacks them.
    """
    return tx.run(
        f"""DELETE FROM events WHERE seq IN (
            SELECT e.seq FROM (SELECT id FROM projects UNION ALL SELECT '{REGISTRY}') AS p CROSS JOIN events e
            WHERE {short_ids.same(tx.dialect, "e.project_id", "p.id")} AND e.created_at < ?1
            AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_seq = e.seq AND d.status = 'pending')
            AND NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.project_id = e.project_id AND w.cursor < e.seq
                AND NOT EXISTS (SELECT 1 FROM webhook_gaps g WHERE g.webhook_id = w.id
                    AND g.after_seq < e.seq AND e.seq <= coalesce(g.up_to, e.seq)))
            AND e.seq <= coalesce((SELECT min(CAST(f.value AS BIGINT)) FROM broker_facts f JOIN brokers b
                ON b.pk = f.broker_pk WHERE f.key = ?3 AND b.left_out_at IS NULL), e.seq)
            LIMIT ?2)""",  # noqa: S608 - constants
        *(before, limit, FEED_CURSOR),
    ).rowcount
