"""SQL of the health of devices: the newest state, presence, and refused messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from gateway.core.clock import MINUTE_MS
from gateway.store.broker_sql import FIRST
from gateway.store.device_cache import CachedDevice, SenderRecord
from gateway.store.outbox_sql import DISCOVERY, STATE, mark_all_mirrors, mark_mirror
from gateway.store.records import DeviceName
from gateway.store.row_statement import INTEGER, NUMBER, TEXT, Insertion, Update

if TYPE_CHECKING:
    from gateway.store.batch import Batch
    from gateway.store.dialect import SqlDialect
    from gateway.store.transaction import Tx, View

_NEWEST: Final = {
    "battery_percent": NUMBER,
    "storage_used_mb": NUMBER,
    "storage_total_mb": NUMBER,
    "signal_strength_dbm": NUMBER,
    "recording_state": TEXT,
    "device_name": TEXT,
    "pending_recordings": INTEGER,
    "flags": INTEGER,
}
NEWEST: Final = tuple(_NEWEST)
"""Columns of ``health`` with the newest reported values."""

CLOCKS_DIFFER_MS: Final = MINUTE_MS
"""The clocks of two gateways, or of a gateway before and after it was set, may differ by this much."""
_PAYLOAD_KEPT: Final = 256
_TIMES: Final = {"last_heartbeat_at": INTEGER, "offline_due_at": INTEGER}
_COUNTED: Final = {"low_battery": INTEGER, "storage_full": INTEGER}
_REPORTED: Final = {
    "history_id": INTEGER,
    "history_day": INTEGER,
    "history_sent_at": INTEGER,
    "connection_type": TEXT,
    "at_broker": INTEGER,
    "broker_pk": INTEGER,
    **_NEWEST,
}
_CHANGED: Final = Insertion(
    "health",
    {"device_pk": INTEGER, **_TIMES, "last_seen_by": TEXT, **_COUNTED, **_REPORTED},
    constants={"connection": "'online'"},
    conflict=f"""ON CONFLICT (device_pk) DO UPDATE SET connection = 'online',
    last_seen_by = coalesce(excluded.last_seen_by, health.last_seen_by),
    {", ".join(f"{name} = excluded.{name}" for name in (*_TIMES, *_COUNTED, *_REPORTED) if name != "broker_pk")},
    broker_pk = CASE excluded.at_broker WHEN 1 THEN excluded.broker_pk ELSE health.broker_pk END""",
)
_SAME: Final = Update(
    "health",
    {**_TIMES, "last_seen_by": TEXT, **_REPORTED},
    "device_pk",
    kept=("last_seen_by", "broker_pk"),
)
"""For a device that stays online and as well as it was. It names no counted column, so no trigger looks at the row."""

_FIRMWARE: Final = Update("devices", {"firmware_version": TEXT, "updated_at": INTEGER}, "pk")


@cache
def _sent_by(dialect: SqlDialect, condition: str) -> str:
    """Return the query for the devices whose id meets the condition."""
    threshold = dialect.json_member("d.settings", "power", "low_battery_threshold_percent")
    return f"""SELECT d.id, d.pk, d.project_id, d.binding_generation, d.bound_at, d.firmware_version,
        (SELECT state FROM tokens WHERE device_pk = d.pk AND state <> 'revoked' ORDER BY id DESC LIMIT 1)
            AS token_state,
        h.history_id, h.history_day, h.history_sent_at, h.connection_type,
        coalesce(h.connection, 'offline') AS connection, h.last_heartbeat_at,
        coalesce(h.low_battery, 0) AS low_battery, coalesce(h.storage_full, 0) AS storage_full,
        (SELECT {dialect.joined("type")} FROM event_budgets WHERE device_pk = d.pk AND suppressed > 0) AS owed,
        coalesce(CAST({threshold} AS NUMERIC), 20) AS low_battery_threshold,
        {", ".join(f"h.{name}" for name in NEWEST)}
        FROM devices d LEFT JOIN health h ON h.device_pk = d.pk
        WHERE d.deleted_at IS NULL AND d.id {condition}"""  # noqa: S608 - our own columns


def device_state(view: View, device_id: str) -> SenderRecord | None:
    """Return what a message of this device is judged by: the device, its newest health, the state of its token."""
    return view.record(SenderRecord, _sent_by(view.dialect, "= ?"), device_id)


def device_states(batch: Batch, device_ids: Iterable[str]) -> dict[str, CachedDevice]:
    """Return the state of these devices by id, without unknown ones. Others that the batch caches are in it too."""
    cache = batch.devices
    unknown = [device_id for device_id in device_ids if device_id not in cache.senders]
    if unknown:
        several = _sent_by(batch.tx.dialect, f"IN ({batch.tx.dialect.names})")
        cache.learn(CachedDevice(SenderRecord(*row)) for row in batch.tx.all(several, json.dumps(unknown)))
    return cache.senders


def store_newest(tx: Tx, heard: Iterable[CachedDevice], *, at_broker: bool) -> None:
    """Store the newest state of these devices, which are online now.

    ``at_broker``: the heartbeats came over MQTT, from the broker of this process.
    """
    times, broker = (tx.now, tx.now + tx.rules.silence_ms), tx.context.broker
    same: list[tuple[Any, ...]] = []
    changed: list[tuple[Any, ...]] = []
    for of in heard:
        history = (of.history_id, of.history_day, of.history_sent_at, of.links, at_broker)
        if of.is_steady:
            same.append((*times, of.radio, *history, broker if at_broker else None, *of.said, of.pk))
        else:
            judged = (of.radio, of.low_battery, of.storage_full)
            changed.append((of.pk, *times, *judged, *history, broker, *of.said))
            of.stored = (True, of.low_battery, of.storage_full)
    tx.run_rows(_SAME, same)
    tx.run_rows(_CHANGED, changed)


def store_firmware(tx: Tx, versions: Mapping[int, str]) -> None:
    """Store changed firmware versions, by the row number of the device."""
    tx.run_rows(_FIRMWARE, [(version, tx.now, device_pk) for device_pk, version in versions.items()])
    for detail in (STATE, DISCOVERY):
        mark_all_mirrors(tx, versions, detail)


def seen(tx: Tx, device_pk: int, offline_due_at: int) -> None:
    """Set the device online, at this broker, until ``offline_due_at`` unless it sends something."""
    tx.run(
        """INSERT INTO health (device_pk, connection, offline_due_at, at_broker, broker_pk)
            VALUES (?1, 'online', ?2, 1, ?3) ON CONFLICT (device_pk) DO UPDATE SET connection = 'online',
            offline_due_at = ?2, at_broker = 1, broker_pk = ?3""",
        *(device_pk, offline_due_at, tx.context.broker),
    )


def leaving(tx: Tx, device_pk: int, offline_due_at: int) -> None:
    """Set the device offline at ``offline_due_at`` unless it sends something: it, or its last will, says offline.

    That counts only from the broker of its last message: another broker is late (contract, section 6).
    """
    _leave(tx, "", device_pk, offline_due_at)


def left_broker(tx: Tx, device_pk: int, offline_due_at: int) -> None:
    """Do the same for an ``offline`` that the broker retains, if the device's last message came over MQTT."""
    _leave(tx, "AND at_broker = 1", device_pk, offline_due_at)


