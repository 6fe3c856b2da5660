"""Lists of a project's devices: filters, orders, cursors, and the total."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import serial_numbers
from gateway.core.received_json import parse_json
from gateway.store import device_search
from gateway.store.device_candidates import few
from gateway.store.device_sql import COLUMNS, FROM, DeviceRecord

if TYPE_CHECKING:
    from gateway.models.devices import ListDevices
    from gateway.store.transaction import View

MOST_COUNTED: Final = 100_000
"""A total reads at most so many devices, the newest of the project."""

SKIPPED: Final = 1_000
"""An ``offset`` up to this costs no more than a page of the largest ``limit``."""


_NAME: Final = "lower(coalesce(d.name, ''))"
_LIVING: Final = "FROM devices d WHERE d.project_id = ? AND d.deleted_at IS NULL ORDER BY d.pk DESC"
_FILTERED: Final = "d.id, d.serial_number, d.name, d.end_user_id, d.model, d.bound_at"
_ORDERS: Final = {"created_at": "d.pk", "updated_at": "d.updated_at", "serial_number": "d.serial_number", "name": _NAME}
"""Orders of a list. Each has an index, in which devices with equal values lie in the order of ``pk``."""
_NEWEST_FIRST: Final = ("created_at", "updated_at")
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
    key, direction = _ORDERS[query.sort], "DESC" if _descending(query) else "ASC"
    filters, filtered = _filters(view, query)
    clauses, values = ["d.project_id = ?", "d.deleted_at IS NULL", *filters], [project_id, *filtered]
    if query.cursor is not None:
        beyond = "<" if _descending(query) else ">"
        position, pk = _position(view, project_id, query)
        if key != "d.pk":  # a separate bound: SQLite does not derive it from a comparison of rows with an expression
            clauses.append(f"{key} {beyond}= ? AND ({key} {beyond} ? OR d.pk {beyond} ?)")
            values += [position, position, pk]
        else:
            clauses.append(f"d.pk {beyond} ?")
            values.append(pk)
    order = f"d.pk {direction}" if key == "d.pk" else f"{key} {direction}, d.pk {direction}"
    found = few(view, project_id, query)
    source, candidates = (FROM, []) if found is None else (_among(view), [json.dumps(found)])
    if found is not None:
        clauses.append("d.pk = c.value")
    rows = view.all(
        f"SELECT {COLUMNS}, {key} AS sort_key {source} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ? OFFSET ?",
        *(*candidates, *values, query.limit + 1, query.offset),
    )
    return [ListedDevice(DeviceRecord(*fields), sort_key) for *fields, sort_key in rows]


def _among(view: View) -> str:
    """Return the tables of a query that is restricted to listed devices.

    SQLite takes the tables of a CROSS JOIN in the order in which they are written.
    """
    return f"""FROM ({view.dialect.numbers}) c CROSS JOIN devices d LEFT JOIN health h ON h.device_pk = d.pk"""


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
    return query.total or query.offset > SKIPPED or any(value is not None for value in filters)


def total(view: View, project_id: str, query: ListDevices) -> Total:
    """Count the devices that pass the filters, among the newest :data:`MOST_COUNTED` of the project."""
    filters, values = _filters(view, query)
    found = few(view, project_id, query)
    if found is not None:
        clauses = " AND ".join(["d.project_id = ?", "d.deleted_at IS NULL", "d.pk = c.value", *filters])
        return Total(
            view.value(f"SELECT count(*) {_among(view)} WHERE {clauses}", json.dumps(found), project_id, *values),
            exact=True,
        )
    passed: int = view.value(
        f"""SELECT count(*) FROM (SELECT d.pk, {_FILTERED} {_LIVING} LIMIT ?) d
            LEFT JOIN health h ON h.device_pk = d.pk WHERE {" AND ".join(filters)}"""  # noqa: S608 - our own clauses
        if filters
        else f"SELECT count(*) FROM (SELECT d.pk {_LIVING} LIMIT ?) d",  # noqa: S608 - the same
        *(project_id, MOST_COUNTED, *values),
    )
    beyond = view.one(f"SELECT d.pk {_LIVING} LIMIT 1 OFFSET ?", project_id, MOST_COUNTED)
    return Total(passed, beyond is None)


def generations(view: View, project_id: str, query: ListDevices, limit: int) -> list[tuple[int, int]]:
    """Return row number and generation of devices that pass the filters, the oldest first, up to ``limit``."""
    filters, values = _filters(view, query)
    found = few(view, project_id, query)
    source, candidates = (FROM, []) if found is None else (_among(view), [json.dumps(found)])
    joined = [] if found is None else ["d.pk = c.value"]
    clauses = " AND ".join(["d.project_id = ?", "d.deleted_at IS NULL", *filters, *joined])
    rows = view.all(
        f"SELECT d.pk, d.binding_generation {source} WHERE {clauses} ORDER BY d.pk LIMIT ?",
        *(*candidates, project_id, *values, limit),
    )
    return [(row[0], row[1]) for row in rows]


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
        "coalesce(h.connection, 'offline') = ?": query.connection,
    }
    clauses = [clause for clause, value in given.items() if value is not None]
    values: list[Any] = [value for value in given.values() if value is not None]
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
