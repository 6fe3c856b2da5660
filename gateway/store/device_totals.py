"""Number of a project's devices that pass the filters of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.store import device_candidates, device_count_sql, device_list, tag_sql
from gateway.store.index_order import OfProject

if TYPE_CHECKING:
    from gateway.models.devices import ListDevices
    from gateway.store.device_count_sql import DeviceCounts
    from gateway.store.transaction import View

MOST_COUNTED: Final = 10_000
"""A total looks at most at so many devices. An ``offset`` reaches as far."""
_FILTERED: Final = "d.id, d.serial_number, d.name, d.end_user_id, d.model, d.bound_at, d.tags"


@dataclass(frozen=True)
class Total:
    """Number of devices that pass the filters; a lower bound unless it is exact."""

    count: int
    exact: bool


def total(view: View, project_id: str, query: ListDevices) -> Total:
    """Count the devices that pass the filters.

    What the kept counts tell is taken from there. Otherwise the total is exact where a filter leaves at most
    :data:`MOST_COUNTED` devices, or the project has no more. If not, the newest so many are counted.
    """
    counts = device_count_sql.of_project(view, project_id)
    kept = _kept(counts, query)
    if kept is not None:
        return Total(kept, exact=True)
    found = device_candidates.few(view, project_id, query, MOST_COUNTED)
    if found is not None:
        return Total(_count(view, device_list.among(view, project_id, query, found), project_id, query), exact=True)
    if query.tag:
        return _with_tags(view, project_id, query)
    conditions, values = device_list.conditions(view, query)
    of = OfProject(view.dialect, project_id)
    within, bounds = of.within()
    newest = f"""SELECT d.pk, {_FILTERED} FROM devices d WHERE {" AND ".join(within)}
        AND {view.dialect.unindexed("d.project_id")} = ? AND d.deleted_at IS NULL ORDER BY {of.order("DESC")} LIMIT ?"""  # noqa: S608 - constants
    passed: int = view.value(
        f"""SELECT count(*) FROM ({newest}) d LEFT JOIN health h ON h.device_pk = d.pk
            WHERE {" AND ".join(conditions)}""",  # noqa: S608 - our own clauses
        *(*bounds, project_id, MOST_COUNTED, *values),
    )
    return Total(passed, exact=counts.total <= MOST_COUNTED)


def _kept(counts: DeviceCounts, query: ListDevices) -> int | None:
    """Return the number of devices that pass the filters from the kept counts, or None if they do not tell it."""
    if query.tag:
        return None
    by_filter: dict[tuple[tuple[str, Any], ...], int] = {
        (): counts.total,
        (("status", "bound"),): counts.bound,
        (("status", "unbound"),): counts.total - counts.bound,
        (("connection", "online"),): counts.online,
        (("connection", "offline"),): counts.total - counts.online,
        (("seen", True),): counts.seen,
        (("seen", False),): counts.total - counts.seen,
        (("connection", "offline"), ("seen", True)): counts.seen - counts.online,
        (("condition", "low_battery"),): counts.low_battery,
        (("condition", "storage_full"),): counts.storage_full,
        (("condition", "reset_pending"),): counts.pending_resets,
    }
    return by_filter.get(tuple(sorted(device_list.given(query).items())))


def _count(view: View, source: device_list.Source, project_id: str, query: ListDevices) -> int:
    conditions, values = device_list.conditions(view, query)
    clauses = " AND ".join([*source.clauses, f"{source.project} = ?", "d.deleted_at IS NULL", *conditions])
    passed: int = view.value(
        f"SELECT count(*) FROM {source.tables} WHERE {clauses}",  # noqa: S608 - our own clauses
        *(*source.values, project_id, *values),
    )
    return passed


def _with_tags(view: View, project_id: str, query: ListDevices) -> Total:
    """Count the newest devices in the index of the rarest tag. Each tag has more than are counted."""
    tags = tag_sql.rarest_first(view, project_id, query.tag, MOST_COUNTED + 1)
    tagged = tag_sql.tagged(project_id, tags, newest=MOST_COUNTED)
    return Total(_count(view, device_list.with_tags(tagged), project_id, query), exact=False)
