"""Invariant 4: whether what is acknowledged to the broker is committed, judged by looking into the registry."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from device_sim.wire import milliseconds
from gateway.domain.grants import key_id
from gateway.domain.messages import Message
from tests.simulation.model_state import ModelState

_DISTINCT_CHARACTERS = 50
"""So many characters of a refused payload tell it from others."""


def find_missing(disk: sqlite3.Connection, model: ModelState, message: Message, arrived_at_commit: int) -> str | None:
    """What is missing in the registry of a message that is acknowledged now; ``None`` when nothing is."""
    levels = message.topic.split("/")
    device = disk.execute("SELECT pk FROM devices WHERE id = ?", (levels[1],)).fetchone()
    if device is None or not message.payload:
        return None
    body = json.loads(message.payload)
    if levels[-1] == "heartbeat":
        is_stored = _is_heartbeat_stored(disk, model, device["pk"], body, arrived_at_commit)
    elif levels[-1] == "ack":
        is_stored = _is_status_stored(disk, body)
    else:
        return None
    return (
        None if is_stored or _is_refusal_stored(disk, message) else f"{message.topic}: {message.payload[:120].decode()}"
    )


def _is_heartbeat_stored(
    disk: sqlite3.Connection, model: ModelState, device_pk: int, body: dict[str, Any], arrived_at_commit: int
) -> bool:
    """In the history; or the device had, at some commit since it arrived, no token whose heartbeats are stored."""
    sent_at = milliseconds(body["sent_at"])
    stored = disk.execute("SELECT 1 FROM heartbeats WHERE device_pk = ? AND sent_at = ?", (device_pk, sent_at))
    if stored.fetchone() is not None or "active" not in model.live_tokens(device_pk):
        return True
    return any(commit >= arrived_at_commit for commit in model.token_changes[device_pk])


def _is_status_stored(disk: sqlite3.Connection, body: dict[str, Any]) -> bool:
    """The command is as far as the device says, or final."""
    command = disk.execute("SELECT status, grant_token FROM commands WHERE id = ?", (body["command_id"],)).fetchone()
    if command is None:
        return False
    if (body.get("result") or {}).get("grant_kid") == key_id(command["grant_token"]) and "error" in body:
        return True  # it refused an earlier grant, and the gateway signs with the key that the device names
    earlier_statuses = {"pending"} if body["status"] == "delivered" else {"pending", "delivered"}
    return command["status"] not in earlier_statuses


def _is_refusal_stored(disk: sqlite3.Connection, message: Message) -> bool:
    rows = disk.execute("SELECT payload FROM refusals WHERE source = ?", (message.topic,)).fetchall()
    prefix = message.payload[:_DISTINCT_CHARACTERS].decode()
    return any(row["payload"].startswith(prefix) for row in rows)