def _leave(tx: Tx, where: str, device_pk: int, offline_due_at: int) -> None:
    """Store the deadline. While time is forgiven at this broker, its owner waits for that much longer."""
    forgiven = """coalesce((SELECT forgiven_ms FROM brokers
        WHERE pk = ?1 AND forgiven_at > ?2 AND forgiven_at <= ?3), 0)"""
    tx.run(
        f"""UPDATE health SET offline_due_at = {tx.dialect.least("offline_due_at", f"?4 - {forgiven}")}, at_broker = 0
            WHERE device_pk = ?5 AND connection = 'online' AND broker_pk = ?1 {where}""",  # noqa: S608 - constants
        *(tx.context.broker, tx.now - tx.rules.silence_ms, tx.now + CLOCKS_DIFFER_MS, offline_due_at, device_pk),
    )


def forget_broker(tx: Tx, device_pk: int) -> None:
    """Forget the device's presence at the broker: what is retained there is not of its new binding."""
    tx.run("UPDATE health SET at_broker = 0 WHERE device_pk = ?", device_pk)


def latest_deadline(view: View, broker: int = FIRST) -> int | None:
    """Return the latest deadline of any device that was heard at this broker last."""
    found: int | None = view.value(
        "SELECT max(offline_due_at) FROM health WHERE connection = 'online' AND broker_pk = ?", broker
    )
    return found


