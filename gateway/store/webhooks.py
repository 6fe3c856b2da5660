"""SQL of webhooks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway import ids
from gateway.clock import to_rfc3339
from gateway.webhooks_model import CreateWebhook, ListWebhooks, Webhook

if TYPE_CHECKING:
    from gateway.store.database import Row, Tx, View


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


def insert(tx: Tx, project_id: str, body: CreateWebhook, key: bytes) -> str:
    """A new webhook for what happens from now on; its id."""
    webhook_id = tx.new_id(ids.WEBHOOK)
    tx.run(
        """INSERT INTO webhooks (id, project_id, url, events, description, enabled, secret, cursor, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(seq), 0) FROM events), ?)""",
        webhook_id,
        project_id,
        body.url,
        json.dumps(body.events),
        body.description,
        body.enabled,
        key,
        tx.now,
    )
    return webhook_id


def update(tx: Tx, webhook_id: str, changes: dict[str, Any]) -> None:
    """Change these fields. One that is switched on begins with what happens from now on."""
    tx.news = True
    for name, value in changes.items():
        stored = json.dumps(value) if name == "events" else value
        tx.run(f"UPDATE webhooks SET {_COLUMNS[name]} = ? WHERE id = ?", stored, webhook_id)  # noqa: S608 - constants


def skip_to_now(tx: Tx, webhook_id: str) -> None:
    """Leave out what happened while it was switched off."""
    tx.run("UPDATE webhooks SET cursor = (SELECT coalesce(max(seq), 0) FROM events) WHERE id = ?", webhook_id)


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
    }


_COLUMNS = {name: name for name in ("url", "events", "description", "enabled")}
