"""Lists of a project's devices: filters, orders, cursors, and the total."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import serial_numbers
from gateway.core.received_json import parse_json
from gateway.store import device_count_sql, device_search, short_ids, tag_sql
from gateway.store.device_candidates import few
from gateway.store.device_sql import COLUMNS, FROM, DeviceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.models.devices import ListDevices
    from gateway.store.device_count_sql import DeviceCounts
    from gateway.store.transaction import View

MOST_COUNTED: Final = 100_000
"""A total reads at most so many devices, the newest of the project."""

SORTED: Final = 2_000
"""So many devices with the tags are sorted. Of more, a page is found sooner by walking all devices in their order."""

SKIPPED: Final = 1_000
"""An ``offset`` up to this costs no more than a page of the largest ``limit``."""


_NAME: Final = "lower(coalesce(d.name, ''))"
_LIKE_PROJECT: Final = short_ids.like("d.project_id")
_LIVING: Final = f"FROM devices d WHERE {_LIKE_PROJECT} AND {{}} = ? AND d.deleted_at IS NULL ORDER BY d.pk DESC"
_FILTERED: Final = "d.id, d.serial_number, d.name, d.end_user_id, d.model, d.bound_at, d.tags"
_ORDERS: Final = {"created_at": "d.pk", "updated_at": "d.updated_at", "serial_number": "d.serial_number", "name": _NAME}
"""Orders of a list. Each has an index, in which devices with equal values lie in the order of ``pk``."""
_IN_ORDER: Final = ("low_battery", "storage_full")
"""Conditions whose index gives the devices in the order of their registration."""
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
    "reset_pending": """d.pk IN (SELECT device_pk FROM commands
        WHERE type = 'factory_reset' AND status IN ('pending', 'delivered'))""",
}


class CursorError(Exception):
    """The cursor does not belong to this list."""


@dataclass(frozen=True)
class Total:
    """Number of devices that pass the filters; not exact when the project has more than are counted."""

    count: int
    exact: bool


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
    filters, filtered = _filters(view, query)
    clauses = [*source.clauses, f"{source.project} = ?", "d.deleted_at IS NULL", *filters]
    values = [*source.values, project_id, *filtered]
    if query.cursor is not None:
        beyond = "<" if _descending(query) else ">"
        position, pk = _position(view, project_id, query)
        if key != source.pk:  # a separate bound: SQLite does not derive it from a comparison of rows with an expression
            clauses.append(f"{key} {beyond}= ? AND ({key} {beyond} ? OR d.pk {beyond} ?)")
            values += [position, position, pk]
        else:
            clauses.append(f"{key} {beyond} ?")
            values.append(pk)
    order = f"{key} {direction}" if key == source.pk else f"{key} {direction}, d.pk {direction}"
    selected = f"FROM {source.tables} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ? OFFSET ?"
    statement = f"SELECT {COLUMNS}, {key} AS sort_key {selected}"
    if query.offset:  # of what is left out no more is read than the filters and the order need
        statement = f"""SELECT {COLUMNS}, c.sort_key FROM (SELECT d.pk, {key} AS sort_key {selected}) c
            CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk WHERE d.pk = c.pk
            ORDER BY c.sort_key {direction}, d.pk {direction}"""  # noqa: S608 - our own clauses
    rows = view.all(statement, *values, query.limit + 1, query.offset)
    return [ListedDevice(DeviceRecord(*fields), sort_key) for *fields, sort_key in rows]


@dataclass(frozen=True)
class _Source:
    """The tables of a query of devices, the conditions that join them, and the values of both in the order of the text.

    ``pk`` is the column of the row number in whose order the tables are read, ``project`` that of the project.
    """

    tables: str
    clauses: list[str]
    values: list[Any]
    pk: str = "d.pk"
    project: str = "d.project_id"


def _source(view: View, project_id: str, query: ListDevices) -> _Source:
    """Return where a page is read from: from the few that can pass, from the index of a tag, or from all in order."""
    if len(query.tag) == 1 and query.sort == "created_at" and not _given(query):
        return _with_tags(tag_sql.tagged(project_id, query.tag))
    found = few(view, project_id, query)
    if found is not None and not (len(found) > query.limit and _has_index_in_order(query)):
        return _among(view, project_id, query, found)
    if query.tag:
        tagged = tag_sql.tagged(project_id, tag_sql.rarest_first(view, project_id, query.tag))
        if query.sort == "created_at":
            return _with_tags(tagged)
        if tag_sql.count(view, tagged, SORTED + 1) <= SORTED:
            return _among(view, project_id, query, tag_sql.some(view, tagged, SORTED))
    if query.condition in _IN_ORDER and query.sort == "created_at":
        tables = "health h CROSS JOIN devices d"
        return _Source(tables, ["d.pk = h.device_pk"], [], "h.device_pk")
    return _all_in_order(view, project_id, query)


def _all_in_order(view: View, project_id: str, query: ListDevices) -> _Source:
    tables, (clauses, values) = FROM.removeprefix("FROM "), _tag_conditions(project_id, query)
    if query.sort == "serial_number" or query.serial_number is not None:  # its index has the whole id of the project
        return _Source(tables, clauses, values)
    project = view.dialect.unindexed("d.project_id")
    return _Source(tables, [_LIKE_PROJECT, *clauses], [project_id, *values], project=project)


def _given(query: ListDevices) -> dict[str, Any]:
    """Return the filters of a query, without its tags."""
    return query.model_dump(exclude=_PAGE_FIELDS, exclude_none=True)


def _has_index_in_order(query: ListDevices) -> bool:
    """Return whether an index gives just the devices of this list in its order, so that a page of them is enough."""
    given = _given(query)
    is_one = len(given) == 1 and not query.tag and query.sort == "created_at"
    return is_one and (query.condition in _IN_ORDER or not given.keys().isdisjoint({"end_user_id", "model", "status"}))


def _among(view: View, project_id: str, query: ListDevices, found: list[int]) -> _Source:
    """Return the listed devices. SQLite takes the tables of a CROSS JOIN in the order in which they are written."""
    clauses, values = _tag_conditions(project_id, query)
    tables = f"({view.dialect.numbers}) c CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk"
    project = view.dialect.unindexed("d.project_id")
    return _Source(
        tables, ["d.pk = c.value", _LIKE_PROJECT, *clauses], [json.dumps(found), project_id, *values], project=project
    )


def _with_tags(tagged: tag_sql.Tagged) -> _Source:
    """Return the devices in the order of the index of tags.

    The sum keeps PostgreSQL from reading all devices in their order instead, in the hope to meet one with the tag soon.
    """
    tables = f"{tagged.source} CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk"
    return _Source(tables, [*tagged.clauses, "d.pk = t.device_pk + 0"], tagged.values, "t.device_pk")


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


def total(view: View, project_id: str, query: ListDevices) -> Total:
    """Count the devices that pass the filters, among the newest :data:`MOST_COUNTED` of the project.

    A filter that is counted anyway, or none, is answered from the kept counts.
    """
    kept = _kept(device_count_sql.of_project(view, project_id), query)
    if kept is not None:
        return Total(kept, exact=True)
    filters, values = _filters(view, query)
    found = few(view, project_id, query)
    if found is not None:
        source = _among(view, project_id, query, found)
        clauses = " AND ".join([*source.clauses, f"{source.project} = ?", "d.deleted_at IS NULL", *filters])
        statement = f"SELECT count(*) FROM {source.tables} WHERE {clauses}"  # noqa: S608 - our own clauses
        return Total(view.value(statement, *source.values, project_id, *values), exact=True)
    if query.tag:
        return _total_with_tags(view, project_id, query)
    living = _LIVING.format(view.dialect.unindexed("d.project_id"))
    passed: int = view.value(
        f"""SELECT count(*) FROM (SELECT d.pk, {_FILTERED} {living} LIMIT ?) d
            LEFT JOIN health h ON h.device_pk = d.pk WHERE {" AND ".join(filters)}"""  # noqa: S608 - our own clauses
        if filters
        else f"SELECT count(*) FROM (SELECT d.pk {living} LIMIT ?) d",  # noqa: S608 - the same
        *(project_id, project_id, MOST_COUNTED, *values),
    )
    beyond = view.one(f"SELECT d.pk {living} LIMIT 1 OFFSET ?", project_id, project_id, MOST_COUNTED)
    return Total(passed, beyond is None)


def _kept(counts: DeviceCounts, query: ListDevices) -> int | None:
    """Return the number of devices that pass the filters from the kept counts, or None if they do not tell it."""
    if query.tag:
        return None
    by_filter = {
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
    return by_filter.get(tuple(sorted(_given(query).items())))


def generations(view: View, project_id: str, query: ListDevices, limit: int) -> Iterator[tuple[int, int]]:
    """Yield row number and generation of devices that pass the filters, the oldest first, up to ``limit``."""
    source = _source(view, project_id, query.model_copy(update={"sort": "created_at"}))
    filters, values = _filters(view, query)
    clauses = " AND ".join([*source.clauses, f"{source.project} = ?", "d.deleted_at IS NULL", *filters])
    for row in view.each(
        f"""SELECT d.pk, d.binding_generation FROM {source.tables} WHERE {clauses}
            ORDER BY {source.pk} LIMIT ?""",  # noqa: S608 - our own clauses
        *(*source.values, project_id, *values, limit),
    ):
        yield row[0], row[1]


def _total_with_tags(view: View, project_id: str, query: ListDevices) -> Total:
    """Count in the index of the rarest tag: its newest :data:`MOST_COUNTED` devices."""
    tags = tag_sql.rarest_first(view, project_id, query.tag, MOST_COUNTED + 1)
    tagged = tag_sql.tagged(project_id, tags, newest=MOST_COUNTED)
    filters, values = _filters(view, query)
    source = _with_tags(tagged) if filters else _Source(tagged.source, tagged.clauses, tagged.values)
    clauses = " AND ".join([*source.clauses, *filters])
    where = f"WHERE {clauses}" if clauses else ""
    statement = f"SELECT count(*) FROM {source.tables} {where}"  # noqa: S608 - our own clauses
    passed: int = view.value(statement, *source.values, *values)
    first = tag_sql.tagged(project_id, tags[:1])
    return Total(passed, exact=tag_sql.count(view, first, MOST_COUNTED + 1) <= MOST_COUNTED)


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


def _filters(view: View, query: ListDevices) -> tuple[list[str], list[Any]]:
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
