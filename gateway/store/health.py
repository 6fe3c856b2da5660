"""SQL of what devices say of themselves: the newest state, its history, presence, and what was refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway import fleet_model, model
from gateway.clock import from_datetime, to_rfc3339
from gateway.store.database import Row
from gateway.store.devices import moment
from gateway.store.outbox import DISCOVERY, STATE, mark_shown

if TYPE_CHECKING:
    from gateway.store.database import Tx, View

NEWEST: Final = (
    "battery_percent",
    "storage_used_mb",
    "storage_total_mb",
    "signal_strength_dbm",
    "recording_state",
    "device_name",
    "pending_recordings",
    "flags",
)
"""Columns of ``health`` that hold what the device said last."""

_PAYLOAD_KEPT: Final = 256
_SENT_BY: Final = f"""SELECT d.pk, d.id, d.project_id, d.binding_generation, d.bound_at, d.firmware_version,
    coalesce(json_extract(d.settings, '$.power.low_battery_threshold_percent'), 20) AS low_battery_threshold,
    coalesce(h.connection, 'offline') AS connection, coalesce(h.low_battery, 0) AS low_battery,
    coalesce(h.storage_full, 0) AS storage_full, h.last_heartbeat_at, {", ".join(f"h.{name}" for name in NEWEST)},
    (SELECT state FROM tokens WHERE device_pk = d.pk AND state <> 'revoked' ORDER BY id DESC LIMIT 1) AS token_state
    FROM devices d LEFT JOIN health h ON h.device_pk = d.pk
    WHERE d.deleted_at IS NULL AND d.id """  # noqa: S608 - our own columns
_SENDER: Final = _SENT_BY + "= ?"
_SENDERS: Final = _SENT_BY + "IN (SELECT value FROM json_each(?))"
_HISTORY: Final = """INSERT OR IGNORE INTO heartbeats (device_pk, received_at, sent_at, battery_percent,
    storage_used_mb, storage_total_mb, signal_strength_dbm, firmware_version, device_state, pending_recordings,
    flags, radio) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_UPSERT: Final = f"""INSERT INTO health (device_pk, last_heartbeat_at, offline_due_at, connection, last_seen_by,
    low_battery, storage_full, {", ".join(NEWEST)}) VALUES (?, ?, ?, 'online', ?, ?, ?{", ?" * len(NEWEST)})
    ON CONFLICT (device_pk) DO UPDATE SET last_heartbeat_at = excluded.last_heartbeat_at, connection = 'online',
    offline_due_at = excluded.offline_due_at, last_seen_by = coalesce(excluded.last_seen_by, last_seen_by),
    low_battery = excluded.low_battery, storage_full = excluded.storage_full,
    {", ".join(f"{name} = excluded.{name}" for name in NEWEST)}"""  # noqa: S608 - our own columns


class Beat(NamedTuple):
    """A heartbeat, the device that sent it (as :func:`senders` reads it), and over which link."""

    device: Row
    heartbeat: model.Heartbeat
    radio: model.Radio | None


class Newest(NamedTuple):
    """What is known of a device after its last heartbeat; ``said`` has a value for each of :data:`NEWEST`, in order."""

    device_pk: int
    radio: model.Radio | None
    low_battery: bool
    storage_full: bool
    said: Iterable[Any]


def sender(view: View, device_id: str) -> Row | None:
    """What a message of this device is judged by: the device, its newest health, the state of its token."""
    return view.one(_SENDER, device_id)


def senders(view: View, device_ids: Iterable[str]) -> dict[str, Row]:
    """The same for many, by id; those that nobody knows are left out."""
    rows = view.all(_SENDERS, json.dumps(list(device_ids)))
    return {row["id"]: row for row in rows}


def store_history(tx: Tx, beats: Sequence[Beat]) -> list[bool]:
    """Add them to the history; for each whether it was new: same device and same ``sent_at`` is the very same one."""
    rows = [_history_row(tx.now, beat) for beat in beats]
    tx.run("SAVEPOINT history")
    stored = tx.connection.executemany(_HISTORY, rows).rowcount
    if stored == len(rows):
        new = [True] * len(rows)
    else:  # rare: which were there already is asked for only now
        tx.run("ROLLBACK TO history")
        new = [tx.run(_HISTORY, *row).rowcount == 1 for row in rows]
    tx.run("RELEASE history")
    return new


def _history_row(now: int, beat: Beat) -> tuple[Any, ...]:
    heartbeat = beat.heartbeat
    return (
        beat.device["pk"],
        now,
        None if heartbeat.sent_at is None else from_datetime(heartbeat.sent_at),
        heartbeat.battery_percent,
        heartbeat.storage_used_mb,
        heartbeat.storage_total_mb,
        heartbeat.signal_strength_dbm,
        heartbeat.firmware_version,
        _text(heartbeat.device_state),
        heartbeat.pending_recordings,
        heartbeat.flags,
        _text(beat.radio),
    )


def _text(word: str | None) -> str | None:
    """A member of an enum as the string that it is: sqlite3 looks for an adapter for everything else, each time."""
    return None if word is None else str(word)


def store_newest(tx: Tx, devices: Iterable[Newest]) -> None:
    """They were heard: online, until they were silent for too long, with what they said last in each field."""
    due = tx.now + tx.rules.silence_ms
    tx.connection.executemany(_UPSERT, [_newest_row(tx.now, due, device) for device in devices])


