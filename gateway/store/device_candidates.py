"""Candidates for a filtered list of devices, found by an index when they are few.

A list is read in its order until a page is full. That is quick when many devices pass the filters, but reads every
device when hardly one does. So each filter is first asked for its candidates. When they are few, only they are read;
when they are many, a page is full soon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store import device_search, short_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.models.devices import ListDevices
    from gateway.store.transaction import View

FEW: Final = 1_000
_HEALTH: Final = {
    "online": "SELECT device_pk FROM health WHERE connection = 'online' ORDER BY offline_due_at LIMIT ?",
    "low_battery": "SELECT device_pk FROM health WHERE low_battery = 1 LIMIT ?",
    "storage_full": "SELECT device_pk FROM health WHERE storage_full = 1 LIMIT ?",
    "reset_pending": """SELECT device_pk FROM commands
        WHERE type = 'factory_reset' AND status IN ('pending', 'delivered') LIMIT ?""",
}
_DEVICES: Final = f"SELECT pk FROM devices WHERE {short_ids.like('project_id')}"  # noqa: S608 - a constant
_OF_PROJECT: Final = {
    "end_user_id": f"{_DEVICES} AND end_user_id = ? LIMIT ?",
    "tag": "SELECT device_pk FROM device_tags WHERE project_id = ? AND tag = ? LIMIT ?",
    "model": f"{_DEVICES} AND model = ? AND deleted_at IS NULL LIMIT ?",
    "bound": f"{_DEVICES} AND bound_at IS NOT NULL LIMIT ?",
    "unbound": f"{_DEVICES} AND bound_at IS NULL AND deleted_at IS NULL LIMIT ?",
}


def few(view: View, project_id: str, query: ListDevices) -> list[int] | None:
    """Return row numbers of at most :data:`FEW` devices, all that can pass the filters, or None when there are more.

    They are those of the rarest filter. Some of them may not pass, or may belong to another project.
    """
    if _contradicts_itself(query):
        return []
    fewest: list[int] | None = None
    for sql, values in _questions(project_id, query):
        rows = view.all(sql, *values, FEW + 1)
        if len(rows) <= (FEW if fewest is None else len(fewest) - 1):
            fewest = [row[0] for row in rows]
        if fewest is not None and len(fewest) <= query.limit:
            return fewest
    if fewest is not None or query.search is None:
        return fewest
    return device_search.candidates(view, project_id, query.search, FEW)


def _contradicts_itself(query: ListDevices) -> bool:
    """Return whether no device can pass: one that was never heard is neither online nor low on anything."""
    return query.seen is False and (query.connection == "online" or query.condition in {"low_battery", "storage_full"})


def _questions(project_id: str, query: ListDevices) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield a query for each filter that has an index, the cheapest first."""
    if query.end_user_id is not None:
        yield _OF_PROJECT["end_user_id"], (project_id, query.end_user_id)
    for tag in query.tag:
        yield _OF_PROJECT["tag"], (project_id, tag)
    for filtered in (query.connection, query.condition):
        if filtered in _HEALTH:
            yield _HEALTH[filtered], ()
    if query.model is not None:
        yield _OF_PROJECT["model"], (project_id, query.model)
    if query.status is not None:
        yield _OF_PROJECT[query.status], (project_id,)
