"""The answer of ``/metrics``: gauges of the registry, the disk and the connection to the broker."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.core.clock import SECOND_MS
from gateway.core.command_types import CommandType
from gateway.models.jobs import JobStatus
from gateway.observability.metrics import Gauges, Metrics
from gateway.store import (
    DATABASE_NAME,
    Purpose,
    Store,
    View,
    broker_sql,
    gauge_sql,
    job_sql,
    outbox_depth_sql,
    replication_sql,
)
from gateway.store.replication_sql import DatabaseState

KEPT_SECONDS: Final = 1.0
MOST_BROKERS: Final = 20
"""With more brokers there are no metrics of each."""
FLEET_SECONDS: Final = 15
"""Maximum age of the counts of the fleet, which read every device."""
_WAITS: Final = f"What must yet be brought to the broker ({outbox_depth_sql.MOST_COUNTED}: or more)."


class _Registry(NamedTuple):
    outbox: list[tuple[str, int, int]]
    commands: list[gauge_sql.OpenCommands]
    deliveries: int
    jobs: dict[str, int]
    database_bytes: int | None
    database: DatabaseState
    homes: list[tuple[str, int]]


class Scrape:
    """Answers scrapes."""

    def __init__(
        self,
        metrics: Metrics,
        store: Store,
        data_dir: Path,
        readiness: Callable[[], Awaitable[dict[str, Any]]],
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._data_dir = data_dir
        self._readiness = readiness
        self._counting = asyncio.Lock()
        self._fleet: tuple[int, gauge_sql.FleetGauges] | None = None
        self._kept_seconds = kept_seconds
        self._making = asyncio.Lock()
        self._kept: tuple[float, bytes] | None = None

    async def text(self) -> bytes:
        """Return every metric in Prometheus' text format, at most a second old.

        Making it takes 40 ms of the event loop.

        Raises:
            StoreError: the registry cannot be read.
        """
        async with self._making:  # simultaneous scrapes share one
            if self._kept is None or time.monotonic() - self._kept[0] >= self._kept_seconds:
                made = await self._made()
                self._kept = (time.monotonic(), made)
            return self._kept[1]

    async def _made(self) -> bytes:
        gauges, now = Gauges(), self._store.context.clock()
        found = await self._store.read(_read, Purpose.HEALTH)
        _registry(gauges, found, now)
        _fleet(gauges, await self._counted(now))
        report = await self._readiness()
        _broker(gauges, report)
        _leases(gauges, report["leases"], report["brokers"])
        _brokers(gauges, report["brokers"], found.homes)
        _disk(gauges, self._data_dir, found.database_bytes)
        set_standbys(gauges, found.database)
        return self._metrics.text(gauges)

    async def _counted(self, now: int) -> gauge_sql.FleetGauges:
        async with self._counting:  # simultaneous scrapes share one count
            if self._fleet is None or not 0 <= now - self._fleet[0] < FLEET_SECONDS * SECOND_MS:
                self._fleet = (now, await self._store.read(gauge_sql.fleet, Purpose.HEALTH))
            return self._fleet[1]


def _read(view: View) -> _Registry:
    return _Registry(
        outbox_depth_sql.by_kind(outbox_depth_sql.waiting(view)),
        gauge_sql.open_commands(view),
        gauge_sql.deliveries_waiting(view),
        job_sql.by_status(view),
        gauge_sql.database_bytes(view),
        replication_sql.state(view),
        broker_sql.devices_by_broker(view),
    )


def _age(now: int, since: int) -> float:
    return max(0, now - since) / SECOND_MS


def _registry(gauges: Gauges, found: _Registry, now: int) -> None:
    depth = {(kind,): 0.0 for kind in outbox_depth_sql.KINDS} | {
        (kind,): float(count) for kind, count, _ in found.outbox
    }
    age = {(kind,): 0.0 for kind in outbox_depth_sql.KINDS} | {
        (kind,): _age(now, since) for kind, _, since in found.outbox
    }
    gauges.set_by("outbox_rows", _WAITS, ["kind"], depth.items())
    gauges.set_by("outbox_oldest_seconds", "How long the oldest of it could have been.", ["kind"], age.items())
    counts = {(str(kind), status): 0.0 for kind in CommandType for status in ("pending", "delivered")}
    ages = counts.copy()
    for each in found.commands:
        counts[each.type, each.status] = each.number
        ages[each.type, each.status] = _age(now, each.oldest_at)
    gauges.set_by("open_commands", "Commands that are not final.", ["type", "status"], counts.items())
    gauges.set_by(
        "open_command_oldest_seconds", "How long ago the oldest was queued.", ["type", "status"], ages.items()
    )
    jobs = [((status,), float(found.jobs.get(status, 0))) for status in JobStatus]
    gauges.set_by("jobs", "Jobs that are kept, by status.", ["status"], jobs)
    gauges.set("webhook_deliveries_waiting", "Deliveries that are not made and not given up.", found.deliveries)


def _fleet(gauges: Gauges, fleet: gauge_sql.FleetGauges) -> None:
    told = f"{{}} (counted at most every {FLEET_SECONDS} s)."
    gauges.set("devices", told.format("Devices, deleted ones aside"), fleet.devices)
    gauges.set("devices_bound", told.format("Devices that are bound"), fleet.bound)
    gauges.set("devices_online", told.format("Devices that are online"), fleet.online)
    gauges.set("devices_never_seen", told.format("Devices that were never heard"), fleet.never_seen)
    gauges.set("devices_low_battery", told.format("Devices whose battery is low"), fleet.low_battery)
    former = told.format("Devices that connect with their token, which is from before MQTT passwords")
    gauges.set("devices_without_mqtt_password", former, fleet.without_mqtt_password)
    gauges.set("devices_storage_full", told.format("Devices whose storage is full"), fleet.storage_full)


def _broker(gauges: Gauges, report: dict[str, Any]) -> None:
    gauges.set("ready", "Whether /ready says so.", report["ready"])
    gauges.set("broker_connected", "Whether the gateway is connected to its broker.", report["broker"]["connected"])
    gauges.set(
        "broker_reconciled",
        "Whether what the broker retains was compared with the registry since the last connect.",
        report["broker"]["reconciled"],
    )
    gauges.set(
        "broker_access_in_step",
        "Whether the broker knows who may connect.",
        report["access"]["error"] is None,
    )


def _leases(gauges: Gauges, leases: list[dict[str, Any]], brokers: list[dict[str, Any]]) -> None:
    def by_kind(value: Callable[[dict[str, Any]], float]) -> list[tuple[tuple[str, ...], float]]:
        return [((str(each["name"]).partition(":")[0],), float(value(each))) for each in leases]

    held, epochs = by_kind(lambda each: each["held"]), by_kind(lambda each: each["epoch"])
    gauges.set_by("lease_held", "Whether this gateway holds the lease of its broker, and of the fleet.", ["kind"], held)
    gauges.set_by("lease_epoch", "How often the lease was taken, by any gateway.", ["kind"], epochs)
    owned = _owned(leases, brokers)
    gauges.set_by("lease_owned", "Whether any gateway holds the lease.", ["kind", "broker"], owned.items())


def _owned(leases: list[dict[str, Any]], brokers: list[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    """Return which leases have an owner: those of this gateway, and of each broker."""
    named = brokers if len(brokers) <= MOST_BROKERS else []
    owned: dict[tuple[str, ...], float] = {("broker", str(each["id"])): each["owner"] is not None for each in named}
    for each in leases:
        kind, _, broker_id = str(each["name"]).partition(":")
        owned[kind, broker_id] = each["owner"] is not None
    return owned


def _brokers(gauges: Gauges, brokers: list[dict[str, Any]], homes: list[tuple[str, int]]) -> None:
    if len(brokers) > MOST_BROKERS:
        return
    connected = [((str(each["id"]),), float(each["connected"])) for each in brokers]
    waiting = [((str(each["id"]),), float(each["outbox"])) for each in brokers]
    gauges.set_by("broker_served", "Whether a gateway is connected to the broker.", ["broker"], connected)
    gauges.set_by("broker_outbox_rows", _WAITS, ["broker"], waiting)
    devices = [((broker_id,), float(number)) for broker_id, number in homes]
    gauges.set_by("broker_devices", "Devices whose home is the broker.", ["broker"], devices)


def _disk(gauges: Gauges, data_dir: Path, database_bytes: int | None) -> None:
    gauges.set("disk_free_bytes", "What is free where the data directory lies.", shutil.disk_usage(data_dir).free)
    if database_bytes is not None:
        gauges.set("database_bytes", "Size of the database, indexes included.", database_bytes)
        return
    for name, suffix in (("database_bytes", ""), ("database_wal_bytes", "-wal")):
        gauges.set(name, f"Size of {DATABASE_NAME}{suffix}.", _size(data_dir / f"{DATABASE_NAME}{suffix}"))


def set_standbys(gauges: Gauges, database: DatabaseState) -> None:
    """Set the gauges of the standbys. What the database user may not see has no gauge: 0 would say that all is well."""
    states = Counter(each.sync_state for each in database.standbys)
    counts = [((name,), float(states[name])) for name in sorted({"async", "sync", *states})]
    gauges.set_by("database_standbys", "Standbys that follow the database.", ["sync_state"], counts)
    gauges.set("database_commits_stuck", "Whether commits wait for a standby that is not there.", database.is_stuck)
    behind, lag = database.behind_bytes, database.lag_ms
    if behind is not None:
        gauges.set("database_standby_behind_bytes", "How much the last standby has yet to apply.", behind)
    if lag is not None:
        late = "How late the last standby applies what was committed."
        gauges.set("database_standby_lag_seconds", late, lag / SECOND_MS)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
