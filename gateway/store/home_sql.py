"""SQL of home brokers: the one broker that serves a device, where it has one.

A device without a row has no home: every broker serves it. ``brokers.devices`` counts the rows of each broker, so that
a bind reads no device to find the one with the fewest. Every change goes through :func:`assign` and keeps that count.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import short_ids
from gateway.store.records import DeviceName

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.store.transaction import Tx, View


_OF_PROJECT: Final = f"""SELECT d.pk, d.id, d.project_id FROM devices d CROSS JOIN homes h
    WHERE {short_ids.like("d.project_id")} AND {{}} = ? AND d.deleted_at IS NULL AND d.pk > ?
    AND h.device_pk = d.pk + 0 AND h.broker_pk = ? ORDER BY d.pk LIMIT ?"""  # noqa: S608 - constants
"""The gap is the id of the project. A deleted device has no home. The sum keeps PostgreSQL from reading every home."""


class Home(NamedTuple):
    """A device and the broker that is its home."""

    device_pk: int
    broker_pk: int


def of(view: View, device_pk: int) -> int | None:
    """Return the number of the device's home, or None."""
    found: int | None = view.value("SELECT broker_pk FROM homes WHERE device_pk = ?", device_pk)
    return found


def of_many(view: View, device_pks: Sequence[int]) -> dict[int, int]:
    """Return device and home of those that have one."""
    rows = view.all(
        f"SELECT device_pk, broker_pk FROM homes WHERE device_pk IN ({view.dialect.numbers})",  # noqa: S608 - a constant
        json.dumps(list(device_pks)),
    )
    return {row["device_pk"]: row["broker_pk"] for row in rows}


def elsewhere(view: View, device_pks: Sequence[int], broker: int) -> set[int]:
    """Return those of these devices whose home is another broker than this one."""
    return {pk for pk, home in of_many(view, device_pks).items() if home != broker}


def moved_since(view: View, since: int) -> list[int]:
    """Return devices that got their home since then."""
    return [row["device_pk"] for row in view.all("SELECT device_pk FROM homes WHERE since >= ?", since)]


def is_served(view: View, device_pk: int, broker: int) -> bool:
    """Return whether this broker serves the device."""
    return of(view, device_pk) in (None, broker)


def at(view: View, broker: int, after: int, limit: int, project_id: str | None = None) -> list[DeviceName]:
    """Return devices whose home is this broker, of one project or of all, by row numbers after ``after``.

    Those of a project are found among the project's devices or among the broker's, whichever are fewer.
    """
    if project_id is not None and _has_fewer(view, project_id, broker):
        statement = _OF_PROJECT.format(view.dialect.unindexed("d.project_id"))
        return view.records(DeviceName, statement, project_id, project_id, after, broker, limit)
    return view.records(
        DeviceName,
        """SELECT d.pk, d.id, d.project_id FROM homes h JOIN devices d ON d.pk = h.device_pk
            WHERE h.broker_pk = ? AND h.device_pk > ? AND d.project_id = coalesce(CAST(? AS TEXT), d.project_id)
            ORDER BY h.device_pk LIMIT ?""",
        *(broker, after, project_id, limit),
    )


def _has_fewer(view: View, project_id: str, broker: int) -> bool:
    """Return whether the project has fewer devices than the broker."""
    return bool(
        view.value(
            """SELECT 1 FROM device_counts c CROSS JOIN brokers b
                WHERE c.project_id = ? AND b.pk = ? AND c.total < b.devices""",
            *(project_id, broker),
        )
    )


def some(view: View, limit: int) -> list[Home]:
    """Return some devices that have a home."""
    return view.records(Home, "SELECT device_pk, broker_pk FROM homes ORDER BY device_pk LIMIT ?", limit)


def wiping(view: View, device_pks: Sequence[int]) -> set[int]:
    """Return those of these devices that have said ``delivered`` to a reset which is open."""
    rows = view.all(
        f"""SELECT device_pk FROM commands WHERE type = 'factory_reset' AND status = 'delivered'
            AND device_pk IN ({view.dialect.numbers})""",  # noqa: S608 - a constant
        json.dumps(list(device_pks)),
    )
    return {row["device_pk"] for row in rows}


def assign(tx: Tx, device_pks: Collection[int], before: int | None, to: int | None) -> None:
    """Make ``to`` the home of these devices, which all have ``before`` as their home. None: no home."""
    listed = json.dumps(list(device_pks))
    if to is None:
        tx.run(f"DELETE FROM homes WHERE device_pk IN ({tx.dialect.numbers})", listed)  # noqa: S608 - a constant
    else:
        tx.run(
            f"""INSERT INTO homes (device_pk, broker_pk, since)
                SELECT value, CAST(? AS BIGINT), CAST(? AS BIGINT) FROM ({tx.dialect.numbers}) AS listed WHERE TRUE
                ON CONFLICT (device_pk) DO UPDATE SET broker_pk = excluded.broker_pk, since = excluded.since""",  # noqa: S608 - a constant
            *(to, tx.now, listed),
        )
    for broker, change in ((before, -len(device_pks)), (to, len(device_pks))):
        if broker is not None:
            tx.run("UPDATE brokers SET devices = devices + ? WHERE pk = ?", change, broker)


def recount(tx: Tx) -> None:
    """Store the number of devices of each broker again, from its homes."""
    tx.run("UPDATE brokers SET devices = (SELECT count(*) FROM homes h WHERE h.broker_pk = brokers.pk)")


def counted(view: View) -> dict[int, int]:
    """Return by broker how many devices have it as home. It reads every device that has one."""
    return {row[0]: row[1] for row in view.all("SELECT broker_pk, count(*) FROM homes GROUP BY broker_pk")}
