"""Lists of a project's devices: filters, orders and cursors."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import serial_numbers
from gateway.core.received_json import parse_json
from gateway.store import device_search, device_state_sql, short_ids, tag_sql
from gateway.store.device_candidates import few
from gateway.store.device_sql import COLUMNS, FROM, DeviceRecord
from gateway.store.index_order import OfProject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.models.devices import ListDevices
    from gateway.store.transaction import View

SORTED: Final = 2_000
"""So many devices with the tags are sorted. Of more, a page is found sooner by walking all devices in their order."""

SKIPPED: Final = 1_000
"""An ``offset`` up to this costs no more than a page of the largest ``limit``."""


_NAME: Final = "lower(coalesce(d.name, ''))"
_LIKE_PROJECT: Final = short_ids.like("d.project_id")
_ORDERS: Final = {"created_at": "d.pk", "updated_at": "d.updated_at", "serial_number": "d.serial_number", "name": _NAME}
"""Orders of a list. Each has an index, in which devices with equal values lie in the order of ``pk``."""
_PAGE_FIELDS: Final = {"limit", "cursor", "offset", "sort", "order", "total", "tag"}
_NEWEST_FIRST: Final = ("created_at", "updated_at")
_CONNECTIONS: Final = {
    "online": "h.connection = 'online'",
    "offline": "(h.connection = 'offline' OR h.device_pk IS NULL)",
}
"""A function of the column would leave PostgreSQL without statistics: it would expect one device in 200 to pass."""
_CONDITIONS: Final = {
    "low_battery": "h.low_battery = 1",
    "storage_full": "h.storage_full = 1",
    "reset_pending": """EXISTS (SELECT 1 FROM commands c WHERE c.device_pk = d.pk
        AND c.type = 'factory_reset' AND c.status IN ('pending', 'delivered') LIMIT 1 OFFSET 0)""",
}
"""The limit keeps PostgreSQL from a join with all open resets, for which it would read all devices."""


class CursorError(Exception):
    """The cursor does not belong to this list."""


class ListedDevice(NamedTuple):
    """A device of a list, and the value that it is sorted by."""

    device: DeviceRecord
    sort_key: Any


def page(view: View, project_id: str, query: ListDevices) -> list[ListedDevice]:
    """Return a page, and one device more than ``query.limit`` when there are more.

    Raises:
        CursorError: the cursor is not one of this list, or was made under another order.
    """
    source, direction = _source(view, project_id, query), "DESC" if _descending(query) else "ASC"
    key = source.pk if query.sort == "created_at" else _ORDERS[query.sort]
    order = f"{key} {direction}" if key == source.pk else f"{key} {direction}, d.pk {direction}"
    filters, filtered = conditions(view, source.query or query)
    clauses = [*source.clauses, f"{source.project} = ?", "d.deleted_at IS NULL", *filters]
    values = [*source.values, project_id, *filtered]
    bound: dict[str, int] = {}
    if query.cursor is not None:
        beyond = "<" if _descending(query) else ">"
        position, pk = _position(view, project_id, query)
        if key != source.pk:  # a separate bound: SQLite does not derive it from a comparison of rows with an expression
            clauses.append(f"{key} {beyond}= ? AND ({key} {beyond} ? OR d.pk {beyond} ?)")
            values += [position, position, pk]
        elif source.of is None:
            clauses.append(f"{key} {beyond} ?")
            values.append(pk)
        else:
            bound = {"last": pk - 1} if _descending(query) else {"first": pk + 1}
    if source.of is not None:
        (within, bounds), order = source.of.within(**bound), source.of.order(direction)
        clauses, values = [*within, *clauses], [*bounds, *values]
    selected = f"FROM {source.tables} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ? OFFSET ?"
    statement = f"SELECT {COLUMNS}, {key} AS sort_key {selected}"
    if query.offset:  # of what is left out no more is read than the filters and the order need
        statement = f"""SELECT {COLUMNS}, c.sort_key FROM (SELECT d.pk, {key} AS sort_key {selected}) c
            CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk WHERE d.pk = c.pk
            ORDER BY c.sort_key {direction}, d.pk {direction}"""  # noqa: S608 - our own clauses
    rows = view.all(statement, *values, query.limit + 1, query.offset)
    return [ListedDevice(DeviceRecord(*fields), sort_key) for *fields, sort_key in rows]


@dataclass(frozen=True)
class Source:
    """The tables of a query of devices, the conditions that join them, and the values of both in the order of the text.

    ``pk`` is the column of the row number in whose order the tables are read, ``project`` that of the project. ``of``
    reads the devices of the project in that order. ``query`` has the filters that are left to check.
    """

    tables: str
    clauses: list[str]
    values: list[Any]
    pk: str = "d.pk"
    project: str = "d.project_id"
    of: OfProject | None = None
    query: ListDevices | None = None


def _source(view: View, project_id: str, query: ListDevices) -> Source:
    """Return where a page is read from: from the few that can pass, from the index of a tag, or from all in order."""
    if len(query.tag) == 1 and query.sort == "created_at" and not given(query):
        return with_tags(tag_sql.tagged(project_id, query.tag))
    found = few(view, project_id, query)
    if found is not None and not (len(found) > query.limit and _has_index_in_order(query)):
        return among(view, project_id, query, found)
    if query.tag:
        tagged = tag_sql.tagged(project_id, tag_sql.rarest_first(view, project_id, query.tag))
        if query.sort == "created_at":
            return with_tags(tagged)
        if tag_sql.count(view, tagged, SORTED + 1) <= SORTED:
            return among(view, project_id, query, tag_sql.some(view, tagged, SORTED))
    state = device_state_sql.only(query)
    if state is not None and query.sort == "created_at":
        return _with_state(project_id, query, state)
    return _all_in_order(view, project_id, query)


def _all_in_order(view: View, project_id: str, query: ListDevices) -> Source:
    tables, (clauses, values) = FROM.removeprefix("FROM "), _tag_conditions(project_id, query)
    if query.sort == "serial_number" or query.serial_number is not None:  # its index has the whole id of the project
        return Source(tables, clauses, values)
    project = view.dialect.unindexed("d.project_id")
    if query.sort == "created_at":
        named = next((name for name in ("end_user_id", "model") if getattr(query, name) is not None), None)
        of = OfProject(view.dialect, project_id, "d.", named, named and getattr(query, named))
        left = query if named is None else query.model_copy(update={named: None})
        if named == "end_user_id":
            clauses = [*clauses, "d.end_user_id IS NOT NULL"]  # its index has no others
        return Source(tables, clauses, values, project=project, of=of, query=left)
    return Source(tables, [_LIKE_PROJECT, *clauses], [project_id, *values], project=project)


def given(query: ListDevices) -> dict[str, Any]:
    """Return the filters of a query, without its tags."""
    return query.model_dump(exclude=_PAGE_FIELDS, exclude_none=True)


def _has_index_in_order(query: ListDevices) -> bool:
    """Return whether an index gives just the devices of this list in its order, so that a page of them is enough."""
    filters = given(query).keys()
    if query.tag or query.sort != "created_at":
        return False
    if filters & {"connection", "seen", "condition"}:
        return len(filters) == 1 and device_state_sql.only(query) is not None
    return len(filters) == 1 and not filters.isdisjoint({"end_user_id", "model", "status"})


def among(view: View, project_id: str, query: ListDevices, found: list[int]) -> Source:
    """Return the listed devices. SQLite takes the tables of a CROSS JOIN in the order in which they are written."""
    clauses, values = _tag_conditions(project_id, query)
    tables = f"({view.dialect.numbers}) c CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk"
    project = view.dialect.unindexed("d.project_id")
    return Source(
        tables, ["d.pk = c.value", _LIKE_PROJECT, *clauses], [json.dumps(found), project_id, *values], project=project
    )


def with_tags(tagged: tag_sql.Tagged) -> Source:
    """Return the devices in the order of the index of tags.

    The sum keeps PostgreSQL from reading all devices in their order instead, in the hope to meet one with the tag soon.
    """
    tables = f"{tagged.source} CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk"
    return Source(tables, [*tagged.clauses, "d.pk = t.device_pk + 0"], tagged.values, "t.device_pk")


def _with_state(project_id: str, query: ListDevices, state: device_state_sql.State) -> Source:
    """Return the devices in the order of the index of states. The sum is for PostgreSQL, as in :func:`with_tags`.

    The filter that the state stands for is not checked again: PostgreSQL would expect few devices to pass it twice.
    """
    tables = "device_states s CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk"
    clauses = [device_state_sql.IN_STATE, "d.pk = s.device_pk + 0"]
    names = ("condition",) if state not in device_state_sql.PRESENCE else ("connection", "seen")
    left = query.model_copy(update=dict.fromkeys(names))
    return Source(tables, clauses, [project_id, state], "s.device_pk", query=left)


def _tag_conditions(project_id: str, query: ListDevices) -> tuple[list[str], list[Any]]:
    tags = list(dict.fromkeys(query.tag))
    return [tag_sql.CONDITION] * len(tags), [value for tag in tags for value in (project_id, tag)]


def looks_at_many(query: ListDevices) -> bool:
    """Return whether this may have to read many more devices than it shows."""
    filters = (
        query.end_user_id,
        query.model,
        query.status,
        query.connection,
        query.condition,
        query.search,
        query.seen,
    )
    return query.total or query.offset > SKIPPED or bool(query.tag) or any(value is not None for value in filters)


def generations(view: View, project_id: str, query: ListDevices, limit: int) -> Iterator[tuple[int, int]]:
    """Yield row number and generation of devices that pass the filters, the oldest first, up to ``limit``."""
    source = _source(view, project_id, query.model_copy(update={"sort": "created_at"}))
    filters, values = conditions(view, source.query or query)
    within, bounds = source.of.within() if source.of else ([], [])
    clauses = " AND ".join([*within, *source.clauses, f"{source.project} = ?", "d.deleted_at IS NULL", *filters])
    for row in view.each(
        f"""SELECT d.pk, d.binding_generation FROM {source.tables} WHERE {clauses}
            ORDER BY {source.of.order() if source.of else source.pk} LIMIT ?""",  # noqa: S608 - our own clauses
        *(*bounds, *source.values, project_id, *values, limit),
    ):
        yield row[0], row[1]


def cursor(query: ListDevices, last: ListedDevice) -> str:
    """Return where the page after this device begins; the order is part of it."""
    position = None if query.sort == "created_at" else last.sort_key
    text = json.dumps([query.sort, _descending(query), position, last.device.id], ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(view: View, project_id: str, query: ListDevices) -> tuple[Any, int]:
    """Return value and row number of the last device of the page before."""
    text = query.cursor or ""
    try:
        sort, descending, position, device_id = parse_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, TypeError) as error:
        raise CursorError from error
    kinds = {"created_at": type(None), "updated_at": int}
    expected = (query.sort, _descending(query), kinds.get(query.sort, str), str)
    if (sort, descending, type(position), type(device_id)) != expected:
        raise CursorError
    row = view.one("SELECT pk FROM devices WHERE id = ? AND project_id = ?", device_id, project_id)
    if row is None:
        raise CursorError
    return position, row["pk"]


def _descending(query: ListDevices) -> bool:
    return query.sort in _NEWEST_FIRST if query.order is None else query.order == "desc"


def conditions(view: View, query: ListDevices) -> tuple[list[str], list[Any]]:
    """Return the conditions that a device must meet, and their values."""
    given = {
        "d.end_user_id = ?": query.end_user_id,
        "d.model = ?": query.model,
    }
    clauses = [clause for clause, value in given.items() if value is not None]
    values: list[Any] = [value for value in given.values() if value is not None]
    if query.connection is not None:
        clauses.append(_CONNECTIONS[query.connection])
    if query.serial_number is not None:
        known = serial_numbers.forms(query.serial_number)
        clauses.append(f"d.serial_number IN ({', '.join('?' * len(known))})")
        values += known
    if query.status is not None:
        clauses.append("d.bound_at IS " + ("NOT NULL" if query.status == "bound" else "NULL"))
    if query.seen is not None:
        clauses.append("h.device_pk IS " + ("NOT NULL" if query.seen else "NULL"))
    if query.condition is not None:
        clauses.append(_CONDITIONS[query.condition])
    if query.search is not None:
        clause, texts = device_search.condition(view.dialect, query.search)
        clauses.append(clause)
        values += texts
    return clauses, values
