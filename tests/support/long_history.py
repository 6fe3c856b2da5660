"""A long history of heartbeats for one ended binding, written straight into the file of a registry that is stopped."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from gateway.core.clock import DAY_MS
from gateway.store import DATABASE_NAME

EVERY_MS: Final = 30_000


def lengthen(data_dir: Path, device_id: str, heartbeats: int) -> None:
    """Add so many heartbeats at the end of the device's chain, within its newest binding."""
    with closing(sqlite3.connect(data_dir / DATABASE_NAME)) as database, database:
        (pk,) = database.execute("SELECT pk FROM devices WHERE id = ?", (device_id,)).fetchone()
        first = database.execute("SELECT coalesce(max(id), 0) + 1 FROM heartbeats").fetchone()[0]
        newest = database.execute("SELECT history_id FROM health WHERE device_pk = ?", (pk,)).fetchone()
        begin = database.execute("SELECT max(bound_at) FROM bindings WHERE device_pk = ?", (pk,)).fetchone()[0]
        last = first + heartbeats - 1
        database.executemany(
            """INSERT INTO heartbeats (id, previous, device_pk, received_at, sent_at, battery_percent, storage_used_mb,
                storage_total_mb, signal_strength_dbm, firmware_version, device_state, radio)
                VALUES (?, ?, ?, ?, ?, 80, 1200, 32000, -61, '1.2.3', 'idle', 'wifi')""",
            (
                (number, number - 1 if number > first else newest and newest[0], pk, at, at)
                for number, at in zip(
                    range(first, last + 1), range(begin, begin + heartbeats * EVERY_MS, EVERY_MS), strict=True
                )
            ),
        )
        database.execute(
            """INSERT INTO history_days (device_pk, day, first_id) SELECT device_pk, received_at / ?, min(id)
                FROM heartbeats WHERE id >= ? GROUP BY 1, 2 ON CONFLICT DO NOTHING""",
            (DAY_MS, first),
        )
        database.execute(
            """INSERT INTO health (device_pk, history_id, last_heartbeat_at) VALUES (?, ?, ?)
                ON CONFLICT (device_pk) DO UPDATE SET history_id = excluded.history_id""",
            (pk, last, begin),
        )
        database.execute(
            "UPDATE bindings SET last_heartbeat = ? WHERE device_pk = ? AND unbound_at IS NOT NULL AND bound_at = ?",
            (last, pk, begin),
        )
