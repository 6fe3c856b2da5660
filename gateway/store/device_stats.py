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


def count(view: View, project_id: str, tags: Sequence[str] = ()) -> DeviceStats:
    """Return how many devices there are that have all of these tags, by state; deleted ones do not count.

    Without tags it reads kept counts, with tags every device that has them.
    """
    counts = _tagged(view, project_id, tags) if tags else device_count_sql.of_project(view, project_id)
    return DeviceStats(
        project_id=project_id,
        total_count=counts.total,
        online_count=counts.online,
        offline_count=counts.seen - counts.online,
        never_seen_count=counts.total - counts.seen,
        low_battery_count=counts.low_battery,
        storage_full_count=counts.storage_full,
        pending_reset_count=counts.pending_resets,
    )


def _tagged(view: View, project_id: str, tags: Sequence[str]) -> DeviceCounts:
    tagged = tag_sql.tagged(project_id, tag_sql.rarest_first(view, project_id, tags))
    source = f"FROM {tagged.source} LEFT JOIN health h ON h.device_pk = t.device_pk"
    row = view.all(f"SELECT {_TAGGED} {source} WHERE {' AND '.join(tagged.clauses)}", *tagged.values)[0]
    return DeviceCounts(*row)._replace(pending_resets=_pending_resets(view, project_id, tags))


def _pending_resets(view: View, project_id: str, tags: Sequence[str]) -> int:
    """Return how many resets are open. SQLite reads the open commands first: it keeps to the order of a CROSS JOIN."""
    conditions = "".join(f" AND {tag_sql.CONDITION}" for _ in tags)
    values: list[Any] = [value for tag in tags for value in (project_id, tag)]
    pending: int = view.value(
        f"""SELECT count(*) FROM commands c CROSS JOIN devices d
            WHERE c.type = 'factory_reset' AND c.status IN ('pending', 'delivered')
            AND d.pk = c.device_pk AND d.project_id = ? AND d.deleted_at IS NULL{conditions}""",  # noqa: S608 - constants
        *(project_id, *values),
    )
    return pending
