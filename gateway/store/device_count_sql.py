"""Kept counts of each project's devices, a row for each project in ``device_counts``.

Triggers of both engines keep them in the transaction of each change (schema step 42). So code that writes a device, its
health or a command has nothing to do for them. Deleted devices do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import device_state_sql, short_ids

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View


class DeviceCounts(NamedTuple):
    """Numbers of devices of a project; ``seen`` are those with health, ``pending_resets`` counts open resets."""

    total: int = 0
    bound: int = 0
    seen: int = 0
    online: int = 0
    low_battery: int = 0
    storage_full: int = 0
    pending_resets: int = 0


_NAMES: Final = ", ".join(DeviceCounts._fields)
_COUNTED: Final = """SELECT p.id AS project_id, count(d.pk) AS total, count(d.bound_at) AS bound,
    count(h.device_pk) AS seen, count(*) FILTER (WHERE h.connection = 'online') AS online,
    count(*) FILTER (WHERE h.low_battery = 1) AS low_battery,
    count(*) FILTER (WHERE h.storage_full = 1) AS storage_full,
    (SELECT count(*) FROM commands c CROSS JOIN devices e WHERE c.type = 'factory_reset'
        AND c.status IN ('pending', 'delivered') AND e.pk = c.device_pk AND e.project_id = p.id
        AND e.deleted_at IS NULL) AS pending_resets
    FROM projects p LEFT JOIN devices d ON {} AND d.deleted_at IS NULL
    LEFT JOIN health h ON h.device_pk = d.pk GROUP BY p.id"""
"""The counts from the rows themselves; the gap is the condition that a device is of the project.

SQLite reads the open resets first: it keeps to the order of a CROSS JOIN.
"""


def of_project(view: View, project_id: str) -> DeviceCounts:
    """Return the kept counts of a project."""
    row = view.one(f"SELECT {_NAMES} FROM device_counts WHERE project_id = ?", project_id)  # noqa: S608 - our own columns
    return DeviceCounts() if row is None else DeviceCounts(*row)


def of_all(view: View) -> DeviceCounts:
    """Return the sums of the kept counts of all projects."""
    sums = ", ".join(f"CAST(coalesce(sum({name}), 0) AS BIGINT)" for name in DeviceCounts._fields)
    row = view.one(f"SELECT {sums} FROM device_counts")  # noqa: S608 - our own columns
    return DeviceCounts() if row is None else DeviceCounts(*row)


def kept(view: View) -> dict[str, DeviceCounts]:
    """Return the kept counts by project."""
    return _by_project(view, f"SELECT project_id, {_NAMES} FROM device_counts")  # noqa: S608 - our own columns


def counted(view: View) -> dict[str, DeviceCounts]:
    """Return by project what the kept counts must be. It reads every device."""
    return _by_project(view, _COUNTED.format(short_ids.same(view.dialect, "d.project_id", "p.id")))


def wrong(view: View) -> list[str]:
    """Return the projects whose kept counts or states are not those of the devices. It reads every device."""
    return sorted({*differing(kept(view), counted(view)), *device_state_sql.differing(view)})


def recount(tx: Tx) -> list[str]:
    """Count everything again, and store the states of devices again.

    Return the projects whose kept counts or states were wrong. It reads every device.
    """
    tx.connection.take_time()
    before, right = kept(tx), counted(tx)
    misplaced = device_state_sql.differing(tx)
    if misplaced:
        device_state_sql.rebuild(tx)
    tx.run("DELETE FROM device_counts")
    rows = [(project_id, *counts) for project_id, counts in right.items()]
    marks = ", ".join("?" * (1 + len(DeviceCounts._fields)))
    tx.run_many(f"INSERT INTO device_counts (project_id, {_NAMES}) VALUES ({marks})", rows)  # noqa: S608 - our own columns
    return sorted({*differing(before, right), *misplaced})


def differing(one: dict[str, DeviceCounts], other: dict[str, DeviceCounts]) -> list[str]:
    """Return the projects whose counts differ, in order."""
    return sorted(
        project_id for project_id in one.keys() | other.keys() if one.get(project_id) != other.get(project_id)
    )


def _by_project(view: View, sql: str) -> dict[str, DeviceCounts]:
    return {row[0]: DeviceCounts(*list(row)[1:]) for row in view.all(sql)}
