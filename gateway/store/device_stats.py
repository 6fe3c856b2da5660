"""Numbers of devices by state, of a project or of those with some tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.models.devices import DeviceStats
from gateway.store import device_count_sql, tag_sql
from gateway.store.device_count_sql import DeviceCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.transaction import View

_TAGGED: Final = """count(*) AS total, 0 AS bound, count(h.device_pk) AS seen,
    count(*) FILTER (WHERE h.connection = 'online') AS online, count(*) FILTER (WHERE h.low_battery = 1) AS low_battery,
    count(*) FILTER (WHERE h.storage_full = 1) AS storage_full"""


MOST_COUNTED: Final = 100_000
"""So many devices of a tag are counted, the newest of it."""


def count(view: View, project_id: str, tags: Sequence[str] = ()) -> DeviceStats:
    """Return how many devices there are that have all of these tags, by state; deleted ones do not count.

    Without tags it reads kept counts. With tags it reads the devices of the rarest, at most :data:`MOST_COUNTED`.
    """
    counts, is_exact = device_count_sql.of_project(view, project_id), True
    if tags:
        counts, is_exact = _tagged(view, project_id, tags)
    return DeviceStats(
        project_id=project_id,
        total_count=counts.total,
        online_count=counts.online,
        offline_count=counts.seen - counts.online,
        never_seen_count=counts.total - counts.seen,
        low_battery_count=counts.low_battery,
        storage_full_count=counts.storage_full,
        pending_reset_count=counts.pending_resets,
        is_exact=is_exact,
    )


def _tagged(view: View, project_id: str, tags: Sequence[str]) -> tuple[DeviceCounts, bool]:
    ordered = tag_sql.rarest_first(view, project_id, tags)
    tagged = tag_sql.tagged(project_id, ordered, newest=MOST_COUNTED)
    where = f"WHERE {' AND '.join(tagged.clauses)}" if tagged.clauses else ""
    source = f"FROM {tagged.source} LEFT JOIN health h ON h.device_pk = t.device_pk"
    row = view.all(f"SELECT {_TAGGED} {source} {where}", *tagged.values)[0]
    counts = DeviceCounts(*row)._replace(pending_resets=_pending_resets(view, project_id, tags))
    rarest = tag_sql.tagged(project_id, ordered[:1])
    return counts, tag_sql.count(view, rarest, MOST_COUNTED + 1) <= MOST_COUNTED


def _pending_resets(view: View, project_id: str, tags: Sequence[str]) -> int:
    """Return how many resets are open, of the project's. SQLite reads them first: it keeps to a CROSS JOIN's order."""
    conditions = "".join(f" AND {tag_sql.CONDITION}" for _ in tags)
    values: list[Any] = [value for tag in tags for value in (project_id, tag)]
    pending: int = view.value(
        f"""SELECT count(*) FROM resets r CROSS JOIN devices d WHERE r.project_id = ? AND r.outcome IS NULL
            AND d.pk = r.device_pk AND d.deleted_at IS NULL{conditions}""",  # noqa: S608 - constants
        *(project_id, *values),
    )
    return pending
