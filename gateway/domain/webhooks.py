"""Webhooks and their deliveries: each verb is a function, each function a transaction (contract, section 5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.core import ids, webhook_signing
from gateway.core.clock import DAY_MS, SECOND_MS, to_rfc3339
from gateway.core.webhook_urls import check_url
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError
from gateway.models.events import EventType
from gateway.models.fields import MAX_NUMBER
from gateway.models.webhooks import EVERY, CreateWebhook, UpdateWebhook
from gateway.store import Context, Tx, View, delivery_sql, event_sql, measurements, secret_sql, webhook_sql

MOST_PER_PROJECT: Final = 50
TRIES_AT: Final = (0, 60, 300, 1_800, 7_200, 28_800)
"""Seconds after the first try at which a delivery is tried (contract, section 5)."""

_OF_WEBHOOKS: Final = (
    EventType.WEBHOOK_CREATED,
    EventType.WEBHOOK_UPDATED,
    EventType.WEBHOOK_ROTATED,
    EventType.WEBHOOK_DELETED,
)
_PRUNED_AT_ONCE: Final = 5_000
_PICKED_AT_ONCE: Final = 100


@dataclass(frozen=True)
class DeliveryOutcome:
    """How a try ended: the status of the answer, if there was one, and why it failed, if it did."""

    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        """Return whether the receiver accepted it."""
        return self.error is None


def create(tx: Tx, project_id: str, body: CreateWebhook, actor: str) -> tuple[webhook_sql.WebhookRecord, str]:
    """Create a webhook; return it and its secret.

    Raises:
        InvalidRequestError: the gateway does not send to such a URL.
        ConflictError: ``webhook_limit_reached``.
    """
    _require_url(tx, body.url)
    if webhook_sql.count(tx, project_id) >= MOST_PER_PROJECT:
        raise ConflictError(
            "webhook_limit_reached",
            f"This project has {MOST_PER_PROJECT} webhooks, which is the limit. Delete one that is not needed "
            "(DELETE /v1/webhooks/{id}), or let one take more types of events.",
            details={"limit": MOST_PER_PROJECT},
        )
    key, webhook_id = webhook_signing.mint_key(tx.entropy), tx.new_id(ids.WEBHOOK)
    facts = _facts(webhook_id, body.url, body.events, enabled=body.enabled)
    event_sql.record_administrative(tx, project_id, EventType.WEBHOOK_CREATED, actor, **facts)
    webhook_sql.insert(tx, project_id, webhook_id, body, key)
    return require(tx, project_id, webhook_id), webhook_signing.secret(key)


def _facts(webhook_id: str, url: str, types: Sequence[str], *, enabled: bool) -> dict[str, Any]:
    """Return a webhook's facts for events: of its URL the host alone, since the rest may hold a secret."""
    return {"webhook_id": webhook_id, "host": urlsplit(url).hostname, "events": list(types), "enabled": enabled}


def _facts_of(row: webhook_sql.WebhookRecord) -> dict[str, Any]:
    return _facts(row.id, row.url, json.loads(row.events), enabled=bool(row.enabled))


def _require_url(tx: Tx, url: str) -> None:
    try:
        check_url(url, allow_private=tx.rules.webhook_allow_private, allow_loopback=tx.rules.webhook_allow_loopback)
    except ValueError as error:
        message = f"{error}."
        raise InvalidRequestError(
            f"url: {message}", details={"field": "url", "problems": [{"field": "url", "message": message}]}
        ) from error


def require(view: View, project_id: str, webhook_id: str) -> webhook_sql.WebhookRecord:
    """Return the webhook.

    Raises:
        NotFoundError: this project has no such webhook; the error reveals nothing of other projects.
    """
    row = webhook_sql.find(view, project_id, webhook_id)
    if row is None:
        raise NotFoundError(
            f"There is no webhook '{webhook_id[:80]}' in this project. GET /v1/webhooks lists those there are."
        )
    return row


