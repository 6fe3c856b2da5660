"""Candidates for a filtered list of devices, found by an index when they are few.

A list is read in its order until a page is full. That is quick when many devices pass the filters, but reads every
device when hardly one does. So each filter is first asked for its candidates. When they are few, only they are read;
when they are many, a page is full soon.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.store import device_search, device_state_sql
from gateway.store.index_order import OfProject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.models.devices import ListDevices
    from gateway.store.transaction import View

FEW: Final = 1_000
_OF_PROJECT: Final = {
    "tag": "SELECT device_pk FROM device_tags WHERE project_id = ? AND tag = ? ORDER BY device_pk LIMIT ?",
    "reset_pending": """SELECT device_pk FROM resets WHERE project_id = ? AND outcome IS NULL
        ORDER BY outcome, requested_at, command_id LIMIT ?""",
}
_DEVICES: Final = {
    "end_user_id": "end_user_id IS NOT NULL",
    "model": "deleted_at IS NULL",
    "bound": "bound_at IS NOT NULL",
    "unbound": "bound_at IS NULL AND deleted_at IS NULL",
}
"""Each query is in the order of an index. Else PostgreSQL would read the table, in the hope to find so many soon."""


def few(view: View, project_id: str, query: ListDevices, most: int | None = None) -> list[int] | None:
    """Return row numbers of at most ``most`` devices, all that can pass the filters, or None when there are more.

    Unless given, ``most`` is :data:`FEW`.

    They are those of the rarest filter. Some of them may not pass, or may belong to another project.
    """
    most = FEW if most is None else most
    if not device_state_sql.presence(query):
        return []  # a device that was never heard is neither online nor low on anything
    fewest: list[int] | None = None
    for ask in _questions(view, project_id, query):
        found = ask(most + 1)
        if len(found) <= (most if fewest is None else len(fewest) - 1):
            fewest = found
        if fewest is not None and len(fewest) <= query.limit:
            return fewest
    if fewest is not None or query.search is None:
        return fewest
    return device_search.candidates(view, project_id, query.search, most)


def _questions(view: View, project_id: str, query: ListDevices) -> Iterator[Callable[[int], list[int]]]:
    """Yield a query for each filter that has an index, the cheapest first. Each takes the most rows to return."""

    def asked(filtered: str, *values: str) -> Callable[[int], list[int]]:
        return lambda most: [row[0] for row in view.all(_OF_PROJECT[filtered], project_id, *values, most)]

    def devices(filtered: str, value: str | None = None) -> Callable[[int], list[int]]:
        of = OfProject(view.dialect, project_id, "", None if value is None else filtered, value)
        within, bounds = of.within()
        conditions = " AND ".join([*within, _DEVICES[filtered]])
        sql = f"SELECT pk FROM devices WHERE {conditions} ORDER BY {of.order()} LIMIT ?"  # noqa: S608 - constants
        return lambda most: [row[0] for row in view.all(sql, *bounds, most)]

    if query.end_user_id is not None:
        yield devices("end_user_id", query.end_user_id)
    for tag in query.tag:
        yield asked("tag", tag)
    for states in device_state_sql.filters(query):
        yield partial(device_state_sql.some, view, project_id, states)
    if query.condition == "reset_pending":
        yield asked("reset_pending")
    if query.model is not None:
        yield devices("model", query.model)
    if query.status is not None:
        yield devices(query.status)
