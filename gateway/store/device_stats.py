"""Numbers of devices by state, of a project or of those with some tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.models.devices import DeviceStats
from gateway.store import tag_sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.store.transaction import View

_STATES: Final = """count(*) AS total, count(*) FILTER (WHERE h.connection = 'online') AS online,
    count(*) - count(h.device_pk) AS never_seen, coalesce(sum(h.low_battery), 0) AS low_battery,
    coalesce(sum(h.storage_full), 0) AS storage_full"""


def count(view: View, project_id: str, tags: Sequence[str] = ()) -> DeviceStats:
    """Return how many devices there are that have all of these tags, by state; deleted ones do not count."""
    total, online, never_seen, low_battery, storage_full = _states(view, project_id, tags)
    return DeviceStats(
        project_id=project_id,
        total_count=total,
        online_count=online,
        offline_count=total - online - never_seen,
        never_seen_count=never_seen,
        low_battery_count=low_battery,
        storage_full_count=storage_full,
        pending_reset_count=_pending_resets(view, project_id, tags),
    )


def _states(view: View, project_id: str, tags: Sequence[str]) -> Sequence[int]:
    if not tags:
        living = (
            "FROM devices d LEFT JOIN health h ON h.device_pk = d.pk WHERE d.project_id = ? AND d.deleted_at IS NULL"
        )
        return tuple(view.all(f"SELECT {_STATES} {living}", project_id)[0])
    tagged = tag_sql.tagged(project_id, tag_sql.rarest_first(view, project_id, tags))
    source = f"FROM {tagged.source} LEFT JOIN health h ON h.device_pk = t.device_pk"
    return tuple(view.all(f"SELECT {_STATES} {source} WHERE {' AND '.join(tagged.clauses)}", *tagged.values)[0])


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