def update(tx: Tx, project_id: str, webhook_id: str, body: UpdateWebhook, actor: str) -> webhook_sql.WebhookRecord:
    """Change what is given. Events from a time when the webhook was switched off are left out.

    Raises:
        InvalidRequestError: the gateway does not send to such a URL.
    """
    webhook, changes = require(tx, project_id, webhook_id), body.changes
    if "url" in changes:
        _require_url(tx, body.url)
    webhook_sql.update(tx, webhook_id, changes)
    row = require(tx, project_id, webhook_id)
    before, after = webhook._asdict(), row._asdict()
    changed = [name for name in changes if after[name] != before[name]]
    if changed:
        facts = {**_facts_of(row), "changed": changed}
        event_sql.record_administrative(tx, project_id, EventType.WEBHOOK_UPDATED, actor, **facts)
    if changes.get("enabled", bool(webhook.enabled)) != bool(webhook.enabled):
        (webhook_sql.end_gap if changes["enabled"] else webhook_sql.begin_gap)(tx, webhook_id)
    return require(tx, project_id, webhook_id)


def rotate(
    tx: Tx, project_id: str, webhook_id: str, overlap_ms: int, actor: str
) -> tuple[webhook_sql.WebhookRecord, str]:
    """Give the webhook a new secret. The previous one signs too, for ``overlap_ms``; an older one is dropped.

    Returns:
        The webhook, and its new secret, which is shown this once.
    """
    require(tx, project_id, webhook_id)
    key = webhook_signing.mint_key(tx.entropy)
    webhook_sql.rotate(tx, webhook_id, secret_sql.seal(tx, secret_sql.place_of_webhook(webhook_id), key), overlap_ms)
    return _record_rotation(tx, require(tx, project_id, webhook_id), actor), webhook_signing.secret(key)


def _record_rotation(tx: Tx, row: webhook_sql.WebhookRecord, actor: str) -> webhook_sql.WebhookRecord:
    until = None if row.previous_expires_at is None else to_rfc3339(row.previous_expires_at)
    facts = {"webhook_id": row.id, "previous_secret_expires_at": until}
    event_sql.record_administrative(tx, row.project_id, EventType.WEBHOOK_ROTATED, actor, **facts)
    return row


def forget_previous(tx: Tx, project_id: str, webhook_id: str, actor: str) -> webhook_sql.WebhookRecord:
    """End the overlap of the last rotation now. Without an overlap nothing changes."""
    before = require(tx, project_id, webhook_id)
    webhook_sql.forget_previous(tx, webhook_id)
    after = require(tx, project_id, webhook_id)
    return after if before.previous_expires_at is None else _record_rotation(tx, after, actor)


def signing_keys(
    webhook_id: str, row: webhook_sql.WebhookRecord | delivery_sql.DueDelivery, context: Context
) -> webhook_signing.Keys:
    """Return the keys that sign at this time; ``row`` has the secrets of the webhook."""
    still = webhook_sql.signs_still(row.previous_expires_at, row.rotated_at, context.clock())
    stored = (row.secret, row.previous_secret) if still and row.previous_secret is not None else (row.secret,)
    return tuple(context.vault.open(secret_sql.place_of_webhook(webhook_id), each) for each in stored)


def delete(tx: Tx, project_id: str, webhook_id: str, actor: str) -> webhook_sql.WebhookRecord:
    """Delete a webhook with its deliveries; return the webhook as it was."""
    webhook = require(tx, project_id, webhook_id)
    event_sql.record_administrative(tx, project_id, EventType.WEBHOOK_DELETED, actor, **_facts_of(webhook))
    webhook_sql.delete(tx, webhook_id)
    return webhook


def require_delivery(view: View, webhook: webhook_sql.WebhookRecord, delivery_id: str) -> delivery_sql.DeliveryRecord:
    """Return the delivery to this webhook.

    Raises:
        NotFoundError: there is no such delivery.
    """
    row = delivery_sql.find(view, webhook.id, delivery_id)
    if row is None:
        raise NotFoundError(
            f"This webhook has no delivery '{delivery_id[:80]}', or it is no longer kept. "
            f"GET /v1/webhooks/{webhook.id}/deliveries lists those there are."
        )
    return row


