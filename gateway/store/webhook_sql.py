"""SQL of webhooks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.core.clock import to_rfc3339
from gateway.models.webhooks import CreateWebhook, ListWebhooks, Webhook
from gateway.store import secret_sql
from gateway.store.device_sql import moment

if TYPE_CHECKING:
    from gateway.store.sqlite.connection import Row, Tx, View


def find(view: View, project_id: str, webhook_id: str) -> Row | None:
    """A webhook of this project."""
    return view.one("SELECT * FROM webhooks WHERE id = ? AND project_id = ?", webhook_id, project_id)


def count(view: View, project_id: str) -> int:
    """How many this project has."""
    number: int = view.value("SELECT count(*) FROM webhooks WHERE project_id = ?", project_id)
    return number


def page(view: View, project_id: str, query: ListWebhooks) -> list[Row]:
    """One row more than ``query.limit`` when there are more, newest first."""
    return view.all(
        "SELECT * FROM webhooks WHERE project_id = ? AND id < coalesce(?, '~') ORDER BY id DESC LIMIT ?",
        project_id,
        query.cursor,
        query.limit + 1,
    )


def insert(tx: Tx, project_id: str, webhook_id: str, body: CreateWebhook, key: bytes) -> None:
    """A new webhook for what happens from now on."""
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
    """Sign with this key; the one before signs, too, for ``overlap_ms``."""
    tx.run(
        """UPDATE webhooks SET previous_secret = CASE WHEN ?1 > 0 THEN secret END,
            previous_expires_at = CASE WHEN ?1 > 0 THEN ?2 + ?1 END, secret = ?3, rotated_at = ?2 WHERE id = ?4""",
        *(overlap_ms, tx.now, key, webhook_id),
    )


def forget_previous(tx: Tx, webhook_id: str) -> None:
    """Drop the secret before the last rotation."""
    tx.run("UPDATE webhooks SET previous_secret = NULL, previous_expires_at = NULL WHERE id = ?", webhook_id)


def forget_expired(tx: Tx) -> int:
    """Drop every secret whose overlap is over; how many went."""
    return tx.run(
        """UPDATE webhooks SET previous_secret = NULL, previous_expires_at = NULL WHERE previous_secret IS NOT NULL
            AND ? NOT BETWEEN 2 * rotated_at - previous_expires_at AND previous_expires_at - 1""",
        tx.now,
    ).rowcount


def signs_still(row: Row, now: int) -> bool:
    """Whether the secret before the last rotation is good at this instant.

    It ends, too, when the clock is further before the rotation than the overlap is long (as with API keys).
    """
    until = row["previous_expires_at"]
    return until is not None and 2 * row["rotated_at"] - until <= now < until


def begin_gap(tx: Tx, webhook_id: str) -> None:
    """Leave out what happens from now on, until :func:`end_gap`; what happened before is still to be picked up."""
    tx.run(
        """INSERT INTO webhook_gaps (webhook_id, after_seq)
            SELECT id, max(cursor, (SELECT coalesce(max(seq), 0) FROM events)) FROM webhooks WHERE id = ?""",
        webhook_id,
    )


def end_gap(tx: Tx, webhook_id: str) -> None:
    """Leave out nothing that happens from now on."""
    tx.run(
        """UPDATE webhook_gaps SET up_to = max(after_seq, (SELECT coalesce(max(seq), 0) FROM events))
            WHERE webhook_id = ? AND up_to IS NULL""",
        webhook_id,
    )
    tx.run("DELETE FROM webhook_gaps WHERE webhook_id = ? AND up_to = after_seq", webhook_id)


def next_gap(view: View, webhook_id: str) -> Row | None:
    """Return ``after_seq`` and ``up_to`` of the first gap that was not passed yet."""
    return view.one(
        "SELECT after_seq, up_to FROM webhook_gaps WHERE webhook_id = ? ORDER BY after_seq LIMIT 1", webhook_id
    )


def pass_gap(tx: Tx, webhook_id: str, gap: Row) -> None:
    """Go on behind this gap."""
    tx.run("UPDATE webhooks SET cursor = max(cursor, ?) WHERE id = ?", gap["up_to"], webhook_id)
    tx.run("DELETE FROM webhook_gaps WHERE webhook_id = ? AND after_seq = ?", webhook_id, gap["after_seq"])


def delete(tx: Tx, webhook_id: str) -> None:
    """Drop it with its deliveries."""
    tx.run("DELETE FROM webhooks WHERE id = ?", webhook_id)


def to_model(row: Row) -> Webhook:
    """A row as the API shows it."""
    return Webhook.model_construct(**fields(row))


def fields(row: Row) -> dict[str, Any]:
    """What the API shows of a webhook; never its key."""
    return {
        "id": row["id"],
        "url": row["url"],
        "events": json.loads(row["events"]),
        "description": row["description"],
        "enabled": bool(row["enabled"]),
        "created_at": to_rfc3339(row["created_at"]),
        "rotated_at": moment(row["rotated_at"]),
        "previous_secret_expires_at": moment(row["previous_expires_at"]),
    }


_COLUMNS = {name: name for name in ("url", "events", "description", "enabled")}
