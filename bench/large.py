"""Rows of a large registry, on either engine: devices as a hospital's, with names, tags, tokens and states.

They are made in Python and written in bulk, so that a million take a minute. One device in ten is not bound, one in
twenty was never heard, one in a hundred is low on battery. A model that hardly any device has is there, too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from gateway.bootstrap import first_start
from gateway.core import ids
from gateway.core.clock import system_clock
from gateway.core.ids import Ids
from gateway.core.postgres_address import PostgresAddress
from gateway.settings.loading import load
from gateway.store import Context, Tx, View, device_count_sql, device_search, key_sql, open_database, transact

MODEL, RARE_MODEL = "bota_pin", "bota_pin_pro"
RARE: Final = 5
"""Devices of the rare model."""
SEED: Final = 20
SITES: Final = 500
_BATCH: Final = 20_000
_ONLINE: Final = 0.6
_DAY_MS: Final = 86_400_000
_TRIGGERED: Final = ("devices", "health")
_DEVICES: Final = (
    *("pk", "id", "project_id", "serial_number", "model", "name", "end_user_id", "binding_generation", "bound_at"),
    *("created_at", "updated_at", "tags"),
)
_TAGS: Final = ("project_id", "tag", "device_pk")
_TOKENS: Final = (
    *("device_pk", "generation", "hash", "mqtt_hash", "broker_entry", "state", "grant_kid", "created_at"),
)
_HEALTH: Final = (
    *("device_pk", "battery_percent", "storage_used_mb", "storage_total_mb", "signal_strength_dbm"),
    *("recording_state", "flags", "last_heartbeat_at", "last_seen_by", "connection", "offline_due_at", "low_battery"),
)
Rows = dict[tuple[str, tuple[str, ...]], list[tuple[Any, ...]]]


def create(data_dir: Path, location: Path | PostgresAddress, devices: int) -> str:
    """Make a registry with so many devices; return an API key of its project."""
    database = {} if isinstance(location, Path) else {"database": location.url}
    _, project_id = first_start(load({"data_dir": str(data_dir), **database}, {}).settings)
    with closing(open_database(location)) as connection:
        _, api_key = transact(connection, Context(), lambda tx: key_sql.create(tx, project_id, "bench", test=True))
    fill(location, devices)
    return api_key


def fill(location: Path | PostgresAddress, devices: int, *, online_ms: int = _DAY_MS) -> None:
    """Add devices to a registry that has a project and a signing key, after those that it has.

    ``online_ms``: how long those that are online stay so without a heartbeat, in milliseconds.
    """
    with closing(open_database(location)) as connection:
        view = View(connection)
        first = 1 + (view.value("SELECT max(pk) FROM devices") or 0)
        project_id, kid = view.value("SELECT min(id) FROM projects"), view.value("SELECT max(kid) FROM signing_keys")
        made = _made(project_id, kid, range(first, first + devices), online_ms)
        transact(connection, Context(), lambda tx: _write(tx, made))
        connection.execute("ANALYZE" if isinstance(location, Path) else "VACUUM ANALYZE")


def _write(tx: Tx, made: Iterator[tuple[int, Rows]]) -> None:
    """Write in bulk. The triggers that count would update one row a million times."""
    tx.connection.take_time()
    copy = getattr(tx.connection, "copy_rows", None)
    for table in _TRIGGERED if copy else ():
        tx.run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for _, tables in made:
        for (table, columns), rows in tables.items():
            if copy:
                copy(table, columns, rows)
            else:
                marks = ", ".join("?" * len(columns))
                tx.run_many(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608 - constants
    for table in _TRIGGERED if copy else ():
        tx.run(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    if copy:
        for table, key in (("devices", "pk"), ("tokens", "id")):
            tx.run(f"SELECT setval(pg_get_serial_sequence('{table}', '{key}'), (SELECT max({key}) FROM {table}))")  # noqa: S608 - constants
    device_search.rebuild(tx)
    device_count_sql.recount(tx)


def _made(project_id: str, kid: str, numbers: range, online_ms: int) -> Iterator[tuple[int, Rows]]:
    chance, now = random.Random(SEED), system_clock()  # noqa: S311 - rows of a benchmark
    made = Ids(chance.randbytes)
    for first in range(numbers.start, numbers.stop, _BATCH):
        batch = range(first, min(first + _BATCH, numbers.stop))
        tables: Rows = {
            ("devices", _DEVICES): [],
            ("device_tags", _TAGS): [],
            ("tokens", _TOKENS): [],
            ("health", _HEALTH): [],
        }
        devices, tags, tokens, health = tables.values()
        for pk in batch:
            age = (numbers.stop - pk) * 1_000
            bound_at = None if pk % 10 == 0 else now - age
            model = RARE_MODEL if pk - numbers.start < RARE else MODEL if pk % 10 else "bota_note"
            site = f"site-{chance.randrange(SITES)}"
            name = f"Ward {chance.randrange(90)} bed {chance.randrange(40)}"
            end_user = None if bound_at is None else f"eu_{chance.randrange(16**10):010x}"
            devices.append(
                (pk, made.new(ids.DEVICE, now - age), project_id, f"BP-{pk:08}", model, name, end_user, 1, bound_at,
                 now - age, now - chance.randrange(_DAY_MS), site)
            )  # fmt: skip
            tags.append((project_id, site, pk))
            if bound_at is not None:
                tokens.append((pk, 1, chance.randbytes(32), chance.randbytes(32), "", "active", kid, bound_at))
            if pk % 20:
                online = chance.random() < _ONLINE
                health.append(
                    (pk, 50, 512, 8192, -61, "idle", 8, now - 60_000, "wifi", "online" if online else "offline",
                     now + online_ms if online else None, int(pk % 100 == 1))
                )  # fmt: skip
        yield len(batch), tables
