"""SQL of webhooks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.clock import to_rfc3339
from gateway.models.webhooks import CreateWebhook, ListWebhooks, Webhook
from gateway.store import secret_sql
from gateway.store.device_sql import moment
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View


class WebhookRecord(NamedTuple):
    """A webhook; times are milliseconds since the epoch.

    ``events`` is a list of types as JSON text. ``enabled`` is 0 or 1. The secrets are as they are stored: sealed where
    the registry is encrypted. ``cursor`` is the ``seq`` up to which events were picked up.
    """

    id: str
    project_id: str
    url: str
    events: str
    description: str | None
    enabled: int
    secret: bytes
    cursor: int
    created_at: int
    previous_secret: bytes | None
    previous_expires_at: int | None
    rotated_at: int | None

    def __repr__(self) -> str:
        """Return what may be logged."""
        return f"WebhookRecord(id={self.id!r}, project_id={self.project_id!r})"


class WebhookGap(NamedTuple):
    """Events that a webhook leaves out: those after ``after_seq`` up to ``up_to``, ``None`` while it is off."""

    after_seq: int
    up_to: int | None


_WEBHOOKS: Final = f"SELECT {columns(WebhookRecord, 'w')} FROM webhooks w"  # noqa: S608 - our own columns

_NEWEST: Final = "(SELECT coalesce(max(seq), 0) FROM events)"


def find(view: View, project_id: str, webhook_id: str) -> WebhookRecord | None:
    """Return a webhook of this project."""
    return view.record(WebhookRecord, f"{_WEBHOOKS} WHERE w.id = ? AND w.project_id = ?", webhook_id, project_id)


def find_enabled(view: View, webhook_id: str) -> WebhookRecord | None:
    """Return a webhook of any project, if it is enabled."""
    return view.record(WebhookRecord, f"{_WEBHOOKS} WHERE w.id = ? AND w.enabled = 1", webhook_id)


def count(view: View, project_id: str) -> int:
    """Return how many this project has."""
    number: int = view.value("SELECT count(*) FROM webhooks WHERE project_id = ?", project_id)
    return number


def page(view: View, project_id: str, query: ListWebhooks) -> list[WebhookRecord]:
    """Return a page, newest first, and one row more than ``query.limit`` when there are more."""
    return view.records(
        WebhookRecord,
        f"{_WEBHOOKS} WHERE w.project_id = ? AND w.id < coalesce(?, '~') ORDER BY w.id DESC LIMIT ?",
        project_id,
        query.cursor,
        query.limit + 1,
    )


def insert(tx: Tx, project_id: str, webhook_id: str, body: CreateWebhook, key: bytes) -> None:
    """Insert a webhook for events from now on."""
    tx.run(
        """INSERT INTO webhooks (id, project_id, url, events, description, enabled, secret, cursor, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(seq), 0) FROM events), ?)""",
        webhook_id,
        project_id,
        body.url,
        json.dumps(body.events),
        body.description,
        body.enabled,
        secret_sql.seal(tx, secret_sql.place_of_webhook(webhook_id), key),
        tx.now,
    )
    if not body.enabled:
        begin_gap(tx, webhook_id)


def update(tx: Tx, webhook_id: str, changes: dict[str, Any]) -> None:
    """Change these fields."""
    tx.wrote_events = True
    for name, value in changes.items():
        stored = json.dumps(value) if name == "events" else value
        tx.run(f"UPDATE webhooks SET {_COLUMNS[name]} = ? WHERE id = ?", stored, webhook_id)  # noqa: S608 - constants


def rotate(tx: Tx, webhook_id: str, key: bytes, overlap_ms: int) -> None:
    """Sign with this key; the previous one signs too, for ``overlap_ms``."""
    tx.run(
        """UPDATE webhooks SET previous_secret = CASE WHEN ?1 > 0 THEN secret END,
            previous_expires_at = CASE WHEN ?1 > 0 THEN ?2 + ?1 END, secret = ?3, rotated_at = ?2 WHERE id = ?4""",
        *(overlap_ms, tx.now, key, webhook_id),
    )


def forget_previous(tx: Tx, webhook_id: str) -> None:
    """Drop the secret before the last rotation."""
    tx.run("UPDATE webhooks SET previous_secret = NULL, previous_expires_at = NULL WHERE id = ?", webhook_id)


def forget_expired(tx: Tx) -> int:
    """Drop every secret whose overlap is over; return how many."""
    return tx.run(
        """UPDATE webhooks SET previous_secret = NULL, previous_expires_at = NULL WHERE previous_secret IS NOT NULL
            AND ? NOT BETWEEN 2 * rotated_at - previous_expires_at AND previous_expires_at - 1""",
        tx.now,
    ).rowcount


def signs_still(until: int | None, rotated_at: int | None, now: int) -> bool:
    """Return whether the previous secret, which is good ``until`` then, still signs.

    The overlap also ends when the clock is further before the rotation than the overlap is long (as with API keys).
    """
    return until is not None and rotated_at is not None and 2 * rotated_at - until <= now < until


def begin_gap(tx: Tx, webhook_id: str) -> None:
    """Leave out events from now on, until :func:`end_gap`; earlier events are still picked up."""
    tx.run(
        f"""INSERT INTO webhook_gaps (webhook_id, after_seq)
            SELECT id, {tx.dialect.greatest("cursor", _NEWEST)} FROM webhooks WHERE id = ?""",  # noqa: S608 - constants
        webhook_id,
    )


def end_gap(tx: Tx, webhook_id: str) -> None:
    """Leave out no more events from now on."""
    tx.run(
        f"""UPDATE webhook_gaps SET up_to = {tx.dialect.greatest("after_seq", _NEWEST)}
            WHERE webhook_id = ? AND up_to IS NULL""",  # noqa: S608 - constants
        webhook_id,
    )
    tx.run("DELETE FROM webhook_gaps WHERE webhook_id = ? AND up_to = after_seq", webhook_id)


def next_gap(view: View, webhook_id: str) -> WebhookGap | None:
    """Return ``after_seq`` and ``up_to`` of the first gap that the cursor has not passed."""
    return view.record(
        WebhookGap,
        "SELECT after_seq, up_to FROM webhook_gaps WHERE webhook_id = ? ORDER BY after_seq LIMIT 1",
        webhook_id,
    )


def pass_gap(tx: Tx, webhook_id: str, gap: WebhookGap) -> None:
    """Move the cursor behind this gap."""
    further = tx.dialect.greatest("cursor", "?")
    tx.run(f"UPDATE webhooks SET cursor = {further} WHERE id = ?", gap.up_to, webhook_id)  # noqa: S608 - constants
    tx.run("DELETE FROM webhook_gaps WHERE webhook_id = ? AND after_seq = ?", webhook_id, gap.after_seq)


def delete(tx: Tx, webhook_id: str) -> None:
    """Delete it with its deliveries."""
    tx.run("DELETE FROM webhooks WHERE id = ?", webhook_id)


def to_model(webhook: WebhookRecord) -> Webhook:
    """Return it as the API shows it."""
    return Webhook.model_construct(**fields(webhook))


def fields(webhook: WebhookRecord) -> dict[str, Any]:
    """Return what the API shows of a webhook, never its key."""
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": json.loads(webhook.events),
        "description": webhook.description,
        "enabled": bool(webhook.enabled),
        "created_at": to_rfc3339(webhook.created_at),
        "rotated_at": moment(webhook.rotated_at),
        "previous_secret_expires_at": moment(webhook.previous_expires_at),
    }


_COLUMNS = {name: name for name in ("url", "events", "description", "enabled")}
