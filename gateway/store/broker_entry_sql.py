"""SQL of the password entries of some devices: those whose access is marked, and a page of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store.broker_sql import serves

if TYPE_CHECKING:
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