def _newest_row(now: int, due: int, device: Newest) -> tuple[Any, ...]:
    said = [str(value) if isinstance(value, str) else value for value in device.said]
    return (device.device_pk, now, due, _text(device.radio), device.low_battery, device.storage_full, *said)


def store_firmware(tx: Tx, device_pk: int, version: str) -> None:
    """The device runs another firmware than the registry knew."""
    tx.run("UPDATE devices SET firmware_version = ?, updated_at = ? WHERE pk = ?", version, tx.now, device_pk)
    mark_shown(tx, device_pk, STATE, DISCOVERY)


def seen(tx: Tx, device_pk: int, offline_due_at: int) -> None:
    """The device is there: online, until ``offline_due_at`` unless it is heard again."""
    tx.run(
        """INSERT INTO health (device_pk, connection, offline_due_at) VALUES (?1, 'online', ?2)
            ON CONFLICT (device_pk) DO UPDATE SET connection = 'online', offline_due_at = ?2""",
        device_pk,
        offline_due_at,
    )


def leaving(tx: Tx, device_pk: int, offline_due_at: int) -> None:
    """The device (or its last will) said that it goes: offline at ``offline_due_at`` unless it is heard again."""
    tx.run(
        "UPDATE health SET offline_due_at = min(offline_due_at, ?) WHERE device_pk = ? AND connection = 'online'",
        offline_due_at,
        device_pk,
    )


def overdue(view: View, now: int, limit: int) -> list[Row]:
    """Devices whose time to be heard again is over."""
    return view.all(
        """SELECT d.pk, d.id, d.project_id FROM health h JOIN devices d ON d.pk = h.device_pk
            WHERE h.connection = 'online' AND h.offline_due_at <= ? LIMIT ?""",
        now,
        limit,
    )


def set_offline(tx: Tx, device_pk: int) -> None:
    """The device is away."""
    tx.run("UPDATE health SET connection = 'offline', offline_due_at = NULL WHERE device_pk = ?", device_pk)
    mark_shown(tx, device_pk, STATE)


def refuse(
    tx: Tx, device_id: str | None, source: str, code: str, message: str, field: str | None, payload: str
) -> None:
    """Keep a refused message for diagnosis; only the newest ``refusals_kept`` stay."""
    cursor = tx.run(
        "INSERT INTO refusals (at, device_id, source, code, message, field, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
        *(tx.now, device_id, source, code, message, field, payload[:_PAYLOAD_KEPT]),
    )
    tx.run("DELETE FROM refusals WHERE id <= ?", (cursor.lastrowid or 0) - tx.rules.refusals_kept)


def history(
    view: View, device_pk: int, *, since: int, until: int, before: tuple[int, int] | None, limit: int, every: int | None
) -> list[Row]:
    """Heartbeats received from ``since`` on and before ``until`` (milliseconds since the epoch), newest first.

    Of a page after another ``before`` is the place of the last row there: when it was received, and its number. With
    ``every`` only the newest of each so many milliseconds of the clock.
    """
    if every is not None:
        before_that = model.MAX_NUMBER if before is None else before[0] - before[0] % every
        return _thinned(view, device_pk, since, min(until, before_that), limit, every)
    return view.all(
        """SELECT * FROM heartbeats WHERE device_pk = ? AND received_at >= ? AND received_at < ?
            AND (received_at, id) < (?, ?) ORDER BY received_at DESC, id DESC LIMIT ?""",
        *(device_pk, since, until, *(before or (model.MAX_NUMBER, model.MAX_NUMBER)), limit),
    )


def _thinned(view: View, device_pk: int, since: int, until: int, limit: int, every: int) -> list[Row]:
    """The newest of each ``every`` milliseconds, found by the index alone: a step for each that is answered."""
    return view.all(
        """WITH RECURSIVE steps (at) AS (
                SELECT max(received_at) FROM heartbeats WHERE device_pk = ?1 AND received_at >= ?2 AND received_at < ?3
            UNION ALL
                SELECT (SELECT max(received_at) FROM heartbeats
                    WHERE device_pk = ?1 AND received_at >= ?2 AND received_at < at - at % ?5)
                FROM steps WHERE at IS NOT NULL LIMIT ?4)
            SELECT b.* FROM steps JOIN heartbeats b ON b.id =
                (SELECT max(id) FROM heartbeats WHERE device_pk = ?1 AND received_at = at)
            ORDER BY b.received_at DESC""",
        *(device_pk, since, until, limit, every),
    )


def to_record(row: Row) -> fleet_model.HeartbeatRecord:
    """A row of the history as the API shows it."""
    told = {name: row[name] for name in fleet_model.HeartbeatRecord.model_fields if name in row.keys()}  # noqa: SIM118 - a sqlite3.Row iterates over its values
    times = {"received_at": to_rfc3339(row["received_at"]), "sent_at": moment(row["sent_at"])}
    radio = None if row["radio"] is None else [row["radio"]]
    return fleet_model.HeartbeatRecord.model_validate({**told, **times, "connection_type": radio})


def prune_history(tx: Tx, before: int, limit: int) -> int:
    """Drop those of the ``limit`` oldest heartbeats that were received before then; how many went.

    Only the oldest are looked at: when nothing is due that costs as little as when something is, however long the
    table.
    """
    return tx.run(
        """DELETE FROM heartbeats WHERE id IN
            (SELECT id FROM (SELECT id, received_at FROM heartbeats ORDER BY id LIMIT ?) WHERE received_at < ?)""",
        limit,
        before,
    ).rowcount
