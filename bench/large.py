"""Rows of a large registry, on either engine: devices as a hospital's, with names, tags, tokens, states and a history.

They are made in Python and written in bulk, so that a million take a minute or two. One device in ten is not bound, one
in twenty was never heard, one in a hundred is low on battery. A model that hardly any device has is there, too. Of some
devices, the members, the passwords are known. They are as far apart in the registry as can be.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

from bench import large_history
from bench.bulk import Progress, disk_bytes, insert, silent
from bench.large_history import History
from bench.registry import Registry
from gateway.core import credentials, ids
from gateway.core.clock import DAY_MS, system_clock
from gateway.core.ids import Ids
from gateway.store import Context, Tx, View, device_count_sql, device_search, open_database, transact

MODEL, RARE_MODEL = "bota_pin", "bota_pin_pro"
RARE: Final = 5
"""Devices of the rare model."""
SEED: Final = 20
SITES: Final = 500
_BATCH: Final = 2_000
"""Rows of a table that are made at a time. PostgreSQL ends a transaction that is idle for some seconds."""
_ONLINE: Final = 0.6
_UNBOUND_EACH: Final = 10
_NEVER_HEARD_EACH: Final = 20
_SALT_BYTES, _DIGEST_BYTES = 12, 64
_TRIGGERED: Final = ("devices", "health")
_DEVICES: Final = (
    *("pk", "id", "project_id", "serial_number", "model", "name", "end_user_id", "binding_generation", "bound_at"),
    *("created_at", "updated_at", "tags"),
)
_TAGS: Final = ("project_id", "tag", "device_pk")
_TOKENS: Final = (
    *("device_pk", "generation", "hash", "mqtt_hash", "broker_entry", "state", "grant_kid", "created_at"),
)
_BINDINGS: Final = (
    *("device_pk", "generation", "project_id", "end_user_id", "bound_at", "first_event", "after_heartbeat"),
)
_HEALTH: Final = (
    *("device_pk", "battery_percent", "storage_used_mb", "storage_total_mb", "signal_strength_dbm"),
    *("recording_state", "flags", "last_heartbeat_at", "last_seen_by", "connection", "offline_due_at", "low_battery"),
)
Rows = dict[tuple[str, tuple[str, ...]], list[tuple[Any, ...]]]
_Table = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Large:
    """A registry of many devices. The members are the devices of ``registry``."""

    registry: Registry
    device_bytes: float
    """Bytes on disk for a device: its row, token, state and all indexes, without history."""
    heartbeat_bytes: float | None
    """Bytes on disk for a heartbeat of the history, with its indexes."""


def fill(registry: Registry, devices: int, *, members: int = 0, history: int = 0, progress: Progress = silent) -> Large:
    """Add devices to an empty registry. ``members`` of the bound ones have known passwords.

    Each device that was ever heard gets ``history`` heartbeats.
    """
    with closing(open_database(registry.location)) as connection:
        view = View(connection)
        project_id, kid = view.value("SELECT min(id) FROM projects"), view.value("SELECT max(kid) FROM signing_keys")
        maker = _Maker(project_id, kid, devices, members, history, partitioned=view.dialect.partitioned)
        empty = disk_bytes(view)
        transact(connection, Context(), lambda tx: _write(tx, maker, progress))
        full = disk_bytes(view)
        history_bytes, rows = large_history.fill(connection, maker.history, maker.heard, progress), maker.history.rows
        if registry.database is not None:  # as autovacuum does; a registry on SQLite has no statistics
            connection.execute("VACUUM ANALYZE")
    filled = replace(registry, devices=tuple(maker.members))
    return Large(filled, (full - empty) / devices, history_bytes / rows if rows else None)


def _write(tx: Tx, maker: _Maker, progress: Progress) -> None:
    """Write in bulk. The triggers that count would update one row a million times."""
    tx.connection.take_time()
    copy = getattr(tx.connection, "copy_rows", None)
    for table in _TRIGGERED if copy else ():
        tx.run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for done, tables in maker.batches():
        for (table, columns), rows in tables.items():
            insert(tx, table, columns, rows)
        progress("devices", done, maker.devices)
    for table in _TRIGGERED if copy else ():
        tx.run(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    if copy:
        for table, key in (("devices", "pk"), ("tokens", "id")):
            tx.run(f"SELECT setval(pg_get_serial_sequence('{table}', '{key}'), (SELECT max({key}) FROM {table}))")  # noqa: S608 - constants
    device_search.rebuild(tx)
    device_count_sql.recount(tx)


class _Maker:
    """Makes the rows of the devices, the same for the same numbers but for what follows from the time."""

    def __init__(
        self, project_id: str, kid: str, devices: int, members: int, history: int, *, partitioned: bool
    ) -> None:
        self.devices = devices
        self.heard = [pk for pk in range(1, devices + 1) if pk % _NEVER_HEARD_EACH]
        self.members: list[tuple[str, str]] = []
        """Id and MQTT password, once the rows were made."""
        bound = [pk for pk in range(1, devices + 1) if _is_bound(pk)]
        self._members = set(bound[:: max(1, len(bound) // members)][:members]) if members else set()
        self._project_id, self._kid = project_id, kid
        self._chance, self._now = random.Random(SEED), system_clock()  # noqa: S311 - rows of a benchmark
        self._ids = Ids(self._chance.randbytes)
        self.history = History(len(self.heard), history, self._now)
        self._marks = large_history.MARKS[: 3 if partitioned else 2]

    def batches(self) -> Iterator[tuple[int, Rows]]:
        """Yield the rows of some devices at a time, by table, and the number of devices so far."""
        for first in range(1, self.devices + 1, _BATCH):
            last = min(first + _BATCH - 1, self.devices)
            tables: Rows = {
                ("devices", _DEVICES): [],
                ("device_tags", _TAGS): [],
                ("tokens", _TOKENS): [],
                ("bindings", _BINDINGS): [],
                ("health", (*_HEALTH, *self._marks)): [],
            }
            for pk in range(first, last + 1):
                self._make(pk, *tables.values())
            yield last, tables

    def _make(self, pk: int, devices: _Table, tags: _Table, tokens: _Table, bindings: _Table, health: _Table) -> None:
        chance, now, project = self._chance, self._now, self._project_id
        at = now - (self.devices - pk) * 1_000
        bound_at = at if _is_bound(pk) else None
        model = RARE_MODEL if pk <= RARE else MODEL if pk % _UNBOUND_EACH else "bota_note"
        site = f"site-{chance.randrange(SITES)}"
        name = f"Ward {chance.randrange(90)} bed {chance.randrange(40)}"
        end_user = None if bound_at is None else f"eu_{chance.randrange(16**10):010x}"
        device_id, changed_at = self._ids.new(ids.DEVICE, at), now - chance.randrange(DAY_MS)
        devices.append(
            (pk, device_id, project, f"BP-{pk:08}", model, name, end_user, 1, bound_at, at, changed_at, site)
        )
        tags.append((project, site, pk))
        if bound_at is not None:
            tokens.append((pk, 1, *self._token(pk, device_id), "active", self._kid, bound_at))
            bindings.append((pk, 1, project, end_user, bound_at, 0, 0))
        if pk % _NEVER_HEARD_EACH:
            is_online = chance.random() < _ONLINE
            connection, due = ("online", now + DAY_MS) if is_online else ("offline", None)
            health.append(
                (pk, 50, 512, 8192, -61, "idle", 8, now - 60_000, "wifi", connection, due, int(pk % 100 == 1),
                 *self.history.marks(_turn(pk))[: len(self._marks)])
            )  # fmt: skip

    def _token(self, pk: int, device_id: str) -> tuple[bytes, bytes, str]:
        """Return hash, hash of the MQTT password, and entry of the password file."""
        random_bytes = self._chance.randbytes
        if pk not in self._members:
            salt, digest = (base64.b64encode(random_bytes(count)).decode() for count in (_SALT_BYTES, _DIGEST_BYTES))
            return random_bytes(32), random_bytes(32), f"$6${salt}${digest}"
        token = credentials.mint_device_token(random_bytes)
        self.members.append((device_id, token.mqtt_password))
        return token.hash, token.mqtt_hash, token.broker_entry


def bound_of(devices: int) -> int:
    """Return how many of so many devices are bound."""
    return devices - devices // _UNBOUND_EACH


def _turn(pk: int) -> int:
    """Return how many devices before this one were heard."""
    return pk - 1 - (pk - 1) // _NEVER_HEARD_EACH


def _is_bound(pk: int) -> bool:
    return pk % _UNBOUND_EACH != 0