_JUDGED: Final = "(SELECT pk FROM brokers WHERE pk = ?1 OR left_out_at IS NOT NULL)"
"""The broker whose owner judges silence, and those that have had no owner for long: it judges their devices, too."""


def presence_is_due(view: View, now: int, latest: int, broker: int = FIRST) -> bool:
    """Return whether a device that this broker's owner judges is overdue, or has a deadline that is too late."""
    found = view.one(
        f"""SELECT 1 WHERE EXISTS (SELECT 1 FROM health WHERE connection = 'online' AND offline_due_at <= ?2
                AND broker_pk IN {_JUDGED})
            OR EXISTS (SELECT 1 FROM health WHERE connection = 'online' AND offline_due_at > ?3
                AND broker_pk IN {_JUDGED})""",  # noqa: S608 - constants
        *(broker, now, latest),
    )
    return found is not None


def wait_no_longer(tx: Tx, latest: int, until: int, limit: int) -> int:
    """Set deadlines beyond ``latest`` to ``until``, of the devices that this broker's owner judges.

    Up to ``limit`` devices are changed; return how many. None of them is overdue, so no judgement waits for the others.
    """
    return tx.run(
        f"""UPDATE health SET offline_due_at = ?2 WHERE device_pk IN (SELECT device_pk FROM health
            WHERE connection = 'online' AND offline_due_at > ?3 AND broker_pk IN {_JUDGED} LIMIT ?4)""",  # noqa: S608 - constants
        *(tx.context.broker, until, latest, limit),
    ).rowcount


def overdue(tx: Tx, now: int, limit: int) -> list[DeviceName]:
    """Return devices whose deadline has passed, of those that this broker's owner judges."""
    return tx.records(
        DeviceName,
        f"""SELECT d.pk, d.id, d.project_id FROM health h JOIN devices d ON d.pk = h.device_pk
            WHERE h.connection = 'online' AND h.offline_due_at <= ?2 AND h.broker_pk IN {_JUDGED}
            LIMIT ?3""",  # noqa: S608 - constants
        *(tx.context.broker, now, limit),
    )


def set_offline(tx: Tx, device_pk: int) -> None:
    """Set the device offline."""
    tx.run("UPDATE health SET connection = 'offline', offline_due_at = NULL WHERE device_pk = ?", device_pk)
    mark_mirror(tx, device_pk, STATE)


def forget_reports(tx: Tx, device_pk: int) -> int:
    """Delete the newest values that the device reported; return 1 if there were any. Its presence stays."""
    changed = tx.run(
        f"""UPDATE health SET {", ".join(f"{name} = NULL" for name in NEWEST)}, connection_type = NULL,
            last_heartbeat_at = NULL, last_seen_by = NULL, history_sent_at = NULL, low_battery = 0, storage_full = 0
            WHERE device_pk = ? AND last_heartbeat_at IS NOT NULL""",  # noqa: S608 - our own columns
        device_pk,
    ).rowcount
    mark_mirror(tx, device_pk, STATE)
    return changed


def refuse(
    tx: Tx, device_id: str | None, source: str, code: str, message: str, field: str | None, payload: str
) -> None:
    """Store a refused message for diagnosis; only the newest ``refusals_kept`` stay."""
    newest: int = tx.value(
        """INSERT INTO refusals (at, device_id, source, code, message, field, payload) VALUES (?, ?, ?, ?, ?, ?, ?)
            RETURNING id""",
        *(tx.now, *(_without_nul(each) for each in (device_id, source, code, message, field, payload[:_PAYLOAD_KEPT]))),
    )
    tx.run("DELETE FROM refusals WHERE id <= ?", newest - tx.rules.refusals_kept)


def _without_nul(text: str | None) -> str | None:
    """Return the text as PostgreSQL can store it, too."""
    return None if text is None else text.replace("\0", "\ufffd")
