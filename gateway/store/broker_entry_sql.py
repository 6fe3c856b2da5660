"""SQL of the password entries of some devices: those whose access is marked, and a page of all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store.broker_sql import serves

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.store.transaction import View


_NEWEST: Final = """(SELECT broker_entry FROM tokens WHERE device_pk = {} AND state <> 'revoked'
    ORDER BY id DESC LIMIT 1)"""
"""The entry of the newest good token of a device, looked up for each. PostgreSQL expects a join on the highest number
to find one row in all, and sorted every device for each page."""


class EntryPage(NamedTuple):
    """Id and password entry of devices that may connect, in the order of ids, and whether more follow."""

    entries: list[tuple[str, str]]
    has_more: bool


def marked(view: View, broker: int, limit: int) -> dict[str, str | None] | None:
    """Return the entry of each device whose access is marked at this broker; None where it may not connect there.

    Return None where more than ``limit`` devices are marked.
    """
    rows = view.all(
        f"""SELECT d.id, CASE WHEN d.deleted_at IS NULL AND {serves("d.pk", "o.broker_pk")} THEN
                {_NEWEST.format("d.pk")} END AS entry
            FROM outbox o JOIN devices d ON d.pk = o.device_pk
            WHERE o.broker_pk = ? AND o.kind = 'credential' LIMIT ?""",  # noqa: S608 - a constant
        *(broker, limit + 1),
    )
    return None if len(rows) > limit else {row["id"]: row["entry"] for row in rows}


def page(view: View, broker: int, after: str, limit: int) -> EntryPage:
    """Return the entries of at most so many devices with ids after this one, each of its newest good token."""
    rows = view.all(
        f"""SELECT d.id, d.entry FROM (SELECT pk, id, {_NEWEST.format("devices.pk")} AS entry FROM devices
                WHERE id > ? AND deleted_at IS NULL) AS d
            WHERE d.entry IS NOT NULL AND {serves("d.pk", "?")} ORDER BY d.id LIMIT ?""",  # noqa: S608 - constants
        *(after, broker, limit),
    )
    return EntryPage([(row["id"], row["entry"]) for row in rows], len(rows) == limit)


def good(view: View, broker: int, device_ids: Collection[str]) -> dict[str, set[str]]:
    """Return the entries of all good tokens of these devices; none where a device may not connect to this broker."""
    entries: dict[str, set[str]] = {device_id: set() for device_id in device_ids}
    rows = view.all(
        f"""SELECT d.id, t.broker_entry FROM ({view.dialect.names}) AS listed JOIN devices d ON d.id = listed.value
            JOIN tokens t ON t.device_pk = d.pk AND t.state <> 'revoked'
            WHERE d.deleted_at IS NULL AND {serves("d.pk", "?")}""",  # noqa: S608 - constants
        *(json.dumps(list(entries)), broker),
    )
    for row in rows:
        entries[row["id"]].add(row["broker_entry"])
    return entries


class DevicePage(NamedTuple):
    """Devices that ever had a token, in the order of ids, and the last id that was read, or None after the last."""

    ids: list[str]
    last: str | None


def ever_bound(view: View, after: str, limit: int) -> DevicePage:
    """Read at most so many devices with ids after this one, deleted ones too; return those that ever had a token."""
    rows = view.all(
        """SELECT d.id, EXISTS (SELECT 1 FROM tokens WHERE device_pk = d.pk) AS had FROM devices d
            WHERE d.id > ? ORDER BY d.id LIMIT ?""",
        *(after, limit),
    )
    return DevicePage([row["id"] for row in rows if row["had"]], rows[-1]["id"] if len(rows) == limit else None)
