"""A fleet as it may be found in the field, written straight into a registry; one device of it with a history."""

import json
import math
import random
from typing import Any

from gateway.core import ids
from gateway.domain import devices, heartbeats
from gateway.models.heartbeats import Heartbeat
from gateway.models.states import Radio
from gateway.store import Tx, device_search, health_sql, tag_sql

SEED = 20
MINUTE_MS = 60_000
DAY_MS = 1_440 * MINUTE_MS
STORAGE_MB = 8_192
_MODELS = ("bota_pin", "bota_pin", "bota_note", "bota_pin_pro")
_TAGGED_EVERY = 4
_DOING = ("idle", "idle", "recording", "syncing", "uploading")


def fill(tx: Tx, project_id: str, number: int) -> None:
    """So many devices: most of them bound and online, a few low, full or never heard."""
    rng = random.Random(SEED)  # noqa: S311 - a simulation
    for index in range(number):
        registered = tx.now - (number - index) * 7 * MINUTE_MS
        bound = rng.random() < 0.86
        pk = _device(tx, project_id, index, registered, rng, bound=bound)
        if rng.random() < 0.96:
            _health(tx, pk, rng, online=bound and rng.random() < 0.94)
    for row in tx.all("SELECT id FROM devices WHERE bound_at IS NOT NULL ORDER BY pk LIMIT ?", number // 800):
        devices.reset(tx, project_id, row["id"], "cli")


def _device(tx: Tx, project_id: str, index: int, registered: int, rng: random.Random, *, bound: bool) -> int:
    pk: int = tx.value(
        """INSERT INTO devices (id, project_id, serial_number, model, name, firmware_version, created_at, updated_at,
            bound_at, end_user_id, binding_generation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING pk""",
        tx.new_id(ids.DEVICE),
        project_id,
        f"BP-{index:06}",
        rng.choice(_MODELS),
        f"Ward {1 + index % 12}, bed {1 + index % 8}" if rng.random() < 0.6 else None,
        "1.4.2",
        registered,
        registered,
        registered if bound else None,
        f"eu_{4_000 + index}" if bound else None,
        int(bound),
    )
    device_search.add(tx, pk)
    if index % _TAGGED_EVERY == 0:
        tag_sql.store(tx, pk, "", tag_sql.joined((f"ward-{1 + index % 12}", "pilot")))
    return pk


def _health(tx: Tx, pk: int, rng: random.Random, *, online: bool) -> None:
    battery = min(100, max(1, round(rng.gauss(64, 21))))
    full = rng.random() < 0.006
    silent = rng.uniform(0, MINUTE_MS) if online else rng.expovariate(1 / DAY_MS)
    tx.run(
        """INSERT INTO health (device_pk, battery_percent, storage_used_mb, storage_total_mb, signal_strength_dbm,
            recording_state, low_battery, storage_full, last_heartbeat_at, last_seen_by, connection, offline_due_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        pk,
        battery,
        STORAGE_MB if full else round(STORAGE_MB * rng.betavariate(2, 4)),
        STORAGE_MB,
        -round(rng.uniform(42, 92)),
        "storageFull" if full else rng.choice(_DOING),
        battery <= 20,
        full,
        tx.now - round(silent),
        rng.choice(("wifi", "wifi", "4g", "ble")),
        "online" if online else "offline",
        tx.now + 365 * DAY_MS if online else None,
    )


def add_history(tx: Tx, device_id: str, days: float, every_ms: int = 5 * MINUTE_MS) -> None:
    """Heartbeats of a bound device over the last days: charged at night, emptied by day, away for some hours once."""
    now, first = tx.now, tx.now - round(days * DAY_MS)
    away = range(now - DAY_MS // 2, now - DAY_MS // 3)
    for at in (each for each in range(first, now, every_ms) if each not in away):
        tx.now = at
        device = health_sql.device_state(tx, device_id)
        assert device
        heartbeats.record_heartbeat(tx, device, Heartbeat(**health_fields(at)), Radio.WIFI)
    tx.now = now
    metadata = json.dumps({"room": "3.12", "asset": "MED-00417"})
    tx.run("UPDATE devices SET created_at = ?, metadata = ? WHERE id = ?", first, metadata, device_id)


def health_fields(at: int) -> dict[str, Any]:
    """What such a device says of itself at this instant (milliseconds since the epoch)."""
    day, noise = (at % DAY_MS) / DAY_MS, math.sin(at / MINUTE_MS) * math.sin(at / MINUTE_MS / 7)
    return {
        "battery_percent": round(65 + 30 * math.cos(2 * math.pi * (day - 0.2)) + noise),
        "storage_used_mb": round(900 + 6_000 * ((at / DAY_MS / 3) % 1) + 30 * noise),
        "storage_total_mb": STORAGE_MB,
        "signal_strength_dbm": -round(60 + 12 * math.sin(day * 20) + 4 * noise),
    }
