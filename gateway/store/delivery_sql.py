"""SQL of deliveries: which event goes to which webhook, and its progress.

The audit trail itself is the outbox: each webhook has a cursor over ``events.seq``. A row is inserted here only when
the worker picks an event up. A delivery is deleted with its event and with its webhook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import ids
from gateway.core.clock import to_rfc3339
from gateway.models.webhooks import Delivery, DeliveryStatus, ListDeliveries
from gateway.store.device_sql import moment
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View
    from gateway.store.webhook_sql import WebhookRecord


class DeliveryRecord(NamedTuple):
    """A delivery with the id and the type of its event; times are milliseconds since the epoch.

    ``replays`` counts how often a replay was asked for.
    """

    id: str
    webhook_id: str
    event_seq: int
    status: DeliveryStatus
    attempts: int
    response_status: int | None
    error: str | None
    next_attempt_at: int | None
    last_attempt_at: int | None
    created_at: int
    replays: int
    event_id: str
    event_type: str


class DueDelivery(NamedTuple):
    """A delivery to send, with its event and with URL and stored secrets of its webhook.

    Times are milliseconds since the epoch. A pending delivery always has ``next_attempt_at``. ``data`` is JSON text.
    """

    id: str
    webhook_id: str
    attempts: int
    replays: int
    next_attempt_at: int
    event_id: str
    event_type: str
    event_created_at: int
    data: str
    url: str
    secret: bytes
    previous_secret: bytes | None
    previous_expires_at: int | None
    rotated_at: int | None

    def __repr__(self) -> str:
        """Return what may be logged."""
        return f"DueDelivery(id={self.id!r}, webhook_id={self.webhook_id!r}, event_type={self.event_type!r})"


class UnreadEvent(NamedTuple):
    """An event that a webhook has yet to pick up; ``data`` is JSON text."""

    seq: int
    type: str
    data: str


_FROM: Final = "FROM deliveries d JOIN events e ON e.seq = d.event_seq"
_EVENT: Final = {"event_id": "e.id", "event_type": "e.type"}
_DELIVERIES: Final = f"SELECT {columns(DeliveryRecord, 'd', **_EVENT)} {_FROM}"
_OF_EVENT: Final = _EVENT | {"event_created_at": "e.created_at", "data": "e.data"}
_OF_WEBHOOK: Final = {
    name: f"w.{name}" for name in ("url", "secret", "previous_secret", "previous_expires_at", "rotated_at")
}
_DUE: Final = f"""SELECT {columns(DueDelivery, "d", **_OF_EVENT, **_OF_WEBHOOK)}
    {_FROM} JOIN webhooks w ON w.id = d.webhook_id"""


def with_work(view: View, now: int) -> list[str]:
    """Return the ids of webhooks that have events to pick up, or a delivery that is due."""
    rows = view.all(
        """SELECT w.id FROM webhooks w WHERE w.enabled = 1 AND (
            EXISTS (SELECT 1 FROM events e WHERE e.project_id = w.project_id AND e.seq > w.cursor)
            OR EXISTS (SELECT 1 FROM deliveries d
                WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.attempts = 0)
            OR EXISTS (SELECT 1 FROM deliveries d
                WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.next_attempt_at <= ?))""",
        now,
    )
    return [row["id"] for row in rows]


def next_due(view: View, now: int) -> int | None:
    """Return when the next repeated delivery is due (milliseconds since the epoch), or None."""
    due: int | None = view.value(
        """SELECT min((SELECT min(d.next_attempt_at) FROM deliveries d
                WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.attempts > 0 AND d.next_attempt_at > ?))
            FROM webhooks w WHERE w.enabled = 1""",
        now,
    )
    return due


def due(view: View, webhook_id: str, now: int) -> DueDelivery | None:
    """Return the next delivery to send, with its event, and ``url`` and secrets of its webhook.

    Deliveries without a try are due whatever the clock says, in the order of their events. One that is to be tried
    again goes before them when it has been due for longer.
    """
    first = _next(view, "d.attempts = 0", "d.event_seq", webhook_id)
    again = _next(view, "d.attempts > 0 AND d.next_attempt_at <= ?", "d.next_attempt_at, d.event_seq", webhook_id, now)
    if first is None or again is None:
        return first or again
    return again if again.next_attempt_at <= first.next_attempt_at else first


def _next(view: View, condition: str, order: str, *values: Any) -> DueDelivery | None:
    return view.record(
        DueDelivery,
        f"""{_DUE} WHERE d.webhook_id = ? AND w.enabled = 1 AND d.status = 'pending' AND {condition}
            ORDER BY {order} LIMIT 1""",
        *values,
    )


def unread(view: View, webhook: WebhookRecord, up_to: int, limit: int) -> list[UnreadEvent]:
    """Return ``seq``, ``type`` and ``data`` of the project's next events after the webhook's cursor, oldest first."""
    return view.records(
        UnreadEvent,
        "SELECT seq, type, data FROM events WHERE project_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        webhook.project_id,
        webhook.cursor,
        up_to,
        limit,
    )


def pick_up(tx: Tx, webhook_id: str, seq: int) -> None:
    """Insert a delivery of this event to this webhook, due at once."""
    tx.run(
        """INSERT INTO deliveries (id, webhook_id, event_seq, status, attempts, next_attempt_at, created_at)
            VALUES (?, ?, ?, 'pending', 0, ?, ?)""",
        tx.new_id(ids.DELIVERY),
        webhook_id,
        seq,
        tx.now,
        tx.now,
    )


def set_cursor(tx: Tx, webhook_id: str, seq: int) -> None:
    """Record that everything up to here has been picked up."""
    tx.run("UPDATE webhooks SET cursor = ? WHERE id = ?", seq, webhook_id)


def settle(
    tx: Tx,
    delivery: DueDelivery,
    *,
    status: str,
    response_status: int | None,
    error: str | None,
    next_attempt_at: int | None,
) -> None:
    """Record how a try ended. If a replay was asked for meanwhile, the delivery stays due."""
    tx.run(
        """UPDATE deliveries SET response_status = ?, error = ?, last_attempt_at = ? WHERE id = ?""",
        *(response_status, error, tx.now, delivery.id),
    )
    tx.run(
        """UPDATE deliveries SET status = ?, attempts = attempts + 1, next_attempt_at = ?
            WHERE id = ? AND replays = ?""",
        *(status, next_attempt_at, delivery.id, delivery.replays),
    )


def wait_no_longer(tx: Tx, attempts: int, until: int) -> None:
    """Bound the wait of deliveries with so many tries by ``until``."""
    tx.run(
        """UPDATE deliveries SET next_attempt_at = ?1
            WHERE status = 'pending' AND attempts = ?2 AND next_attempt_at > ?1""",
        until,
        attempts,
    )


def replay(tx: Tx, delivery_id: str) -> None:
    """Make the delivery due at once, with all its tries."""
    tx.wrote_events = True
    tx.run(
        """UPDATE deliveries SET status = 'pending', attempts = 0, next_attempt_at = ?, replays = replays + 1
            WHERE id = ?""",
        *(tx.now, delivery_id),
    )


def find(view: View, webhook_id: str, delivery_id: str) -> DeliveryRecord | None:
    """Return a delivery to this webhook."""
    return view.record(
        DeliveryRecord,
        f"{_DELIVERIES} WHERE d.id = ? AND d.webhook_id = ?",
        delivery_id,
        webhook_id,
    )


def page(view: View, webhook_id: str, query: ListDeliveries) -> list[DeliveryRecord]:
    """Return a page, newest events first, and one row more than ``query.limit`` when there are more."""
    return view.records(
        DeliveryRecord,
        f"""{_DELIVERIES} WHERE d.webhook_id = ?1 AND d.status = coalesce(?2, d.status)
            AND (?3 IS NULL OR d.event_seq < (SELECT event_seq FROM deliveries WHERE id = ?3 AND webhook_id = ?1))
            ORDER BY d.event_seq DESC LIMIT ?4""",  # noqa: S608 - constants
        webhook_id,
        query.status,
        query.cursor,
        query.limit + 1,
    )


def to_model(delivery: DeliveryRecord) -> Delivery:
    """Return it as the API shows it."""
    return Delivery(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        status=delivery.status,
        attempts=delivery.attempts,
        response_status=delivery.response_status,
        error=delivery.error,
        next_attempt_at=moment(delivery.next_attempt_at),
        last_attempt_at=moment(delivery.last_attempt_at),
        created_at=to_rfc3339(delivery.created_at),
    )


def prune(tx: Tx, before: int, limit: int) -> int:
    """Delete up to ``limit`` deliveries that ended before then; return how many. Pending ones stay."""
    return tx.run(
        """DELETE FROM deliveries WHERE id IN
            (SELECT id FROM deliveries WHERE status <> 'pending' AND last_attempt_at < ? LIMIT ?)""",
        before,
        limit,
    ).rowcount