def replay(tx: Tx, project_id: str, webhook_id: str, delivery_id: str) -> delivery_sql.DeliveryRecord:
    """Send an event again, at once and with all its tries. Its id, and so its ``webhook-id``, stay.

    Raises:
        ConflictError: ``webhook_disabled``.
    """
    webhook = require(tx, project_id, webhook_id)
    require_delivery(tx, webhook, delivery_id)
    if not webhook.enabled:
        raise ConflictError(
            "webhook_disabled",
            f"The webhook is switched off, so nothing is sent. Switch it on first (PATCH /v1/webhooks/{webhook_id} "
            'with "enabled": true).',
        )
    delivery_sql.replay(tx, delivery_id)
    return require_delivery(tx, webhook, delivery_id)


def pick_up(tx: Tx, webhook_id: str) -> bool:
    """Make deliveries of the next events that this webhook subscribes to. Return whether there were events to check.

    The cursor moves in the same transaction, so each event is picked up once, whenever the process dies.
    """
    webhook = webhook_sql.find_enabled(tx, webhook_id)
    if webhook is None:
        return False
    gap = webhook_sql.next_gap(tx, webhook_id)
    unread = delivery_sql.unread(tx, webhook, MAX_NUMBER if gap is None else gap.after_seq, _PICKED_AT_ONCE)
    if not unread:
        if gap is not None:
            webhook_sql.pass_gap(tx, webhook_id, gap)
        return gap is not None
    wanted = set(json.loads(webhook.events))
    for event in unread:
        if (EVERY in wanted or event.type in wanted) and not _is_about(webhook_id, event):
            delivery_sql.pick_up(tx, webhook_id, event.seq)
    delivery_sql.set_cursor(tx, webhook_id, unread[-1].seq)
    return True


def _is_about(webhook_id: str, event: delivery_sql.UnreadEvent) -> bool:
    """Return whether the event is about this very webhook: its receiver is not sent that."""
    return event.type in _OF_WEBHOOKS and json.loads(event.data)["webhook_id"] == webhook_id


def settle(tx: Tx, delivery: delivery_sql.DueDelivery, outcome: DeliveryOutcome) -> None:
    """Record how a try ended and when the next one is. After the last the delivery is ``failed`` and kept."""
    tries = delivery.attempts + 1
    more = not outcome.delivered and tries < len(TRIES_AT)
    # The pause counts from this try: after a standstill the deliveries do not all come at once.
    pause = _pause_ms(tries) if more else 0
    tx.measure(measurements.DELIVERY, "delivered" if outcome.delivered else "to_be_retried" if more else "failed")
    delivery_sql.settle(
        tx,
        delivery,
        status="delivered" if outcome.delivered else "pending" if more else "failed",
        response_status=outcome.response_status,
        error=outcome.error,
        next_attempt_at=tx.now + pause if more else None,
    )


def _pause_ms(tries: int) -> int:
    """Return the pause after this many tries, in milliseconds."""
    return (TRIES_AT[tries] - TRIES_AT[tries - 1]) * SECOND_MS if tries else 0


def count_anew(tx: Tx) -> None:
    """Bound the wait of each delivery by its pause, counted from now.

    After the clock was set back, it would otherwise wait for as long as the clock went back on top.
    """
    for tries in range(len(TRIES_AT)):
        delivery_sql.wait_no_longer(tx, tries, tx.now + _pause_ms(tries))


def prune(tx: Tx) -> int:
    """Delete expired secrets, and deliveries that are older than the settings keep, a few thousand at a time.

    Return how many were deleted.
    """
    return webhook_sql.forget_expired(tx) + delivery_sql.prune(
        tx, tx.now - tx.rules.delivery_history_days * DAY_MS, _PRUNED_AT_ONCE
    )
